"""Weights and neurons regularised away: proximal steps after each update, exact zeros, then a ticket of the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Key, Round, Ticket, Trained, Tree
from ltx.errors import NothingLeft, UserError
from ltx.knobs import above, each, knob, one_of
from ltx.methods.base import Method, Rows, Search
from ltx.pruning import masks
from ltx.pruning.groups import OVER, Groups, along, fits, groups_of
from ltx.pruning.prox import soft_threshold

Project = Callable[[Tree, float, Tree], None]

FROM: dict[str, Callable[[Ticket, Trained], Tree]] = {
    "trained": lambda dense, found: found.final,
    "original": lambda dense, found: dense.weights,
}


@dataclass(frozen=True)
class Regularised(Method):
    """The dense network, then for each lambda a training under a penalty, and what that left, retrained without.

    With Adam the proximal step is still that of plain gradient descent at the same rate: Adam's own metric would
    give every weight of a group a threshold of its own.
    """

    nested: ClassVar[bool] = False  # each lambda decides anew

    lambdas: list[float] = knob([1e-4, 1e-3], each(above(0), least=1, rising=True), "weights of the penalty")
    warm: bool = knob(
        False, None, "each lambda begins with the weights that the one before left, not with the first"
    )
    retrain: str = knob(
        "trained", one_of(FROM), "what a ticket is retrained from: trained = what the penalty left | original"
    )

    @abstractmethod
    def parts(self, task: Task) -> Any:
        """What the penalty falls on, found once."""

    @abstractmethod
    def project(self, parts: Any, threshold: float, weights: Tree) -> None:
        """The proximal step of the penalty, in place."""

    @abstractmethod
    def mask(self, parts: Any, dense: Ticket, weights: Tree) -> Tree:
        """What a training left of the dense mask."""

    @abstractmethod
    def hold(self, parts: Any, weights: Tree) -> Project | None:
        """What keeps at zero what retraining could bring back although it is no weight of a mask."""

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        yield Round(0, dense, plan)
        parts, start, found_by = self.parts(task), dense, dict[Key, Tensor]()
        for level, at in enumerate(self.lambdas, start=1):
            hooks = Hooks(project=self.step(parts, at))
            found = yield Round(level, start, plan, role="search", hooks=hooks, found_by=dict(found_by))
            mask = self.mask(parts, dense, found.final)
            if empty := masks.emptied(mask):
                raise NothingLeft(
                    f"lambda {at:g} leaves nothing of {empty[0]}: the network no longer connects, and the list ends"
                )
            found_by = (found_by if self.warm else {}) | {(level, "search"): found.steps}
            weights = FROM[self.retrain](dense, found)
            hooks = Hooks(project=self.hold(parts, found.final))
            yield Round(level, Ticket(weights, mask), plan, hooks=hooks, found_by=found_by)
            start = dense.rewound(found.final) if self.warm else dense

    def step(self, parts: Any, at: float) -> Project:
        """The proximal step at one lambda."""
        return lambda weights, rate, memo: self.project(parts, at * rate, weights)


@dataclass(frozen=True)
class L1(Regularised):
    """sign(w) · max(|w| - rate · lambda, 0) for every prunable weight: the naive one, and the baseline."""

    summary: ClassVar[str] = "L1 on every weight, proximal: weights become exactly zero, neurons seldom do"

    def check(self, layers: Layers, plan: Plan | None) -> None:
        """Every network has weights."""

    def parts(self, task: Task) -> tuple[str, ...]:
        return task.layers.prunable

    def project(self, parts: tuple[str, ...], threshold: float, weights: Tree) -> None:
        for name in parts:
            weights[name].copy_(soft_threshold(weights[name], threshold))

    def mask(self, parts: tuple[str, ...], dense: Ticket, weights: Tree) -> Tree:
        return {name: weights[name] != 0 for name in parts}

    def hold(self, parts: tuple[str, ...], weights: Tree) -> None:
        return None


@dataclass(frozen=True)
class GroupLasso(Regularised):
    """lambda · Σ √|g| ‖w_g‖ over neurons, inputs or outgoing weights (Yuan & Lin 2006; Scardapane et al. 2017)."""

    summary: ClassVar[str] = "group lasso, proximal: whole neurons, filters or inputs become exactly zero"
    controls: ClassVar[tuple[str, ...]] = ("reinit",)  # shuffled weights would be no groups

    over: str = knob(
        "neurons",
        one_of(OVER),
        "neurons: incoming weights with bias and BatchNorm, filters too | inputs | outgoing: what leaves a neuron",
    )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        if not fits(self.over, layers):
            raise UserError(
                f"method.over={self.over} is not possible: this network has no such weights to prune"
            )

    def parts(self, task: Task) -> list[Groups]:
        return groups_of(task, self.over)

    def project(self, parts: list[Groups], threshold: float, weights: Tree) -> None:
        for groups in parts:
            groups.shrink(weights, threshold)

    def mask(self, parts: list[Groups], dense: Ticket, weights: Tree) -> Tree:
        mask = dict(dense.mask)
        for groups in parts:
            alive = groups.norms(weights) > 0
            mask |= {
                name: mask[name] & along(alive, mask[name], axis)
                for name, axis in groups.parts
                if name in mask
            }
        return mask

    def hold(self, parts: list[Groups], weights: Tree) -> Project:
        """Biases and shifts of what is gone stay zero: no mask is theirs."""
        alive = [(groups.norms(weights) > 0).float() for groups in parts]

        def project(now: Tree, rate: float, memo: Tree) -> None:
            for groups, factors in zip(parts, alive, strict=True):
                groups.scale(now, factors)

        return project

    def tables(self, task: Task, round: Round, trained: Trained) -> dict[str, Rows]:
        """How many groups of each layer every lambda leaves."""
        if round.role != "search":
            return {}
        at = self.lambdas[round.level - 1]
        rows = [
            (seed, round.level, at, groups.name, groups.count, int(left))
            for groups in self.parts(task)
            for seed, left in zip(task.seeds, (groups.norms(trained.final) > 0).sum(1), strict=True)
        ]
        return {"groups": (["seed", "level", "lambda", "layer", "groups", "kept"], rows)}
