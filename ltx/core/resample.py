"""Training examples drawn anew: folds and halves, a set for each replicate, so that all are trained in one stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.ticket import Rows
from ltx.data.base import SPLIT_SEED, Data
from ltx.errors import demand
from ltx.streams import stream


def folds(data: Data, seeds: Sequence[int], count: int) -> Rows:
    """Replicate r leaves out fold r mod `count` and is judged by it (Stone 1974); the folds are the same in every run.

    Stratified by class. As many rows for everybody: of larger folds some are left out by lot.
    """
    owner, kinds = owners(data)
    demand(count <= len(kinds), "method.folds", count, f"there are {len(kinds)} training examples or groups")
    fold = torch.empty(len(kinds), dtype=torch.int64)
    fold[dealt(kinds, torch.Generator().manual_seed(SPLIT_SEED))] = torch.arange(len(kinds)) % count
    return even([fold[owner] == r % count for r in range(len(seeds))], seeds)


def halves(data: Data, seeds: Sequence[int], count: int) -> Rows:
    """Each replicate trains on a random half and is judged by the other (Meinshausen & Bühlmann 2010, section 2.1)."""
    owner, kinds = owners(data)
    left_out = []
    for seed in seeds:
        half = torch.empty(len(kinds), dtype=torch.bool)
        half[dealt(kinds, stream(seed, "half"))] = torch.arange(len(kinds)) % 2 == 0
        left_out.append(half[owner])
    return even(left_out, seeds)


RESAMPLES: dict[str, Callable[[Data, Sequence[int], int], Rows]] = {"folds": folds, "halves": halves}


def owners(data: Data) -> tuple[Tensor, Tensor]:
    """Of each training example what it must stay together with, [N], and of each of those a class, [owners]."""
    count, targets = len(data.train), data.train.targets.cpu()
    classes = targets if data.goal == "classification" else torch.zeros(count, dtype=torch.int64)
    if data.owners is None:
        return torch.arange(count), classes
    owner = data.owners.unique(return_inverse=True)[1]
    kinds = torch.zeros(int(owner.max()) + 1, dtype=torch.int64)
    kinds[owner] = classes  # of a group, one row's
    return owner, kinds


def dealt(kinds: Tensor, generator: torch.Generator) -> Tensor:
    """All places in random order, class after class: dealt out in turn they are stratified."""
    order = torch.randperm(len(kinds), generator=generator)
    return order[kinds[order].argsort(stable=True)]


def even(left_out: Sequence[Tensor], seeds: Sequence[int]) -> Rows:
    """From who is left out by each replicate, [N] bool: as many rows for every replicate, by lot."""

    def rows(masks: Sequence[Tensor], purpose: str) -> Tensor:
        places = [mask.nonzero().flatten() for mask in masks]
        least = min(map(len, places))
        drawn = [
            torch.randperm(len(place), generator=stream(seed, "rows", purpose))[:least].sort().values
            for seed, place in zip(seeds, places, strict=True)
        ]
        return torch.stack([place[some] for place, some in zip(places, drawn, strict=True)])

    return Rows(rows([~mask for mask in left_out], "train"), rows(left_out, "val"))


def fitted(plan: Plan, rows: Rows) -> Plan:
    """The plan for fewer examples: as many steps, in batches no larger than there are rows."""
    size = min(plan.batch_size, rows.train.shape[1])
    return replace(plan, batch_size=size, epoch=rows.train.shape[1] // size)
