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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


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

    For a network of the user's own that is computed, as with dropout: it may draw from nothing else, since
    torch.utils.checkpoint puts back the global generator before it computes a part again. Other threads of ltx
    wait meanwhile. The training and the evaluation of networks that surely draw nothing do without.
    """
    value = derive(seed, *purpose)
    with _others_generators(value), torch.random.fork_rng(devices=[]):
        torch.manual_seed(value)
        yield


@contextmanager
def drawing(seed: int, *purpose: object) -> Iterator[None]:
    """Whatever torch draws inside the block comes from the stream of one purpose, and from no global generator.

    For a network that is built: any other thread may draw or set torch's generators meanwhile. numpy's and
    Python's generators are set as in `seeded`.
    """
    with _others_generators(derive(seed, *purpose)), _Drawing(stream(seed, *purpose)):
        yield


@contextmanager
def _others_generators(value: int) -> Iterator[None]:
    """numpy's and Python's global generators set inside the block, then put back; one thread at a time."""
    with GENERATORS:
        before = random.getstate(), np.random.get_state()  # noqa: NPY002  # the one that networks draw from
        random.seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


class _Drawing(TorchDispatchMode):
    """Gives its generator to every operation of this thread on the CPU that would draw from torch's own."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            chosen = with_generator(func)
            if chosen is not None and kwargs.get("generator") is None:
                func, kwargs = chosen, kwargs | {"generator": self.generator}
        return func(*args, **kwargs)


def with_generator(operation: Any) -> Any:
    """The form of an operation that takes a generator; None if torch has none (as for dropout)."""
    if any(argument.name == "generator" for argument in operation._schema.arguments):
        return operation
    name = operation._schema.overload_name
    forms = operation.overloadpacket
    return next(
        (getattr(forms, form) for form in (f"{name}_generator", "generator") if hasattr(forms, form)), None
    )
