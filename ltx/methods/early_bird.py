"""Early-Bird tickets: which channels matter is settled long before training ends, so draw the ticket then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Round, Ticket, Trained, Tree
from ltx.errors import UserError, demand
from ltx.knobs import at_least, between, each, knob, one_of
from ltx.methods.base import Rows
from ltx.methods.channels import HOW, RETRAIN, Draws, Groups, Searched, kept, scales, sparsity
from ltx.pruning.masks import packed, unpacked


@dataclass(frozen=True)
class EarlyBird(Searched):
    """Train with L1 on the scales until the channel mask stands still, prune, train on (You et al. 2020).

    A replicate draws at its own epoch, each ratio's ticket at its own, and its search ends with the last.
    """

    summary: ClassVar[str] = "prune channels as soon as their mask stands still (You et al. 2020)"

    retrain: str = knob("inherit", one_of(RETRAIN), HOW)
    epsilon: float = knob(
        0.1,
        between(0, 1),
        "the mask stands still where its distances are at most this fraction of all channels",
    )
    window: int = knob(
        5, at_least(2), "how many masks (distance=window) or distances (consecutive) must agree"
    )
    distance: str = knob(
        "window",
        one_of(["window", "consecutive"]),
        "window: the newest mask from those before, as the authors' code | consecutive: each from the last",
    )
    otherwise: str = knob(
        "end",
        one_of(["end", "fail"]),
        "where no ticket emerges: end = draw one when the search has ended, with no epoch left to inherit | fail",
    )
    full: bool = knob(False, None, "search to the end of training, for all of the mask distances")
    at: list[int] = knob(
        [], each(at_least(1), rising=True), "epochs to draw at instead, whatever the distances"
    )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        super().check(layers, plan)
        if plan:
            epochs, drawn_at = plan.steps // plan.epoch, list(self.at)
            demand(self.window <= epochs, "method.window", self.window, f"training has {epochs} whole epochs")
            demand(max(drawn_at, default=1) <= epochs, "method.at", drawn_at, f"training has {epochs} epochs")

    def draws(self, task: Task, dense: Ticket, plan: Plan, groups: Groups) -> Draws:
        watch = Watch(groups, self, plan.steps // plan.epoch)
        hooks = Hooks(penalty=sparsity(task, self.l1), watch=watch)
        at = tuple(epoch * plan.epoch for epoch in self.at)
        trained = yield Round(0, dense, plan, role="search", of=tuple(self.ratios), keep=at, hooks=hooks)
        if at:
            same = torch.ones(task.replicates, dtype=torch.int64)
            return [
                self.draw(groups, p, trained.at[step], same * step) for p, step in product(self.ratios, at)
            ]
        drawn = trained.memo["drawn"]
        if self.otherwise == "fail" and not drawn.all():
            missing = [(task.seeds[r], self.ratios[p]) for r, p in (drawn == 0).nonzero().tolist()]
            told = ", ".join(f"seed {seed} at ratio {ratio}" for seed, ratio in missing)
            raise UserError(f"no ticket emerged in {plan.steps // plan.epoch} epochs: {told}")
        steps = torch.where(drawn > 0, drawn * plan.epoch, trained.steps[:, None])
        return [
            self.draw(groups, ratio, watch.weights(p, trained), steps[:, p])
            for p, ratio in enumerate(self.ratios)
        ]

    def tables(self, task: Task, round: Round, trained: Trained) -> dict[str, Rows]:
        """Besides the scales: every mask distance, and when each ticket was drawn."""
        tables = super().tables(task, round, trained)
        if not tables:
            return {}
        distances, draws = [], []
        for (r, seed), (p, ratio) in product(enumerate(task.seeds), enumerate(self.ratios)):
            epochs = int(trained.memo["epochs"][r])
            masks = unpacked(trained.memo["masks"][r, :epochs, p]).float()
            apart = (masks @ (1 - masks).T + (1 - masks) @ masks.T) / int(trained.memo["channels"][r])
            distances += [
                (seed, ratio, later + 1, earlier + 1, round_(float(apart[later, earlier])))
                for later in range(epochs)
                for earlier in range(later)
            ]
            drawn = int(trained.memo["drawn"][r, p])
            draws.append((seed, ratio, drawn or epochs, int(drawn > 0)))
        return tables | {
            "distances": (["seed", "ratio", "epoch", "earlier", "distance"], distances),
            "draws": (["seed", "ratio", "epoch", "emerged"], draws),
        }


@dataclass(frozen=True)
class Watch:
    """Looks at the channel masks at every epoch's end; all it remembers is in the memo, R first.

    masks: every epoch's, as bits [R, epochs, ratios, bytes]. drawn: each ticket's epoch or 0 [R, ratios].
    weights/P/NAME: what ratio number P was drawn from [R, *shape]. epochs, channels: how many there are [R].
    """

    groups: Groups
    method: EarlyBird
    epochs: int

    def __call__(self, epoch: int, weights: Tree, memo: Tree) -> tuple[Tree, Tensor]:
        ratios = self.method.ratios
        scores = scales(self.groups, weights)
        now = torch.stack([torch.cat([*kept(self.groups, scores, p).values()], 1) for p in ratios], 1).cpu()
        memo = memo or self._blank(now, weights)
        # The initial mask does not count: all scales are equal then, and it says nothing.
        memo["masks"][:, epoch - 1], memo["epochs"] = packed(now), memo["epochs"] + 1
        seen = unpacked(memo["masks"][:, max(0, epoch - self.method.window - 1) : epoch], now.shape[-1])
        new = stable(seen, self.method) & (memo["drawn"] == 0)
        memo["drawn"] = torch.where(new, epoch, memo["drawn"])
        for (r, p), name in product(new.nonzero().tolist(), weights):
            memo[f"weights/{p}/{name}"][r] = weights[name][r]
        through = epoch >= max(self.method.at) if self.method.at else (memo["drawn"] > 0).all(1)
        return memo, torch.as_tensor(through).expand(len(now)) & (not self.method.full)

    def _blank(self, now: Tensor, weights: Tree) -> Tree:
        """The memo before the first epoch; `now` [R, ratios, channels] are its masks."""
        replicates, ratios, channels = now.shape
        count = torch.full((replicates,), channels)
        drawn = {
            f"weights/{p}/{name}": torch.zeros_like(tensor, device="cpu")
            for p in range(ratios)
            for name, tensor in weights.items()
        }
        return drawn | {
            "masks": packed(now)[:, None].repeat(1, self.epochs, 1, 1) * 0,
            "drawn": torch.zeros(replicates, ratios, dtype=torch.int64),
            "epochs": count * 0,
            "channels": count,
        }

    def weights(self, p: int, trained: Trained) -> Tree:
        """What the ticket of ratio number `p` was drawn from; where none emerged, the end of the search."""
        drawn, weights = trained.memo["drawn"][:, p] > 0, {}
        for name, end in trained.final.items():
            then = trained.memo[f"weights/{p}/{name}"].to(end.device)
            weights[name] = torch.where(drawn.to(end.device).view(-1, *[1] * (end.dim() - 1)), then, end)
        return weights


def newest_from_window(masks: Tensor, window: int) -> Tensor:
    """Distances of the newest mask from each of the window - 1 before it (You et al.'s code, main.py)."""
    return (masks[:, -1:] != masks[:, -window:-1]).float().mean(3)


def consecutive(masks: Tensor, window: int) -> Tensor:
    """Distances of the last `window` masks, each from the one before (You et al. 2020, Algorithm 1)."""
    return (masks[:, -window:] != masks[:, -window - 1 : -1]).float().mean(3)


# How to measure, and how many masks that takes more than the window is long.
DISTANCES: dict[str, tuple[Callable[[Tensor, int], Tensor], int]] = {
    "window": (newest_from_window, 0),
    "consecutive": (consecutive, 1),
}


def stable(masks: Tensor, method: EarlyBird) -> Tensor:
    """Whether the last of the masks [R, epochs, ratios, channels] stand still, [R, ratios] bool.

    A distance is the fraction of all channels in which two masks differ; it may equal epsilon, as in the
    authors' code (the paper demands less).
    """
    measure, more = DISTANCES[method.distance]
    if masks.shape[1] < method.window + more:
        return torch.zeros(masks.shape[0], masks.shape[2], dtype=torch.bool)
    return (measure(masks, method.window) <= method.epsilon).all(1)


def round_(distance: float) -> float:
    return float(f"{distance:.6g}")
