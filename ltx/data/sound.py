"""What is wrong with data in itself, whoever they come from: found before they are trained on."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ltx.data.base import Split
from ltx.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 10  # classes that still make a readable line


def demand_sound(splits: Mapping[str, Split], where: str) -> None:
    """Refuse data that nothing can be learned from, in one line that begins with `where`; raises UserError.

    Warns of what can be trained on but hardly is meant: a class with one example, examples in two splits.
    """
    shapes = {name: tuple(split.inputs.shape[1:]) for name, split in splits.items()}
    for name, split in splits.items():
        if len(split) == 0:
            raise UserError(f"{where} gives no examples for {name}")
        if split.inputs.shape[0] != len(split):
            raise UserError(
                f"{where} gives {split.inputs.shape[0]} inputs but {len(split)} targets for {name}"
            )
        if shapes[name] != shapes["train"]:
            raise UserError(
                f"{where} gives train inputs of {sized(shapes['train'])}, but {name} inputs of {sized(shapes[name])}"
            )
        demand_finite(name, split, where)
    kinds = {(split.inputs.dtype, split.targets.dtype, split.targets.shape[1:]) for split in splits.values()}
    if len(kinds) > 1:
        raise UserError(
            f"{where} gives inputs or targets of one kind for train and of another for the others"
        )
    if splits["train"].targets.is_floating_point():
        demand_spread(splits, where)
    else:
        demand_classes(splits, where)
    demand_different(splits, where)


def sized(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def demand_finite(name: str, split: Split, where: str) -> None:
    """No NaN and no infinity among the numbers."""
    seen = 0
    for inputs, targets in split.chunks():
        for what, values in (("inputs", inputs), ("targets", targets)):
            if values.is_floating_point() and not values.isfinite().all():
                row = seen + int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
                raise UserError(f"{where} gives {what} that are not finite: example {row} of {name}")
        seen += len(targets)


def demand_spread(splits: Mapping[str, Split], where: str) -> None:
    """Numbers to predict differ, where they are learned and where they are judged."""
    for name, split in splits.items():
        if bool((split.targets == split.targets[0]).all(0).any()):
            raise UserError(f"{where} gives the same target for all examples of {name}")


def demand_classes(splits: Mapping[str, Split], where: str) -> None:
    """Every class from 0 to the highest has examples to learn from, and is at least one of two."""
    least, most = (
        int(getattr(torch.cat([s.targets for s in splits.values()]), end)()) for end in ("min", "max")
    )
    if least < 0:
        raise UserError(f"{where} gives the class {least}: classes are counted from 0")
    if most == 0:
        raise UserError(f"{where} gives examples of one class only")
    if most >= sum(map(len, splits.values())):
        raise UserError(
            f"{where} gives the class {most}, more than there are examples: classes are 0, 1, 2, ..."
        )
    counts = torch.bincount(splits["train"].targets, minlength=most + 1)
    if missing := few(counts == 0):
        raise UserError(
            f"{where} has no training example of class {missing}: the classes must be 0..K-1, each in train"
        )
    if single := few(counts == 1):
        log.warning("%s has one training example only of class %s", where, single)


def few(which: Tensor) -> str:
    """The numbers of the classes that are meant, not more than make a readable line."""
    found = which.nonzero().flatten().tolist()
    return ", ".join(map(str, found[:SHOWN])) + (
        f" and {len(found) - SHOWN} others" if len(found) > SHOWN else ""
    )


def demand_different(splits: Mapping[str, Split], where: str) -> None:
    """Inputs are not all the same; whoever is in two splits is told."""
    found = {name: hashes(split) for name, split in splits.items()}
    if len(set().union(*found.values())) == 1:
        raise UserError(f"{where} gives the same inputs for all examples: there is nothing to learn from")
    for other in ("val", "test"):
        if twice := len(found["train"] & found[other]):
            log.warning("%s has %d different inputs both in train and in %s", where, twice, other)


def hashes(split: Split) -> set[int]:
    """Of every example's input."""
    return {hash(row.tobytes()) for inputs, _ in split.chunks() for row in inputs.contiguous().numpy()}
