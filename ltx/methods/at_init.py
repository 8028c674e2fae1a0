"""Prune at initialisation: score an untrained network, keep its best weights, train them once."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ltx.core.goal import Goal
from ltx.core.recipe import Plan
from ltx.core.task import Layers, Task
from ltx.core.ticket import Round, Ticket, Tree
from ltx.data.base import Data
from ltx.errors import UserError, demand
from ltx.knobs import above, at_least, between, each, knob
from ltx.methods.base import Method, Search
from ltx.pruning import masks
from ltx.pruning.controls import CONTROLS
from ltx.pruning.scores import flow, magnitude, saliency
from ltx.streams import seeded, stream


@dataclass(frozen=True)
class AtInit(Method):
    """The dense network, then one ticket for each density, pruned from all layers together.

    A layer may lose all its weights (layer collapse): that is a result, and the ticket is trained.
    """

    nested: ClassVar[bool] = False  # each density is pruned anew from the dense network
    controls: ClassVar[tuple[str, ...]] = tuple(CONTROLS)

    densities: list[float] = knob(
        [0.5, 0.2, 0.1, 0.05, 0.02, 0.01],
        each(between(0, 1), least=1, falling=True),
        "fractions of the prunable weights to keep, falling",
        grows=True,
    )
    iterations: int = knob(
        1, at_least(1), "how often to score the survivors while the density falls exponentially"
    )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        total = layers.free
        kept = [round(total * density) for density in self.densities]
        demand(
            all(high > low for high, low in pairwise([total, *kept, 0])),
            "method.densities",
            list(self.densities),
            f"of {total} prunable weights they would keep {', '.join(map(str, kept))}",
        )

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        yield Round(0, dense, plan)
        total = task.layers.free
        for level, density in enumerate(self.densities, start=1):
            ticket, kept = dense.masked(self.mask(task, dense, density)), {"": round(total * density)}
            inverse = partial(self.mask, task, dense, density, invert=True)  # scored only if a control asks
            yield Round(level, ticket, plan, of=(density,), kept=kept, found_by={}, inverse=inverse)

    def mask(self, task: Task, dense: Ticket, density: float, *, invert: bool = False) -> Tree:
        """The best weights of all layers together, as dense as asked (Tanaka et al. 2020, Algorithm 1).

        With `invert` the worst: what matters most goes first, in every iteration (Frankle et al. 2021).
        """
        network, mask, sign = task.network().double(), dense.mask, -1 if invert else 1
        total = task.layers.free
        for iteration in range(1, self.iterations + 1):
            scores = {n: sign * part for n, part in self.scores(task, network, dense.masked(mask)).items()}
            mask = masks.globally(scores, mask, round(total * density ** (iteration / self.iterations)))
        return mask

    def scores(self, task: Task, network: nn.Module, ticket: Ticket) -> Tree:
        """One replicate after the other, in float64 so that rounding decides no rank."""
        start = {name: t.double() if t.is_floating_point() else t for name, t in ticket.start().items()}
        rows = []
        for r, seed in enumerate(task.seeds):
            with seeded(seed, "score"):  # dropout draws from it
                rows.append(self.score(task, seed, network, {name: t[r] for name, t in start.items()}))
        return {name: torch.stack([row[name] for row in rows]) for name in ticket.mask}

    @abstractmethod
    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        """How much each prunable weight of one replicate matters; `network` has no values of its own."""


@dataclass(frozen=True)
class RandomAtInit(AtInit):
    """U(0, 1) for every weight, so that layers are equally dense but for chance (Frankle et al. 2021)."""

    summary: ClassVar[str] = "at initialisation, prune at random"

    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        def uniform(name: str) -> Tensor:
            generator = stream(seed, "random_at_init", name)
            return torch.rand(weights[name].shape, generator=generator, dtype=torch.float64)

        return {name: uniform(name).to(task.device) for name in task.layers.prunable}


@dataclass(frozen=True)
class MagnitudeAtInit(AtInit):
    """|θ₀| (Frankle et al. 2021)."""

    summary: ClassVar[str] = "at initialisation, prune the smallest weights"

    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        return magnitude(weights)


@dataclass(frozen=True)
class SynFlow(AtInit):
    """Iterative synaptic flow pruning, which sees no data (Tanaka et al. 2020, Algorithm 1)."""

    summary: ClassVar[str] = "at initialisation, prune what carries the least flow (Tanaka et al. 2020)"

    iterations: int = knob(
        100, at_least(1), "how often to score the survivors while the density falls exponentially"
    )

    def suits(self, goal: Goal, data: Data | None) -> None:
        if data is not None and not data.prepare(data.train.inputs.narrow(0, 0, 1)).is_floating_point():
            raise UserError(
                "method=synflow shows the network ones, but the inputs of these data are no quantities"
            )

    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        """R = 1ᵀ(∏|θ|)1: what an input of ones gives with all parameters positive, BatchNorm evaluating."""
        network.eval()
        ones = torch.ones(1, *task.data.shape, dtype=torch.float64, device=task.device)
        positive = {name: tensor.abs() for name, tensor in weights.items()}
        return saliency(lambda w: functional_call(network, w, ones).sum(), positive, task.layers.prunable)


PER_CLASS = "examples of each class to score on; where targets are numbers, ten times so many of all"


def enough(per_class: int, data: Data | None) -> None:
    """Refuse to score on more examples than there are; raises UserError."""
    if data is None:
        return
    targets = data.train.targets
    if targets.is_floating_point():
        most, rule = (
            len(targets) // 10,
            f"{len(targets)} training examples are enough for {len(targets) // 10}",
        )
    else:
        most = int(torch.bincount(targets, minlength=data.outputs).min())
        rule = f"some class has only {most}"
    demand(per_class <= most, "method.per_class", per_class, rule)


def examples(task: Task, seed: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Inputs float64 [N, *shape] and targets of training examples to score on, drawn anew for each seed."""
    data, targets = task.data, task.data.train.targets.cpu()
    chosen = torch.randperm(len(targets), generator=stream(seed, "examples"))
    if targets.is_floating_point():
        chosen = chosen[: 10 * per_class]
    else:
        chosen = torch.cat([chosen[targets[chosen] == k][:per_class] for k in range(data.outputs)])
    chosen = chosen.to(task.device)
    return data.prepare.exact(data.train.read(chosen)), data.train.targets[chosen]


