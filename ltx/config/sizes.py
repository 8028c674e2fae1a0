"""What cannot be, by arithmetic: networks, replicates and curves that no memory of this machine holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import torch

from ltx.core.recipe import Plan
from ltx.core.task import Layers
from ltx.errors import UserError, demand
from ltx.models.base import Model, Shape

NUMBERS = 8
"""Held for each weight while it trains, at least: itself, its gradient, two moments, mask, start, rewind, best."""
ROW = 200
"""Bytes of a row of a curve while its table is written."""
LARGE = 10_000
"""A knob of a model below this makes no network that is worth counting before it is built."""


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # "max" where the container has no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def gigabytes(count: float) -> str:
    """So many bytes, in words."""
    return f"{count / 2**30:,.0f} GB" if count < 2**60 else f"{count:.0e} bytes"


def check_network(model: Model, shape: Shape, classes: int) -> None:
    """Refuse a network that is larger than memory without building it; raises UserError."""
    key, largest = max(numbers(model), key=lambda pair: pair[1], default=("", 0.0))
    if largest < LARGE:
        return
    value = getattr(model, key.rpartition(".")[2])
    try:
        with torch.device("meta"):  # shapes without numbers; it takes a second to import
            size = sum(prod(p.shape) for p in model.build(shape, classes).parameters())
    except (RuntimeError, TypeError, OverflowError) as error:  # no tensor has so many elements
        raise UserError(f"{key}={value} is not possible: no memory holds a network so large") from error
    need = 4 * size
    have = memory()
    demand(
        need <= have,
        key,
        value,
        f"{size:.2g} weights are {gigabytes(need)}, this machine has {gigabytes(have)}",
    )


def numbers(model: Model) -> Iterator[tuple[str, float]]:
    """The numbers among a model's knobs, with their keys."""
    for one in fields(model):
        value: Any = getattr(model, one.name)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                yield model.prefix + one.name, number


def check_training(replicates: int, layers: Layers, plan: Plan) -> None:
    """Refuse replicates and curves that this machine's memory cannot hold; raises UserError."""
    have, weights = memory(), sum(layers.sizes.values())
    need = 4 * NUMBERS * weights * replicates
    demand(
        need <= have,
        "replicates",
        replicates,
        f"so many networks of {weights:,} weights take {gigabytes(need)} to train, this machine has {gigabytes(have)}",
    )
    need = ROW * replicates * plan.most_evaluations
    demand(
        need <= have,
        "recipe.eval_every",
        plan.eval_every,
        f"curves of {plan.most_evaluations:,} evaluations take {gigabytes(need)}, this machine has {gigabytes(have)}",
    )
