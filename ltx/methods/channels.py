"""What the methods share that prune whole channels, and the others that Early-Bird is compared with.

A ticket without channels is a smaller network: it is trained as one, and its weights come back with zeros in
place of what was cut, so that files, tables and controls know no difference.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from ltx.core.goal import Goal
from ltx.core.recipe import Plan
from ltx.core.task import Layers, Task
from ltx.core.ticket import Hooks, Key, Round, Ticket, Trained, Tree, only
from ltx.data.base import Data
from ltx.errors import UserError
from ltx.knobs import at_least, between, each, knob, one_of
from ltx.methods.at_init import PER_CLASS, enough, examples
from ltx.methods.base import Method, Rows, Search
from ltx.pruning import channels, masks
from ltx.pruning.channels import Group
from ltx.pruning.scores import saliency
from ltx.streams import seeded, stream

Groups = dict[str, Group]


@dataclass(frozen=True)
class Draw:
    """A ticket as it was drawn: what it keeps of which weights, and after how many steps."""

    ratio: float
    kept: Tree  # [R, channels] bool, by group
    weights: Tree  # [R, *shape] at the drawing
    steps: Tensor  # [R] int64 that the drawing took
    found_by: dict[Key, Tensor]


Draws = Generator[Round, Trained, list[Draw]]

Start = Callable[[Task, Ticket, Draw], tuple[Tree, tuple[int, ...]]]
"""(task, the dense ticket, what was drawn) to the weights that retraining begins with, and its first step."""

RETRAIN: dict[str, Start] = {
    "inherit": lambda task, dense, drawn: (drawn.weights, tuple(drawn.steps.tolist())),
    "restart": lambda task, dense, drawn: (drawn.weights, ()),
    "original": lambda task, dense, drawn: (dense.weights, ()),
    "reinit": lambda task, dense, drawn: (task.initial("channels", drawn.ratio), ()),
}
HOW = "inherit: drawn weights, rest of the schedule | restart: drawn weights | original: first | reinit"
RETRAIN_L1 = "how hard BatchNorm's scales are drawn to zero while retraining"


@dataclass(frozen=True)
class Channels(Method):
    """The dense network, then for each ratio the network without so many channels, retrained."""

    nested: ClassVar[bool] = False
    controls: ClassVar[tuple[str, ...]] = ("reinit",)  # shuffled weights would not be channels

    ratios: list[float] = knob(
        [0.3, 0.5, 0.7],
        each(between(0, 1), least=1, rising=True),
        "fractions of all channels to prune, each for a ticket of its own",
        grows=True,
    )
    retrain: str = knob("original", one_of(RETRAIN), HOW)
    retrain_l1: float = knob(1e-4, at_least(0.0), RETRAIN_L1)

    @property
    def redraws(self) -> str:
        return "method.retrain=reinit" if self.retrain == "reinit" else ""

    def check(self, layers: Layers, plan: Plan | None) -> None:
        if not layers.scales:
            raise UserError("the network has no BatchNorm: its channels have no scales to be pruned by")

    @abstractmethod
    def draws(self, task: Task, dense: Ticket, plan: Plan, groups: Groups) -> Draws:
        """Search, if need be, and draw a ticket for each ratio."""

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        groups = channels.groups(task.network(), task.data.shape, task.layers.prunable)
        if not groups:
            raise UserError(
                "prunable.* leaves no channels to prune: all layers that make them must be prunable"
            )
        channels.tried(task.network, task.data.shape, groups)
        yield Round(0, dense, plan)
        drawn = yield from self.draws(task, dense, plan, groups)
        for level, draw in enumerate(drawn, start=1):
            weights, starts = RETRAIN[self.retrain](task, dense, draw)
            yield Round(
                level,
                Ticket(weights, mask(task, weights, draw.kept)),
                plan,
                of=(draw.ratio,),
                starts=starts,
                channels=draw.kept,
                hooks=Hooks(penalty=sparsity(task, self.retrain_l1)),
                found_by=draw.found_by,
            )


def kept(groups: Groups, scores: Tree, ratio: float) -> Tree:
    """The channels above the percentile `ratio` of all, by group, [R, channels] bool.

    Deviations from the authors' code: exactly so many (their strict threshold prunes one more); at least one
    of each group (their surgery loses its place); and channels that several layers share, as in a residual
    stream, count once and go from all of them (theirs stay in the stream and are only not read).
    """
    total = sum(group.channels for group in groups.values())
    return masks.connected(scores, total - round(total * ratio))


def scales(groups: Groups, weights: Tree) -> Tree:
    """|γ| of every channel, by group, [R, channels]."""
    return {name: group.scale(weights) for name, group in groups.items()}


def mask(task: Task, weights: Tree, kept: Tree) -> Tree:
    """What the smaller networks leave of every layer's weights, prunable or not."""
    parts = [
        channels.shrunk(task.network(), task.data.shape, {name: alive[r] for name, alive in kept.items()})
        for r in range(task.replicates)
    ]
    return channels.masked({name: weights[name] for name in task.layers.sizes}, parts)


def sparsity(task: Task, l1: float) -> Callable[[Tree, Tree], None] | None:
    """Adds the subgradient of l1 · Σ|γ| over every BatchNorm scale (Liu et al. 2017, equation 1)."""

    def penalty(weights: Tree, gradients: Tree) -> None:
        for name in task.layers.scales:
            gradients[name].add_(weights[name].detach().sign(), alpha=l1)

    return penalty if l1 else None


