"""Randomness: every replicate has its own named streams, each a pure function of (seed, purpose).

Nothing is remembered between draws, so a replicate never depends on who trains beside it, and a resumed or
rewound training sees the same batches without any generator state having been saved.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *purpose: object) -> int:
    """A seed of 63 bits for one purpose of one replicate."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, *purpose: object) -> torch.Generator:
    """A fresh CPU generator for one purpose of one replicate."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def order(seed: int, epoch: int, examples: int) -> Tensor:
    """The order in which one replicate sees the training examples in one epoch, [examples] int64.

    It depends on the seed alone: every round of a seed and every control sees the same one, and after rewinding to a
    step the order goes on from there. Deviation: open_lth by default draws another at each level.
    """
    return torch.randperm(examples, generator=stream(seed, "order", epoch))


GENERATORS = threading.RLock()
"""Held by whoever sets the global generators: they belong to the process, and runs may be in any thread."""


@contextmanager
def seeded(seed: int, *purpose: object) -> Iterator[None]:
    """The global generators (torch's, numpy's, Python's) set for one purpose inside the block, then put back.

    For code that can draw from nothing else, as initialisation and dropout; other threads wait meanwhile.
    """
    value = derive(seed, *purpose)
    with GENERATORS, torch.random.fork_rng(devices=[]):
        before = random.getstate(), np.random.get_state()  # noqa: NPY002  # the one that networks draw from
        torch.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
