"""What the methods share that train a network before they prune it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from ltx.core.recipe import STEPS, Plan, in_steps
from ltx.core.task import Layers, Task
from ltx.core.ticket import Tree
from ltx.errors import NothingLeft, UserError, demand
from ltx.knobs import at_least, between, knob, one_of
from ltx.methods.base import Method
from ltx.pruning import masks


@dataclass(frozen=True)
class AfterTraining(Method):
    """How many weights each level keeps, and the step that training is taken up from again."""

    levels: int = knob(16, at_least(1), "how often to prune", grows=True)
    rate: float = knob(0.2, between(0, 1), "fraction of the surviving weights that a level prunes")
    scope: str = knob(
        "layer",
        one_of(["layer", "global"]),
        "layer: the smallest weights of each layer | global: of all layers together",
    )
    conv_rate: float | None = knob(
        None, between(0, 1), "the rate of convolutions, where it differs; scope=layer only"
    )
    output_rate: float | None = knob(
        None,
        between(0, 1),
        "the rate of the last dense layer; half of `rate` unless given (LTH Figure 2); scope=layer only",
    )
    rewind_step: str = knob(
        "0",
        STEPS,
        "the step whose weights, schedule and data order survivors return to; 0 = initialisation",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("conv_rate", "output_rate"):
            rate = getattr(self, key)
            demand(
                rate is None or self.scope == "layer",
                f"method.{key}",
                rate,
                "with method.scope=global one rate holds for all layers",
            )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        schedule = (self.kept(layers, level) for level in range(self.levels + 1))  # as far as it is possible
        for level, (parent, child) in enumerate(pairwise(schedule), start=1):
            empty = [name for name, count in child.items() if count < 1]
            if empty:
                size = layers.sizes[empty[0]] if empty[0] else layers.free
                raise UserError(
                    f"method.levels={self.levels} is not possible: level {level} would empty "
                    f"{empty[0] or 'all layers'} (of {size} weights); at most {level - 1} levels can be pruned"
                )
            demand(
                parent != child,
                "method.levels",
                self.levels,
                f"level {level} would prune no weight; at most {level - 1} levels",
            )
        if plan:
            demand(
                self.rewind(plan) < plan.steps,
                "method.rewind_step",
                self.rewind_step,
                f"training ends at step {plan.steps}",
            )

    def rewind(self, plan: Plan) -> int:
        return in_steps("method.rewind_step", self.rewind_step, plan.epoch)

    def kept(self, layers: Layers, level: int) -> dict[str, int]:
        """Weights alive at a level, counted from the dense network so that rounding does not add up.

        One entry per prunable layer, or one named "" for all of them together if the scope is global.
        """
        sizes = {name: layers.sizes[name] for name in layers.prunable}
        if self.scope == "global":
            return {"": round(sum(sizes.values()) * (1 - self.rate) ** level)}
        return {
            name: round(size * (1 - self._rate(layers.kinds[name])) ** level) for name, size in sizes.items()
        }

    def _rate(self, kind: str) -> float:
        if kind == "output":
            return self.rate / 2 if self.output_rate is None else self.output_rate
        if kind in ("conv", "shortcut") and self.conv_rate is not None:
            return self.conv_rate
        return self.rate

    def pruned(self, task: Task, scores: Tree, mask: Tree, level: int) -> Tree:
        """The level's mask: the highest-scored of what `mask` leaves alive."""
        kept = self.kept(task.layers, level)
        if self.scope == "layer":
            return masks.by_layer(scores, mask, kept)
        mask = masks.globally(scores, mask, kept[""])
        # A diverged replicate has no smallest weight, and its mask no meaning: it goes on, marked as diverged.
        sound = torch.stack([scores[name].flatten(1).isfinite().all(1) for name in mask]).all(0)
        if empty := masks.emptied({name: alive[sound] for name, alive in mask.items()}):
            raise NothingLeft(
                f"level {level} would empty {empty[0]}, and the network would no longer connect: "
                f"the run ends with level {level - 1}"
            )
        return mask
