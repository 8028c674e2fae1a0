"""The inputs of a network as features: their names, and which of them come and go together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import product

import torch
from torch import Tensor

from ltx.data.base import Data
from ltx.errors import demand, unknown


def named(data: Data) -> list[str]:
    """A name for every input of a network, in order: a table's columns, or a pixel's place, as in `3,17`."""
    return list(data.names) or [",".join(map(str, place)) for place in places(data.shape)]


def places(shape: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """Where each input lies: row and column, and before them the channel if there are several."""
    several = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    return product(*map(range, several))


def grouped(patterns: Sequence[Sequence[str]], data: Data, device: torch.device) -> Tensor | None:
    """The number of each input's group [d] int64; None if each is by itself.

    A group is a list of names or patterns; columns that are one feature of the data are a group too. Raises
    UserError for a pattern that matches nothing, and for an input in two groups.
    """
    names = named(data)
    members = [matching(group, names) for group in patterns] + [
        list(group) for group in data.groups.values() if len(group) > 1
    ]
    if not members:
        return None
    found = torch.full((len(names),), -1)
    for number, group in enumerate(members):
        for j in group:
            demand(int(found[j]) in (-1, number), "method.groups", names[j], "it is in two groups")
            found[j] = number
    alone = (found < 0).nonzero().flatten()
    found[alone] = torch.arange(len(members), len(members) + len(alone))
    return found.to(device)


def matching(patterns: Sequence[str], names: Sequence[str]) -> list[int]:
    """The places of the names that some pattern matches; raises UserError for one that matches none."""
    found = []
    for pattern in patterns:
        matched = [j for j, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not matched:
            raise unknown("method.groups", pattern, names)
        found += matched
    return found
