"""LassoNet: features leave a network one after the other as a penalty grows, and take their weights with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.resample import RESAMPLES, fitted
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Key, Round, Ticket, Trained, Tree
from ltx.core.ticket import Rows as Examples
from ltx.errors import UserError, demand
from ltx.knobs import Rule, above, at_least, each, knob, one_of, within
from ltx.methods.base import Method, Rows, Search
from ltx.pruning.features import grouped, named
from ltx.pruning.path import TOLD, Path, departure, hierarchy, left_with, most_often, walked
from ltx.pruning.prox import by_feature, first_threshold
from ltx.pruning.trees import judged, scored

START = Rule("write auto or a positive number", lambda text: text == "auto" or positive(text))


def positive(text: str) -> bool:
    try:
        return 0 < float(text) < torch.inf
    except ValueError:
        return False


@dataclass(frozen=True)
class LassoNet(Method):
    """A dense training, one path along a growing lambda, and a ticket for each number of features.

    Lemhadri et al. 2021, Algorithm 1, as the authors' code (lassonet 0.0.21) runs it: the dense network by the
    recipe; then gradient descent with a proximal step after each update, lambda growing by a factor whenever the
    validation objective no longer falls, the optimizer carried along. Each replicate walks at its own pace,
    beside the others in one stack. A ticket is the network on the features that were left, from new weights.

    Deviations: there are no ridge terms (the authors' never reach the gradient); new weights are drawn for all
    inputs and then masked, where the authors draw a smaller network.
    """

    summary: ClassVar[str] = "features leave as a penalty grows along a path (LassoNet, Lemhadri et al. 2021)"
    nested: ClassVar[bool] = False  # a feature may come back while lambda grows
    controls: ClassVar[tuple[str, ...]] = ()

    features: list[int] = knob(
        [],
        each(at_least(1), falling=True),
        "how many features to keep, each a ticket; empty = as `choose` says",
    )
    choose: str = knob(
        "one_se",
        one_of(["one_se", "best"]),
        "without `features`, by validation loss: best | one_se: the fewest within one standard error of it",
    )
    resample: str = knob(
        "none",
        one_of(["none", *RESAMPLES]),
        "what `choose` looks at: none = the validation split | folds = k-fold cross-validation | halves = stability "
        "selection; tickets of either have the features that most of them keep",
    )
    folds: int = knob(
        5, at_least(2), "into how many folds training examples go; seed r leaves out fold r mod folds"
    )
    trees: int = knob(
        50, at_least(0), "extremely randomised trees that judge each ticket's features beside it; 0 = none"
    )
    M: float = knob(10.0, above(0), "how far a first-layer weight may exceed its feature's skip weights")
    groups: list[list[str]] = knob(
        [],
        None,
        "features that come and go together: lists of names or patterns, as in [[age*], [left, right]]",
    )
    lambda_start: str = knob(
        "auto", START, "the first lambda; auto = a tenth of where the first feature goes"
    )
    path_multiplier: float = knob(1.02, above(1), "lambda grows by this factor from point to point")
    points: int = knob(1000, at_least(1), "at most so many values of lambda")
    path_lr: float = knob(1e-3, above(0), "learning rate along the path (SGD)")
    path_momentum: float = knob(0.9, within(0, 1), "momentum along the path")
    path_epochs: int = knob(100, at_least(1), "at most so many epochs at each lambda")
    path_patience: int = knob(
        10, at_least(1), "epochs without a better validation objective that end a point"
    )
    patience: int = knob(
        100, at_least(0), "evaluations that the dense training waits for a better loss; 0 = all"
    )
    tolerance: float = knob(0.99, above(0), "better is below this fraction of the best so far")

    @property
    def redraws(self) -> str:
        return "method=lassonet"

    def check(self, layers: Layers, plan: Plan | None) -> None:
        if len(layers.reading) != 2 or not set(layers.reading) <= set(layers.prunable):
            raise UserError(
                "method=lassonet needs a skip layer beside a first dense layer, both of them prunable: "
                "choose model=skip_mlp"
            )
        there = layers.shapes[layers.reading[0]][1]
        most = max(self.features, default=1)
        demand(most <= there, "method.features", list(self.features), f"there are {there} features")

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        """The dense networks and their path, those of resamples in another stack, then a ticket for each number."""
        groups, rows = grouped(self.groups, task.data, task.device), None
        trained = yield self.dense(task, dense, plan, groups)
        found = told = yield self.walk(task, dense, plan, groups, trained)
        found_by: dict[Key, Tensor] = {(0, "ticket"): trained.steps, (0, "search"): found.steps}
        if self.resample != "none":
            rows = RESAMPLES[self.resample](task.data, task.seeds, self.folds)
            trained = yield self.dense(task, dense, plan, groups, rows)
            told = yield self.walk(task, dense, plan, groups, trained, rows)
            found_by |= {(0, "search_1"): trained.steps, (0, "search_2"): told.steps}
        for level, count in enumerate(self.counts(task, told), start=1):
            alike = None if self.resample == "none" else told
            ticket = Ticket(task.initial("lassonet", level), self.mask(task, dense, found, count, alike))
            yield self.patient(level, ticket, plan, found_by=dict(found_by))

    @property
    def patient(self) -> Callable[..., Round]:
        """A round that ends when the validation loss no longer falls."""
        return partial(Round, patience=self.patience, tolerance=self.tolerance)

    def dense(
        self, task: Task, start: Ticket, plan: Plan, groups: Tensor | None, rows: Examples | None = None
    ) -> Round:
        """All features, by the recipe, within the hierarchy."""
        skip, first = task.layers.reading
        none = torch.zeros(task.replicates, 1, device=task.device)

        def keep_hierarchy(weights: Tree, rate: float, memo: Tree) -> None:
            hierarchy(weights[skip], weights[first], none, self.M, groups)

        hooks = Hooks(project=keep_hierarchy)
        if rows is None:
            return self.patient(0, start, plan, hooks=hooks)
        return self.patient(0, start, fitted(plan, rows), hooks=hooks, role="search", draw=1, rows=rows)

    def walk(
        self, task: Task, dense: Ticket, plan: Plan, groups: Tensor | None, trained: Trained,
        rows: Examples | None = None,
    ) -> Round:  # fmt: skip
        """The path from the trained dense networks on."""
        path = self.path(task, trained, groups)
        plan, draw = (plan, 0) if rows is None else (fitted(plan, rows), 2)
        found_by: dict[Key, Tensor] = {(0, "search_1" if draw else "ticket"): trained.steps}
        return Round(
            0, dense.rewound(trained.final), self.along(plan), role="search", draw=draw, rows=rows,
            hooks=Hooks(project=path.project, steer=path.steer), found_by=found_by,
        )  # fmt: skip

    def along(self, plan: Plan) -> Plan:
        """How to train along the path: gradient descent at one rate, until the path ends."""
        steps = self.points * self.path_epochs * plan.epoch
        return replace(
            plan.constant(self.path_lr), optimizer="sgd", momentum=self.path_momentum, nesterov=False, weight_decay=0.0,
            steps=steps, eval_every=self.path_epochs * plan.epoch, eval_spacing=0.0,
        )  # fmt: skip

    def path(self, task: Task, trained: Trained, groups: Tensor | None) -> Path:
        """The path from the dense networks on."""
        skip, first = (trained.final[name] for name in task.layers.reading)
        if self.lambda_start == "auto":
            start = first_threshold(skip, first, self.M).double().cpu() / self.path_lr / 10
        else:
            start = torch.full((task.replicates,), float(self.lambda_start), dtype=torch.float64)
        last = trained.curve.last()[:, None]
        dense = {name: getattr(trained.curve, name).gather(1, last)[:, 0] for name in TOLD}
        penalty = by_feature(skip.square(), groups).sqrt().sum(1).cpu()
        skip_name, first_name = task.layers.reading
        return Path(
            skip=skip_name,
            first=first_name,
            M=self.M,
            groups=groups,
            factor=self.path_multiplier,
            epochs=self.path_epochs,
            patience=self.path_patience,
            tolerance=self.tolerance,
            points=self.points,
            measure=task.goal.measure,
            dense=dense | {"lambda": start, "penalty": penalty},
        )

    def counts(self, task: Task, found: Trained) -> list[int]:
        """For how many features there is to be a ticket."""
        if found.diverged.all():
            raise UserError("every path has diverged: scale the inputs, or lower method.path_lr or recipe.lr")
        return list(self.features) or [chosen(found.memo, columns(task), self.choose == "one_se")]

    def mask(self, task: Task, dense: Ticket, found: Trained, count: int, alike: Trained | None) -> Tree:
        """Everything but the weights that read other features than the `count` that each replicate keeps.

        `alike`: the paths of whose features the most frequent are kept, by all replicates alike.
        """
        every, kept = torch.ones(columns(task), dtype=torch.bool), []
        often = None if alike is None else most_often(alike.memo, columns(task), count)
        for r, seed in enumerate(task.seeds):
            alive = left_with(*walked(found.memo, r, columns(task)), count) if often is None else often
            if alive is None and not found.diverged[r]:
                raise UserError(
                    f"method.features={count}: seed {seed}'s path never had so few and yet some; it needs more "
                    "method.points, or a smaller method.path_multiplier"
                )
            kept.append(every if alive is None else alive)
        columns_kept = torch.stack(kept)[:, None].to(task.device)
        return dense.mask | {name: dense.mask[name] & columns_kept for name in task.layers.reading}

    def tables(self, task: Task, round: Round, trained: Trained) -> dict[str, Rows]:
        """Every point of every replicate's path, and in which order the features left for good; and the trees' word.

        Of resamples both have names of their own.
        """
        if round.role != "search":
            return self.second(task, round) if self.trees else {}
        if not trained.memo:
            return {}
        points, importance = [], []
        for r, seed in enumerate(task.seeds):
            lambdas, alive = walked(trained.memo, r, columns(task))
            told = zip(*(trained.memo[name][r] for name in ("epochs", *TOLD)), strict=True)
            steps = zip(lambdas, alive.sum(1), told, strict=False)
            points += [
                (seed, p, short(at), int(n), *map(short, rest)) for p, (at, n, rest) in enumerate(steps)
            ]
            gone = departure(lambdas, alive)
            rank = gone.argsort(descending=True, stable=True).argsort() + 1
            names = zip(named(task.data), rank.tolist(), gone, strict=True)
            importance += [(seed, name, place, short(at)) for name, place, at in names]
        path, order = ("path", "importance") if round.rows is None else ("resampled", "selection")
        return {
            path: (["seed", "point", "lambda", "features", "epochs", *TOLD], points),
            order: (["seed", "feature", "rank", "lambda"], importance),
        }

    def second(self, task: Task, round: Round) -> dict[str, Rows]:
        """What trees make of the ticket's features, a judge that had no part in choosing them."""
        kept = round.ticket.mask[task.layers.reading[0]].any(1).cpu()
        scores = judged(task.data, kept, task.seeds, self.trees)
        rows = [
            (seed, round.level, int(alive.sum()), short(score))
            for seed, alive, score in zip(task.seeds, kept, scores, strict=True)
        ]
        return {"trees": (["seed", "level", "features", f"test_{scored(task.data)}"], rows)}


def columns(task: Task) -> int:
    """How many inputs the network has."""
    return task.layers.shapes[task.layers.reading[0]][1]


def chosen(memo: Tree, features: int, one_se: bool) -> int:
    """How many features the validation loss speaks for, on average over the replicates whose path is sound.

    The fewest with the least mean loss or, `one_se`, with a mean loss within one standard error of it.
    """
    rows = []
    for r in range(len(memo["points"])):
        lambdas, alive = walked(memo, r, features)
        loss, numbers = memo["val_loss"][r, : len(lambdas)], alive.sum(1)
        if loss.isfinite().all():
            at = [int((numbers <= count).nonzero()[0]) for count in range(1, features + 1)]
            rows.append(torch.where(numbers[at] > 0, loss[at], torch.inf))
    losses = torch.stack(rows)
    mean = losses.mean(0)
    best = int(mean.argmin())
    error = float(losses[:, best].std() / len(losses) ** 0.5) if one_se and len(losses) > 1 else 0.0
    return int((mean <= mean[best] + error).nonzero()[0]) + 1


def short(value: Tensor) -> float | int:
    """A measurement without the digits that mean nothing."""
    return float(f"{float(value):.6g}") if value.is_floating_point() else int(value)
