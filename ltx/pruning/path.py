"""A path along a growing lambda, walked by R replicates in one stack, each at its own pace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.core.ticket import Measure, Tree
from ltx.errors import demand
from ltx.pruning.masks import packed, unpacked
from ltx.pruning.prox import by_feature, hierarchical

AT_ONCE = 2**18
"""So many weights are projected together: those of more replicates would not stay in a core's cache."""
TOLD = ("val_loss", "val_measure", "test_measure")


@dataclass(frozen=True)
class Path:
    """LassoNet's path (Lemhadri et al. 2021, Algorithm 1): how lambda grows, and what is remembered of it.

    The memo holds, of each replicate, `lambda` now, the `best` objective at it, how many epochs it has `waited`
    for a better one, and the `epoch`; and of every point so far (`points` [R] many, the dense network first)
    `lambdas`, `epochs` and `TOLD`, [R, P] each, and `alive`, the features left, as bits [R, P, bytes].
    """

    skip: str
    first: str
    M: float
    groups: Tensor | None  # [d] the number of each feature's group
    factor: float
    epochs: int
    patience: int
    tolerance: float
    points: int
    measure: str  # the goal's
    dense: Tree  # of the networks it sets out from, [R]: `lambda`, the first one, `penalty`, and `TOLD`

    def project(self, weights: Tree, rate: float, memo: Tree) -> None:
        """The proximal step at each replicate's lambda, in place."""
        at = (memo or self.dense)["lambda"].to(weights[self.skip].device, torch.float32) * rate
        hierarchy(weights[self.skip], weights[self.first], at[:, None], self.M, self.groups)

    def steer(self, weights: Tree, memo: Tree, measure: Measure) -> tuple[Tree, Tensor]:
        """At an epoch's end: whoever has waited long enough for a better objective goes on to the next lambda."""
        memo, skip, val = memo or self.begun(weights[self.skip].shape[2]), weights[self.skip], measure("val")
        penalty = by_feature(skip.square(), self.groups).sqrt().sum(1).cpu()
        objective = val["loss"] + memo["lambda"] * penalty
        better = objective < self.tolerance * memo["best"]
        memo["best"] = torch.where(better, objective, memo["best"])
        memo["waited"] = torch.where(better, 0, memo["waited"] + 1)
        memo["epoch"] = memo["epoch"] + 1
        ended = (memo["waited"] >= self.patience) | (memo["epoch"] >= self.epochs) | ~objective.isfinite()
        ended = ended & ~self.through(memo)
        if ended.any():
            test = measure("test")[self.measure]
            told = {"val_loss": val["loss"], "val_measure": val[self.measure], "test_measure": test}
            self.record(memo, ended, skip.any(1).cpu(), told)
            memo["lambda"] = torch.where(ended, memo["lambda"] * self.factor, memo["lambda"])
            memo["best"] = torch.where(ended, val["loss"] + memo["lambda"] * penalty, memo["best"])
            memo["waited"], memo["epoch"] = (torch.where(ended, 0, memo[key]) for key in ("waited", "epoch"))
        return memo, self.through(memo)

    def begun(self, features: int) -> Tree:
        """The memo before the first epoch: its first point is the dense network."""
        start = self.dense["lambda"]
        none, whole = torch.zeros(len(start), dtype=torch.int64), (len(start), self.points + 1)
        memo = {name: torch.full(whole, torch.nan, dtype=torch.float64) for name in ("lambdas", *TOLD)}
        alive = packed(torch.ones(len(start), 1, features, dtype=torch.bool))
        memo |= {
            "alive": alive.expand(*whole, -1).clone(),
            "epochs": torch.zeros(whole, dtype=torch.int64),
            "lambda": start * 0,
            "points": none,
            "waited": none,
            "epoch": none,
        }
        everyone = torch.ones(len(start), dtype=torch.bool)
        self.record(memo, everyone, torch.ones(len(start), features, dtype=torch.bool), self.dense)
        best = self.dense["val_loss"] + start * self.dense["penalty"]
        return memo | {"lambda": start, "best": best}

    def record(self, memo: Tree, ended: Tensor, alive: Tensor, told: Tree) -> None:
        """Write down the point that the replicates in `ended` [R] have come to the end of."""
        for r in ended.nonzero().flatten().tolist():
            p = int(memo["points"][r])
            memo["lambdas"][r, p], memo["epochs"][r, p] = memo["lambda"][r], memo["epoch"][r]
            memo["alive"][r, p] = packed(alive[r])
            for name in TOLD:
                memo[name][r, p] = told[name][r]
        memo["points"] = memo["points"] + ended

    def through(self, memo: Tree) -> Tensor:
        """Who has come to the end of the path, [R]: no feature left, no loss any more, or no further point."""
        last = (memo["points"] - 1).clamp_min(0)
        rows = torch.arange(len(last))
        lost = ~memo["val_loss"][rows, last].isfinite()
        return (memo["alive"][rows, last] == 0).all(1) | lost | (memo["points"] > self.points)


def hierarchy(skip: Tensor, first: Tensor, threshold: Tensor, M: float, groups: Tensor | None) -> None:
    """The hierarchical proximal step in place, as many replicates at a time as the cache holds."""
    together = max(1, AT_ONCE // first[0].numel())
    parts = (tensor.split(together) for tensor in (skip, first, threshold))
    for some_skip, some_first, some_threshold in zip(*parts, strict=True):
        v, u = hierarchical(some_skip, some_first, some_threshold, M, groups)
        some_skip.copy_(v)
        some_first.copy_(u)


def walked(memo: Tree, r: int, features: int) -> tuple[Tensor, Tensor]:
    """One replicate's lambdas [p] and features alive [p, features] bool, the dense network first."""
    points = int(memo["points"][r])
    return memo["lambdas"][r, :points], unpacked(memo["alive"][r, :points], features)


def departure(lambdas: Tensor, alive: Tensor) -> Tensor:
    """The lambda at which each feature left for good, [features]; infinite where it has not."""
    last = torch.where(alive, torch.arange(len(lambdas))[:, None], -1).max(0).values
    return torch.cat([lambdas, torch.tensor([torch.inf], dtype=lambdas.dtype)])[last + 1]


def left_with(lambdas: Tensor, alive: Tensor, count: int) -> Tensor | None:
    """The features of the path's first network with at most `count`, and at least one; None if there is none."""
    numbers = alive.sum(1)
    found = ((numbers <= count) & (numbers > 0)).nonzero().flatten()
    return alive[found[0]] if len(found) else None


def most_often(memo: Tree, features: int, count: int) -> Tensor:
    """The `count` features that are most often in the networks of at most `count` on R paths, [features] bool.

    Of those that are as often there, the ones that stay longer (Meinshausen & Bühlmann 2010 keep all above a
    threshold instead, whose number nobody chose).
    """
    paths = [walked(memo, r, features) for r in range(len(memo["points"]))]
    alive = [some for path in paths if (some := left_with(*path, count)) is not None]
    demand(bool(alive), "method.features", count, "no resample's path had so few and yet some")
    often = torch.stack(alive).double().mean(0)
    order = [departure(*path).argsort(stable=True).argsort() for path in paths]
    rank = torch.stack(order).double().mean(0) / features
    best = (often + rank / (2 * len(paths))).topk(count).indices
    return torch.zeros(features, dtype=torch.bool).index_fill(0, best, True)