@dataclass(frozen=True)
class Searched(Channels):
    """Channels by their scales, after a training that draws these to zero."""

    l1: float = knob(1e-4, at_least(0.0), "how hard BatchNorm's scales are drawn to zero while searching")

    def draw(self, groups: Groups, ratio: float, weights: Tree, steps: Tensor) -> Draw:
        """The ticket of a ratio, from the search's weights after so many steps."""
        alive = kept(groups, scales(groups, weights), ratio)
        return Draw(ratio, alive, weights, steps, found_by={(0, "search"): steps})

    def tables(self, task: Task, round: Round, trained: Trained) -> dict[str, Rows]:
        """How the scales were spread before the search and after."""
        if round.role != "search":
            return {}
        spread = {"before": round.ticket.weights, "after": trained.final}
        values = {
            when: torch.cat([tree[name].flatten(1).abs() for name in task.layers.scales], 1).cpu()
            for when, tree in spread.items()
        }
        top = max(float(part.max()) for part in values.values())
        rows = [
            (seed, when, top * b / BINS, top * (b + 1) / BINS, int(count))
            for when, part in values.items()
            for seed, row in zip(task.seeds, part, strict=True)
            for b, count in enumerate(torch.histc(row, BINS, 0, top))
        ]
        return {"gammas": (["seed", "when", "low", "high", "channels"], rows)}


BINS = 50


@dataclass(frozen=True)
class Slimming(Searched):
    """Network slimming: train to the end, prune the smallest scales, fine-tune (Liu et al. 2017, section 3).

    Deviation: a channel goes from the network, shift and all, as in the authors' surgery of VGG.
    """

    summary: ClassVar[str] = "train with L1 on channels' scales, prune the least, fine-tune (Liu et al. 2017)"

    retrain: str = knob("restart", one_of(RETRAIN), HOW)
    retrain_l1: float = knob(0.0, at_least(0.0), RETRAIN_L1)

    def draws(self, task: Task, dense: Ticket, plan: Plan, groups: Groups) -> Draws:
        hooks = Hooks(penalty=sparsity(task, self.l1))
        trained = yield Round(0, dense, plan, role="search", hooks=hooks)
        return [self.draw(groups, ratio, trained.final, trained.steps) for ratio in self.ratios]


@dataclass(frozen=True)
class ChannelOneShot(Slimming):
    """The lottery ticket of channels: drawn after all of training, rewound to the start (You et al. 2020)."""

    summary: ClassVar[str] = "one-shot tickets of whole channels, drawn when training has ended"

    retrain: str = knob("original", one_of(RETRAIN), HOW)
    retrain_l1: float = knob(1e-4, at_least(0.0), RETRAIN_L1)


@dataclass(frozen=True)
class Untrained(Channels):
    """Channels chosen before any training."""

    def draws(self, task: Task, dense: Ticket, plan: Plan, groups: Groups) -> Draws:
        scores = self.scores(task, dense, groups)
        none = torch.zeros(task.replicates, dtype=torch.int64)
        return [Draw(p, kept(groups, scores, p), dense.weights, none, {}) for p in self.ratios]
        yield  # a search that asks for no training

    @abstractmethod
    def scores(self, task: Task, dense: Ticket, groups: Groups) -> Tree:
        """How much each channel matters, by group, [R, channels]."""


@dataclass(frozen=True)
class ChannelRandom(Untrained):
    """U(0, 1) for every channel: what is lost by the number of channels alone."""

    summary: ClassVar[str] = "prune channels at random, at initialisation"

    def scores(self, task: Task, dense: Ticket, groups: Groups) -> Tree:
        def uniform(name: str, group: Group) -> Tensor:
            rows = [
                torch.rand(group.channels, generator=stream(s, "channel_random", name)) for s in task.seeds
            ]
            return torch.stack(rows).to(task.device)

        return {name: uniform(name, group) for name, group in groups.items()}


@dataclass(frozen=True)
class ChannelSNIP(Untrained):
    """Connection sensitivity of a gate on every channel: |γ ∂L/∂γ| (after Lee et al. 2019, equation 4)."""

    summary: ClassVar[str] = "prune the channels that the loss feels least, at initialisation"

    per_class: int = knob(10, at_least(1), PER_CLASS)

    def suits(self, goal: Goal, data: Data | None) -> None:
        enough(self.per_class, data)

    def scores(self, task: Task, dense: Ticket, groups: Groups) -> Tree:
        rows = [self.score(task, seed, only(dense.weights, r)) for r, seed in enumerate(task.seeds)]
        return scales(groups, {name: torch.stack([row[name] for row in rows]) for name in task.layers.scales})

    def score(self, task: Task, seed: int, weights: Tree) -> Tree:
        """The sensitivity of one replicate's scales; `weights` are [1, *shape]."""
        images, labels = examples(task, seed, self.per_class)
        network, one = task.network(), {name: tensor[0].clone() for name, tensor in weights.items()}
        with seeded(seed, "score"):
            return saliency(
                lambda w: task.goal.mean(functional_call(network, w, images.float()), labels),
                one,
                task.layers.scales,
            )
