"""How to train: pure data. A Recipe is what people write; a Plan is the same thing counted in steps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from ltx.errors import UserError, demand
from ltx.knobs import Knobs, Rule, above, at_least, each, knob, one_of, within


def in_steps(key: str, text: str, epoch: int) -> int:
    """`500`, `500it`, `160ep` or `3ep20it` as a number of steps; `epoch` is the steps of one epoch."""
    found = re.fullmatch(r"(?:(\d{1,15})ep)?(?:(\d{1,15})(?:it)?)?", text.strip(), re.ASCII)
    if not text.strip() or found is None:
        raise UserError(f"{key}={text} is not a number of steps: write 500, 160ep or 3ep20it")
    epochs, steps = (int(part or 0) for part in found.groups())
    return epochs * epoch + steps


@dataclass(frozen=True)
class Steps(Rule):
    """A number of steps."""

    def check(self, key: str, value: str) -> None:
        in_steps(key, value, epoch=1)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "drops": lambda gone: 1.0,  # but for the drops
    "constant": lambda gone: 1.0,
    "linear": lambda gone: 1 - gone,
    "cosine": lambda gone: (1 + math.cos(math.pi * gone)) / 2,  # Loshchilov & Hutter 2017, eq. 5, no restart
}
"""What the learning rate is multiplied by when a fraction of the steps after warm-up is gone."""

STEPS = Steps("write 500, 160ep or 3ep20it", bool)


@dataclass(frozen=True)
class Augment(Knobs):
    """Random crop and flip, drawn anew for each replicate and epoch."""

    prefix = "recipe.augment."

    pad: int = knob(0, at_least(0), "pixels of padding before a crop to the original size; 0 = no crop")
    padding: str = knob("zeros", one_of(["zeros", "reflect"]), "zeros | reflect")
    flip: bool = knob(False, None, "mirror left and right with probability one half")

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse to crop or flip what is no image, or too small an image for the padding; raises UserError."""
        what = f"inputs of {'x'.join(map(str, shape))} are no images"
        demand(len(shape) == 3 or not self.flip, "recipe.augment.flip", "true", what)
        demand(len(shape) == 3 or self.pad == 0, "recipe.augment.pad", self.pad, what)
        sides = "x".join(map(str, shape[1:]))
        rule = f"images of {sides} can be padded by less than that"
        demand(self.pad < min(shape[1:], default=1), "recipe.augment.pad", self.pad, rule)