@dataclass(frozen=True)
class FromData(AtInit):
    """Scores by the loss of a few training examples, not augmented.

    The network is in training mode, as in SNIP's and GraSP's own code: BatchNorm sees the batch. Deviation from
    Tanaka et al. 2020, whose code scores both in evaluation mode: there ResNet-20's ranks differ (rho 0.35, 0.02).
    """

    per_class: int = knob(10, at_least(1), PER_CLASS)

    def suits(self, goal: Goal, data: Data | None) -> None:
        enough(self.per_class, data)


@dataclass(frozen=True)
class SNIP(FromData):
    """Connection sensitivity (Lee et al. 2019, Algorithm 1); dividing by its sum would change no rank."""

    summary: ClassVar[str] = "at initialisation, prune what the loss feels least (Lee et al. 2019)"

    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        images, labels = examples(task, seed, self.per_class)

        def loss(w: Tree) -> Tensor:
            return task.goal.mean(functional_call(network, w, images), labels)

        return saliency(loss, weights, task.layers.prunable)


@dataclass(frozen=True)
class GraSP(FromData):
    """Gradient signal preservation (Wang et al. 2020, Algorithm 1).

    As in the authors' code on CIFAR: ten examples a class, and the loss is the sum over two halves of them,
    class by class, so that BatchNorm sees each half apart. Deviations: they draw dense layers anew for the
    scoring; here scores are of the weights that will be trained. Gradient and Hessian product are taken over the
    prunable weights alone, so that shortcuts, which they prune and ltx by default does not, have no part in them.
    """

    summary: ClassVar[str] = "at initialisation, keep what the gradient flows through (Wang et al. 2020)"

    temperature: float = knob(200.0, above(0), "what logits are divided by; 1 where outputs are no logits")

    def suits(self, goal: Goal, data: Data | None) -> None:
        super().suits(goal, data)
        rule = "outputs that are no logits are not divided; write method.temperature=1"
        demand(goal.takes == "classes" or self.temperature == 1, "method.temperature", self.temperature, rule)

    def score(self, task: Task, seed: int, network: nn.Module, weights: Tree) -> Tree:
        images, labels = examples(task, seed, self.per_class)

        def loss(w: Tree) -> Tensor:
            halves = zip(images.chunk(2), labels.chunk(2), strict=True)
            outputs = [(functional_call(network, w, x) / self.temperature, y) for x, y in halves]
            return torch.stack([task.goal.mean(logits, y) for logits, y in outputs]).sum()

        return flow(loss, weights, task.layers.prunable)
