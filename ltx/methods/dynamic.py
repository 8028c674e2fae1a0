"""Sparse from the start to the end of training, while which weights are alive changes: dynamic sparse training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from ltx.core.recipe import STEPS, Plan, in_steps
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Round, Ticket, Tree
from ltx.errors import demand
from ltx.knobs import between, each, knob
from ltx.methods.base import Method, Search
from ltx.pruning import masks
from ltx.pruning.scores import uniform


@dataclass(frozen=True)
class SET(Method):
    """Sparse evolutionary training (Mocanu et al. 2018, Algorithm 1).

    Layers share the weights as an Erdős–Rényi graph would; after every epoch the weights nearest zero give way
    to as many at random places. Deviations: counts are exact; every layer is sparse, the last too.
    """

    summary: ClassVar[str] = "train sparse; weights near zero move to random places (Mocanu et al. 2018)"
    nested: ClassVar[bool] = False

    densities: list[float] = knob(
        [0.5, 0.2, 0.1, 0.05],
        each(between(0, 1), least=1, falling=True),
        "fractions of the prunable weights that live, falling",
        grows=True,
    )
    moved: float = knob(0.3, between(0, 1), "fraction of each layer's weights that moves each time")
    every: str = knob("1ep", STEPS, "how often weights move; the last time is before the last such stretch")

    def check(self, layers: Layers, plan: Plan | None) -> None:
        kept = [self.kept(layers, density) for density in self.densities]
        totals = [layers.free, *(sum(counts.values()) for counts in kept), 0]
        fair = all(high > low for high, low in pairwise(totals)) and all(min(k.values()) > 0 for k in kept)
        demand(fair, "method.densities", list(self.densities), f"of {layers.free} weights too few would live")
        demand(
            not plan or self.stretch(plan) >= 1, "method.every", self.every, "it must be at least one step"
        )

    def stretch(self, plan: Plan) -> int:
        """Steps from one move to the next."""
        return in_steps("method.every", self.every, plan.epoch)

    def kept(self, layers: Layers, density: float) -> dict[str, int]:
        """Weights alive in each prunable layer."""
        shapes = {name: layers.shapes[name] for name in layers.prunable}
        return masks.erdos_renyi(shapes, round(layers.free * density))

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        yield Round(0, dense, plan)
        for level, density in enumerate(self.densities, start=1):
            kept = self.kept(task.layers, density)
            mask = masks.by_layer(uniform(task.seeds, dense.mask, "set", density), dense.mask, kept)
            hooks = Hooks(regrow=self.moving(task, plan, density))
            yield Round(level, dense.masked(mask), plan, kept=kept, found_by={}, hooks=hooks)

    def moving(
        self, task: Task, plan: Plan, density: float
    ) -> Callable[[int, Tree, Tree, Tree], Tree | None]:
        """The hook that lets weights move."""

        def regrow(step: int, weights: Tree, gradients: Tree, mask: Tree) -> Tree | None:
            if step == 0 or step % self.stretch(plan) or step + self.stretch(plan) > plan.steps:
                return None
            chance = uniform(task.seeds, mask, "set", density, step)
            return {name: self.move(weights[name], alive, chance[name]) for name, alive in mask.items()}

        return regrow

    def move(self, weights: torch.Tensor, alive: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
        """One layer's mask [R, *shape] after the move; a weight that went may come back at once, as in the code."""
        flat, size, count = alive.flatten(1), weights.abs().flatten(1), int(alive[0].sum())
        moved = min(round(self.moved * count), flat.shape[1] - count)
        stay = masks.top(size, flat, count - moved)
        return (stay | masks.top(chance.flatten(1), ~stay, moved)).view_as(alive)