@dataclass(frozen=True)
class Recipe(Knobs):
    """How one network is trained. Steps may be written `500` or `160ep`."""

    prefix = "recipe."

    optimizer: str = knob("adam", one_of(["adam", "adamw", "sgd"]), "adam | adamw | sgd")
    lr: float = knob(1.2e-3, above(0), "learning rate after warm-up")
    momentum: float = knob(0.0, within(0, 1), "sgd only")
    nesterov: bool = knob(False, None, "sgd with momentum only")
    weight_decay: float = knob(0.0, at_least(0.0), "L2 coefficient, on every parameter; adamw: decoupled")
    batch_size: int = knob(
        60, at_least(0), "examples a step, 0 = all of them; an epoch's last partial batch is dropped"
    )
    steps: str = knob("1000", STEPS, "length of training")
    warmup: str = knob("0", STEPS, "the learning rate grows linearly from 0 over this long")
    schedule: str = knob(
        "drops",
        one_of(SCHEDULES),
        "how the learning rate goes on after warm-up: drops | constant | linear or cosine, to 0 at the last step",
    )
    drops: list[str] = knob([], each(STEPS), "when the learning rate is multiplied by drop_factor")
    drop_factor: float = knob(0.1, above(0), "what the learning rate is multiplied by at each of drops")
    eval_every: str = knob("100", STEPS, "least distance between evaluations")
    eval_spacing: float = knob(
        0.0,
        within(0, 1),
        "evaluations are at least this fraction of the step apart: 0.04 = 4 %; 0 = evenly spaced",
    )
    precision: str = knob(
        "float32",
        one_of(["float32", "bfloat16"]),
        "float32 | bfloat16 (autocast of forward and backward)",
    )
    clip_norm: float = knob(
        0.0, at_least(0.0), "gradients of all parameters together are scaled down to this norm; 0 = never"
    )
    augment: Augment = knob(Augment, None, "random crop and flip")
    freeze: list[str] = knob(
        [],
        None,
        "patterns of layers that nothing moves or prunes, BatchNorm's statistics included: [features.*]",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            self.optimizer == "sgd" or self.momentum == 0,
            "recipe.momentum",
            self.momentum,
            "only recipe.optimizer=sgd has momentum",
        )
        demand(
            not self.nesterov or self.momentum > 0,
            "recipe.nesterov",
            self.nesterov,
            "it needs recipe.momentum above 0",
        )
        demand(
            self.schedule == "drops" or not self.drops,
            "recipe.drops",
            list(self.drops),
            f"recipe.schedule={self.schedule} has none",
        )

    def plan(self, train_size: int) -> Plan:
        """The recipe counted in steps of batches from `train_size` examples; raises UserError."""
        size = self.batch_size or train_size
        epoch = train_size // size
        demand(epoch > 0, "recipe.batch_size", self.batch_size, f"there are {train_size} training examples")
        steps, warmup, every = (
            in_steps(f"recipe.{key}", getattr(self, key), epoch) for key in ("steps", "warmup", "eval_every")
        )
        drops = tuple(in_steps("recipe.drops", drop, epoch) for drop in self.drops)
        demand(steps >= 1, "recipe.steps", self.steps, "train for at least one step")
        demand(every >= 1, "recipe.eval_every", self.eval_every, "it must be at least one step")
        demand(warmup <= steps, "recipe.warmup", self.warmup, f"training has {steps} steps")
        rising = drops == tuple(sorted(set(drops)))
        demand(rising, "recipe.drops", list(self.drops), "they must grow from left to right")
        counted = {
            "batch_size": size,
            "epoch": epoch,
            "steps": steps,
            "warmup": warmup,
            "drops": drops,
            "eval_every": every,
            "freeze": tuple(self.freeze),
        }
        return Plan(**({f.name: getattr(self, f.name) for f in fields(self)} | counted))


@dataclass(frozen=True)
class Plan:
    """A recipe in steps: everything that training needs to know about how."""

    optimizer: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    batch_size: int
    epoch: int  # steps of one epoch
    steps: int
    warmup: int
    schedule: str
    drops: tuple[int, ...]
    drop_factor: float
    eval_every: int
    eval_spacing: float
    precision: str
    clip_norm: float
    augment: Augment
    freeze: tuple[str, ...] = ()  # patterns of layers that stay as they are

    def lr_at(self, step: int) -> float:
        """Learning rate of the 0-based step: linear warm-up from 0 (as open_lth), then the schedule."""
        rate = self.lr * self.drop_factor ** sum(step >= drop for drop in self.drops)
        if step < self.warmup:
            return rate * step / self.warmup
        gone = (step - self.warmup) / max(1, self.steps - self.warmup)
        return rate * SCHEDULES[self.schedule](gone)

    def constant(self, rate: float) -> Plan:
        """The same at one learning rate."""
        return replace(self, lr=rate, schedule="constant", warmup=0, drops=())

    @property
    def most_evaluations(self) -> int:
        """At least as many as `evaluations` has, without listing them."""
        even = self.steps // self.eval_every + 2
        if self.eval_spacing == 0 or even < 1 / self.eval_spacing:
            return even
        growing = math.log(max(2.0, self.steps * self.eval_spacing / self.eval_every))
        return min(even, math.ceil(1 / self.eval_spacing + growing / math.log1p(self.eval_spacing)) + 2)

    def evaluations(self, start: int) -> list[int]:
        """The steps after which to evaluate: the start, multiples of `eval_every`, and the end."""
        at, step = [start], start
        while step < self.steps:
            ahead = max(step + self.eval_every, math.ceil(step * (1 + self.eval_spacing)))
            step = min(-(-ahead // self.eval_every) * self.eval_every, self.steps)
            at.append(step)
        return at
