"""How to train: pure data. A Recipe is what people write; a Plan is the same thing counted in steps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ltx.errors import UserError, demand

OPTIMIZERS = ("adam", "sgd")
PRECISIONS = ("float32", "bfloat16")
PADDINGS = ("zeros", "reflect")


def in_steps(key: str, text: str, epoch: int) -> int:
    """`500`, `500it`, `160ep` or `3ep20it` as a number of steps; `epoch` is the steps of one epoch."""
    found = re.fullmatch(r"(?:(\d+)ep)?(?:(\d+)(?:it)?)?", text.strip())
    if not text.strip() or found is None:
        raise UserError(f"{key}={text} is not a number of steps: write 500, 160ep or 3ep20it")
    epochs, steps = (int(part or 0) for part in found.groups())
    return epochs * epoch + steps


@dataclass(frozen=True)
class Augment:
    """Random crop and flip, drawn anew for each replicate and epoch."""

    pad: int = 0
    """pixels of padding before a crop to the original size; 0 = no crop"""
    padding: str = "zeros"
    """zeros | reflect"""
    flip: bool = False
    """mirror left and right with probability one half"""

    def __post_init__(self) -> None:
        demand(self.pad >= 0, "recipe.augment.pad", self.pad, "it must be 0 or more pixels")
        demand(
            self.padding in PADDINGS,
            "recipe.augment.padding",
            self.padding,
            f"choose from {', '.join(PADDINGS)}",
        )


@dataclass(frozen=True)
class Recipe:
    """How one network is trained. Steps may be written `500` or `160ep`."""

    optimizer: str = "adam"
    """adam | sgd"""
    lr: float = 1.2e-3
    """learning rate after warm-up"""
    momentum: float = 0.0
    """sgd only"""
    nesterov: bool = False
    """sgd with momentum only"""
    weight_decay: float = 0.0
    """L2 coefficient, on every parameter"""
    batch_size: int = 60
    """examples a step; an epoch's last partial batch is dropped"""
    steps: str = "1000"
    """length of training"""
    warmup: str = "0"
    """the learning rate grows linearly from 0 over this long"""
    drops: list[str] = field(default_factory=list)
    """when the learning rate is multiplied by drop_factor"""
    drop_factor: float = 0.1
    eval_every: str = "100"
    """least distance between evaluations"""
    eval_spacing: float = 0.0
    """evaluations are at least this fraction of the step apart: 0.04 = 4 %; 0 = evenly spaced"""
    precision: str = "float32"
    """float32 | bfloat16 (autocast of forward and backward)"""
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        demand(
            self.optimizer in OPTIMIZERS,
            "recipe.optimizer",
            self.optimizer,
            f"choose from {', '.join(OPTIMIZERS)}",
        )
        demand(
            self.precision in PRECISIONS,
            "recipe.precision",
            self.precision,
            f"choose from {', '.join(PRECISIONS)}",
        )
        demand(self.lr > 0 and math.isfinite(self.lr), "recipe.lr", self.lr, "it must be positive and finite")
        demand(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "it must lie in [0, 1)")
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
        demand(self.weight_decay >= 0, "recipe.weight_decay", self.weight_decay, "it must be 0 or more")
        demand(self.batch_size >= 1, "recipe.batch_size", self.batch_size, "it must be 1 or more")
        demand(self.drop_factor > 0, "recipe.drop_factor", self.drop_factor, "it must be positive")
        demand(0 <= self.eval_spacing < 1, "recipe.eval_spacing", self.eval_spacing, "it must lie in [0, 1)")
        for key in ("steps", "warmup", "eval_every"):
            in_steps(f"recipe.{key}", getattr(self, key), epoch=1)
        for drop in self.drops:
            in_steps("recipe.drops", drop, epoch=1)

    def plan(self, train_size: int) -> Plan:
        """The recipe counted in steps of batches from `train_size` examples."""
        epoch = train_size // self.batch_size
        demand(epoch > 0, "recipe.batch_size", self.batch_size, f"there are {train_size} training examples")
        steps, warmup, every = (
            in_steps(f"recipe.{key}", getattr(self, key), epoch) for key in ("steps", "warmup", "eval_every")
        )
        demand(steps >= 1, "recipe.steps", self.steps, "train for at least one step")
        demand(every >= 1, "recipe.eval_every", self.eval_every, "it must be at least one step")
        demand(warmup <= steps, "recipe.warmup", self.warmup, f"training has {steps} steps")
        drops = [in_steps("recipe.drops", drop, epoch) for drop in self.drops]
        demand(
            drops == sorted(set(drops)), "recipe.drops", list(self.drops), "they must grow from left to right"
        )
        return Plan(
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            epoch=epoch,
            steps=steps,
            warmup=warmup,
            drops=tuple(drops),
            drop_factor=self.drop_factor,
            eval_every=every,
            eval_spacing=self.eval_spacing,
            precision=self.precision,
            augment=self.augment,
        )


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
    drops: tuple[int, ...]
    drop_factor: float
    eval_every: int
    eval_spacing: float
    precision: str
    augment: Augment

    def lr_at(self, step: int) -> float:
        """Learning rate of the 0-based step: linear warm-up from 0 (as open_lth), then drops."""
        rate = self.lr * self.drop_factor ** sum(step >= drop for drop in self.drops)
        return rate * step / self.warmup if step < self.warmup else rate

    def evaluations(self, start: int) -> list[int]:
        """The steps after which to evaluate: the start, multiples of `eval_every`, and the end."""
        at, step = [start], start
        while step < self.steps:
            ahead = max(step + self.eval_every, math.ceil(step * (1 + self.eval_spacing)))
            step = min(-(-ahead // self.eval_every) * self.eval_every, self.steps)
            at.append(step)
        return at
