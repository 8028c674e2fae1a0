"""Whole filters, least first, in rounds of pruning and fine-tuning (Molchanov et al. 2017; Li et al. 2017)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import ClassVar

import torch
from torch import Tensor, nn

from ltx.core.recipe import Plan, Recipe, in_steps
from ltx.core.task import Layers, Task
from ltx.core.ticket import Round, Ticket, Tree, only
from ltx.errors import UserError, demand, unknown
from ltx.knobs import Knobs, Rule, above, at_least, each, knob, one_of
from ltx.methods.base import Method, Search
from ltx.methods.channels import mask
from ltx.pruning import masks
from ltx.pruning.channels import Groups, bundles, shrunk, tried
from ltx.pruning.filters import MAPS, WEIGHTS, by_maps, by_weights, filters
from ltx.pruning.size import size
from ltx.streams import stream

CRITERIA = ("taylor", "taylor_signed", "l1", "l2", "fpgm", "bn", "apoz", "random")
TARGETS = ("filters", "weights", "macs")
FRACTION = Rule(
    "write PATTERN:FRACTION, as in stage1.*.conv1:0.6, with a fraction between 0 and 1",
    lambda text: re.fullmatch(r"[^:]+:0?\.\d*[1-9]\d*", text) is not None,
)
CHUNK = 200
"""Examples whose feature maps are in memory at once."""


@dataclass(frozen=True)
class Finetune(Knobs):
    """How a pruned network is trained on; the rest is as in `recipe`."""

    prefix = "method.finetune."

    steps: str = knob("1ep", None, "length of fine-tuning after each round")
    lr: float | None = knob(None, above(0), "constant learning rate; else the recipe's last")
    freeze: list[str] = knob(
        [],
        None,
        "layers that stay as they are then, and keep their filters; recipe.freeze is the first training's",
    )


@dataclass(frozen=True)
class Filters(Method):
    """Train, then prune so many of the filters that matter least and train on, `rounds` times."""

    summary: ClassVar[str] = (
        "train, prune the filters that matter least, fine-tune, repeat (Molchanov et al. 2017)"
    )
    controls: ClassVar[tuple[str, ...]] = ()  # criterion=random and `scratch` are what it is compared with

    criterion: str = knob("taylor", one_of(CRITERIA), "what the filters that stay have most of")
    scope: str = knob(
        "global", one_of(("global", "layer")), "rank all filters together | those of each layer"
    )
    layers: list[str] = knob(
        [],
        each(FRACTION),
        "with scope=layer, instead of per_round: fractions of some layers' filters, as in [stage1.*.conv1:0.6]; "
        "the other layers keep theirs",
    )
    rounds: int = knob(5, at_least(1), "how often to prune", grows=True)
    per_round: float = knob(
        0.12,
        above(0),
        "how many filters a round prunes; below 1: what fraction of the `target` there was at first",
    )
    target: str = knob(
        "filters", one_of(TARGETS), "what per_round is a fraction of: filters, weights or macs"
    )
    iterative: bool = knob(
        True, None, "prune what fine-tuning made; false = one-shot, each from the dense network"
    )
    examples: int = knob(1000, at_least(1), "training examples that taylor and apoz look at")
    finetune: Finetune = knob(Finetune, None, "how the pruned network is trained on")
    scratch: list[str] = knob(
        [],
        each(one_of(("e", "b"))),
        "also train the smaller network from scratch: e = as many steps, b = as many multiply-accumulates",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        in_steps("method.finetune.steps", self.finetune.steps, epoch=1)
        demand(
            self.target == "filters" or self.per_round < 1,
            "method.per_round",
            self.per_round,
            f"with method.target={self.target} it is a fraction below 1",
        )
        most = max((share for _, share in self.fractions), default=self.per_round)
        share = most * self.rounds
        demand(
            most >= 1 or share < 1,
            "method.rounds",
            self.rounds,
            f"they would prune {share:.3g} of all",
        )
        demand(
            self.scope == "global" or (self.target, self.per_round < 1) == ("filters", True),
            "method.scope",
            self.scope,
            "within layers a fraction of the filters is pruned",
        )
        demand(self.scope == "layer" or not self.layers, "method.layers", self.layers, "it needs scope=layer")

    @property
    def fractions(self) -> list[tuple[str, float]]:
        """The patterns of `layers`, and what fraction of such a layer's filters each round prunes."""
        parts = (text.rpartition(":") for text in self.layers)
        return [(pattern, float(fraction)) for pattern, _, fraction in parts]

    def fraction(self, layer: str) -> float:
        """What fraction of a layer's filters each round prunes."""
        named = (share for pattern, share in self.fractions if fnmatch(layer, pattern))
        return next(named, 0.0) if self.layers else self.per_round

    @property
    def redraws(self) -> str:
        return f"method.scratch=[{','.join(self.scratch)}]" if self.scratch else ""

    def frozen(self, recipe: Recipe) -> tuple[list[str], str]:
        """What fine-tuning leaves alone: a head may be trained first, and all of the network after each pruning."""
        return self.finetune.freeze, "method.finetune.freeze"

    def check(self, layers: Layers, plan: Plan | None) -> None:
        if "conv" not in layers.kinds.values():
            raise UserError("method=filters is not possible: the network has no convolutions")
        if self.criterion == "bn" and not layers.scales:
            raise UserError("method.criterion=bn is not possible: the network has no BatchNorm")

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        groups = self.groups(task)
        tuned = self.tuning(plan)
        trained = yield Round(0, dense, plan)
        parent, first = dense.rewound(trained.final), trained.steps
        alive = {
            name: torch.ones(task.replicates, g.channels, dtype=torch.bool) for name, g in groups.items()
        }
        whole, every = parent, alive
        for level in range(1, self.rounds + 1):
            if not self.iterative:
                parent, alive = whole, every
            alive = self.kept(task, groups, self.scores(task, groups, parent, level), alive, level)
            ticket = Ticket(parent.weights, mask(task, parent.weights, alive))
            found_by = None if self.iterative else {(0, "ticket"): first}
            trained = yield Round(level, ticket, tuned, channels=alive, found_by=found_by)
            parent = ticket.rewound(trained.final)
            yield from self.controls_of(task, ticket, alive, plan, level)

    def groups(self, task: Task) -> Groups:
        """The filters that may go, once as many as there must be are there; raises UserError."""
        network = task.network()
        found = filters(bundles(network, task.data.shape), network, set(task.layers.prunable))
        total = sum(group.channels for group in found.values())
        if not found:
            raise UserError(
                "prunable.* leaves no filters to prune: all layers that make them must be prunable"
            )
        if self.per_round >= 1:
            most = (total - len(found)) // round(self.per_round)
            demand(
                self.rounds <= most,
                "method.rounds",
                self.rounds,
                f"at most {most}: there are {total} filters",
            )
        for pattern, _ in self.fractions:
            if not any(fnmatch(name, pattern) for name in found):
                raise unknown("method.layers", pattern, found)
        tried(task.network, task.data.shape, found)
        if self.criterion == "bn":
            found = {name: group for name, group in found.items() if group.scales}
        return found

    def tuning(self, plan: Plan) -> Plan:
        """How a pruned network is trained on: at a constant rate."""
        steps = in_steps("method.finetune.steps", self.finetune.steps, plan.epoch)
        demand(steps >= 1, "method.finetune.steps", self.finetune.steps, "train for at least one step")
        rate = self.finetune.lr or plan.lr_at(plan.steps - 1)
        return replace(plan.constant(rate), steps=steps, freeze=tuple(self.finetune.freeze))

    # -- which filters stay

    def kept(self, task: Task, groups: Groups, scores: Tree, alive: Tree, level: int) -> Tree:
        """The filters alive after so many rounds, [R, channels] bool by group; at least one of each."""
        scores = {name: torch.where(alive[name], scores[name], -torch.inf) for name in groups}
        if self.scope == "layer":
            stay = {
                name: 1 - self.fraction(name) * level for name in groups
            }  # whole filters, as Li et al. cut
            return {
                name: top(scores[name], int(g.channels * stay[name] + 1e-9)) for name, g in groups.items()
            }
        total = sum(group.channels for group in groups.values())
        if self.target == "filters":
            least = self.per_round if self.per_round >= 1 else self.per_round * total
            return masks.connected(scores, total - round(least * level))
        rows = [self.fitting(task, only(scores, r), level) for r in range(task.replicates)]
        return {name: torch.cat([row[name] for row in rows]) for name in groups}

    def fitting(self, task: Task, scores: Tree, level: int) -> Tree:
        """As many of one replicate's filters, scores [1, channels], as fit into the target."""
        measure = {"weights": "parameters", "macs": "macs"}[self.target]
        whole = getattr(size(task.network(), task.data.shape), measure)
        allowed = whole * (1 - self.per_round * level)

        def fits(count: int) -> bool:
            kept = {name: row[0] for name, row in masks.connected(scores, count).items()}
            small = shrunk(task.network(), task.data.shape, kept).network
            return bool(getattr(size(small, task.data.shape), measure) <= allowed)

        low, high = len(scores), sum(int((row > -torch.inf).sum()) for row in scores.values())
        if not fits(low):
            raise UserError(
                f"method.rounds={self.rounds} is not possible: one filter a layer has more {self.target} than "
                f"round {level} leaves"
            )
        while low < high:  # the most filters that fit
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return masks.connected(scores, low)

    def scores(self, task: Task, groups: Groups, ticket: Ticket, level: int) -> Tree:
        """How much each filter matters, by group, [R, channels]."""
        rows = [self.score(task.only(r), groups, ticket.only(r), level) for r in range(task.replicates)]
        return {name: torch.stack([row[name] for row in rows]).cpu() for name in groups}

    def score(self, task: Task, groups: Groups, ticket: Ticket, level: int) -> Tree:
        """The same of one replicate, [channels]."""
        (seed,) = task.seeds
        weights = {name: tensor[0] for name, tensor in ticket.start().items()}
        if self.criterion == "random":
            return {
                name: torch.rand(group.channels, generator=stream(seed, "filters", level, name))
                for name, group in groups.items()
            }
        if self.criterion == "bn":
            stacked = {name: tensor[None] for name, tensor in weights.items()}
            return {name: group.scale(stacked)[0] for name, group in groups.items()}
        network = loaded(task, weights)
        if self.criterion in WEIGHTS:
            return by_weights(network, groups, WEIGHTS[self.criterion])
        assert self.criterion in MAPS
        return by_maps(network, groups, list(self.looked_at(task, seed)), task.goal.loss, self.criterion)

    def looked_at(self, task: Task, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Training examples drawn for a seed, in chunks."""
        train = task.data.train
        chosen = torch.randperm(len(train), generator=stream(seed, "filters", "examples"))[: self.examples]
        for rows in chosen.to(train.targets.device).split(CHUNK):
            yield task.data.prepare(train.read(rows)), train.targets[rows]

    # -- the smaller network from scratch

    def controls_of(self, task: Task, ticket: Ticket, alive: Tree, plan: Plan, level: int) -> Iterator[Round]:
        """Scratch-E and Scratch-B of Liu et al. 2019, section 4: the same network, newly initialised."""
        for name in self.scratch:
            longer = self.longer(task, alive) if name == "b" else 1.0
            long = replace(
                plan,
                steps=round(plan.steps * longer),
                drops=tuple(round(drop * longer) for drop in plan.drops),
                warmup=round(plan.warmup * longer),
                freeze=(),
            )
            start = ticket.rewound(task.initial("scratch", level))
            yield Round(level, start, long, role=f"scratch_{name}", channels=alive, found_by={})

    @staticmethod
    def longer(task: Task, alive: Tree) -> float:
        """How many more steps have the multiply-accumulates of the whole, in the mean; Liu et al. stop at twice."""
        shape = task.data.shape
        small = [
            size(shrunk(task.network(), shape, {n: row[r] for n, row in alive.items()}).network, shape).macs
            for r in range(task.replicates)
        ]
        return size(task.network(), shape).macs * len(small) / sum(small)


def top(scores: Tensor, count: int) -> Tensor:
    """The `count` best of each row, at least one."""
    return masks.top(scores, torch.ones_like(scores, dtype=torch.bool), max(1, count))


def loaded(task: Task, weights: Tree) -> nn.Module:
    """The whole network with one replicate's weights, in evaluation mode."""
    network = task.network().eval()
    network.load_state_dict(weights)
    return network
