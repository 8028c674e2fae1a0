"""Randomness: every replicate has its own named streams, each a pure function of (seed, purpose).

Nothing is remembered between draws, so a replicate never depends on who trains beside it, and a resumed or
rewound training sees the same batches without any generator state having been saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
    """The order in which one replicate sees the training examples in one epoch, [examples] int64."""
    return torch.randperm(examples, generator=stream(seed, "order", epoch))


@contextmanager
def seeded(seed: int, *purpose: object) -> Iterator[None]:
    """torch's global generator set for one purpose inside the block, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *purpose))
        yield
