"""Prune while training, a little at a time: gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from ltx.core.recipe import STEPS, Plan, in_steps
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Round, Ticket, Tree
from ltx.errors import demand
from ltx.knobs import between, each, knob, one_of
from ltx.methods.base import Method, Search
from ltx.pruning import masks
from ltx.pruning.scores import magnitude


@dataclass(frozen=True)
class GMP(Method):
    """Gradual magnitude pruning (Zhu & Gupta 2018, equation 1): sparsity rises along a cubic while training goes on.

    Deviations: what was pruned does not come back; the last weights go before a step, so that the ticket's
    gradients are its own, the others within one, when the gradients of its batch are known.
    """

    summary: ClassVar[str] = "prune the smallest weights little by little while training (Zhu & Gupta 2018)"
    nested: ClassVar[bool] = False

    densities: list[float] = knob(
        [0.2, 0.1, 0.05],
        each(between(0, 1), least=1, falling=True),
        "fractions of the prunable weights that live at the end, falling",
        grows=True,
    )
    begin: str = knob("0", STEPS, "the step at which pruning begins")
    end: str = knob("0", STEPS, "the step at which the last weights go; 0 = three quarters of training")
    every: str = knob("100", STEPS, "steps from one pruning to the next")
    scope: str = knob(
        "layer",
        one_of(["layer", "global"]),
        "layer: each layer loses the same share | global: all layers together",
    )
    rewound: bool = knob(
        False, None, "train what is left once more from its initial weights, as a ticket (Evci et al. 2022)"
    )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        kept = [self.kept(layers, density) for density in self.densities]
        totals = [layers.free, *(sum(counts.values()) for counts in kept), 0]
        fair = all(high > low for high, low in pairwise(totals)) and all(min(k.values()) > 0 for k in kept)
        demand(fair, "method.densities", list(self.densities), f"of {layers.free} weights too few would live")
        if plan:
            begin, end, every = self.when(plan)
            demand(every >= 1, "method.every", self.every, "it must be at least one step")
            demand(
                begin < end <= plan.steps,
                "method.end",
                self.end,
                f"it must lie after method.begin={begin} and not after the end of training, step {plan.steps}",
            )

    def when(self, plan: Plan) -> tuple[int, int, int]:
        """The first step of pruning, the last, and the steps between two."""
        keys = {"begin": self.begin, "end": self.end, "every": self.every}
        begin, end, every = (in_steps(f"method.{key}", text, plan.epoch) for key, text in keys.items())
        return begin, end or plan.steps * 3 // 4, every

    def kept(self, layers: Layers, density: float) -> dict[str, int]:
        """Weights alive at a density: in each prunable layer, or ("") in all together."""
        if self.scope == "global":
            return {"": round(layers.free * density)}
        return {name: round(layers.sizes[name] * density) for name in layers.prunable}

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        """A search from step 0 to `end`, in which masks shrink; then the rest, or all anew, as a ticket's training."""
        yield Round(0, dense, plan)
        _, end, _ = self.when(plan)
        for level, density in enumerate(self.densities, start=1):
            trained = yield Round(
                *(level, dense, replace(plan, steps=end)),
                role="search",
                of=(density,),
                found_by={},
                hooks=Hooks(regrow=self.pruning(task, plan, density)),
                keep_optimizer=True,
            )
            kept = self.kept(task.layers, density)
            about: dict[str, Any] = {
                "kept": kept,
                "of": (density,),
                "found_by": {(level, "search"): trained.steps},
            }
            mask = self.smallest(trained.final, trained.mask, kept)
            if self.rewound:
                yield Round(level, dense.masked(mask), plan, **about)
            else:
                ticket = dense.rewound(trained.final).masked(mask)
                yield Round(level, ticket, plan, start=end, warm=trained.optimizer, **about)

    def pruning(
        self, task: Task, plan: Plan, density: float
    ) -> Callable[[int, Tree, Tree, Tree], Tree | None]:
        """The hook that prunes at its times, all but the last."""
        begin, end, every = self.when(plan)

        def regrow(step: int, weights: Tree, gradients: Tree, mask: Tree) -> Tree | None:
            if step < begin or (step - begin) % every:
                return None
            still = (1 - (step - begin) / (end - begin)) ** 3
            return self.smallest(weights, mask, self.kept(task.layers, density + (1 - density) * still))

        return regrow

    def smallest(self, weights: Tree, mask: Tree, kept: dict[str, int]) -> Tree:
        """The mask without its smallest weights."""
        scores = magnitude({name: weights[name] for name in mask})
        if self.scope == "global":
            return masks.globally(scores, mask, kept[""])
        return masks.by_layer(scores, mask, kept)
