"""What is to be learned: a network, its data, and the seeds of its replicates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from math import prod

import torch
from torch import nn

from ltx.core.goal import Classification, Goal
from ltx.core.ticket import Ticket, Tree
from ltx.data.base import Data
from ltx.errors import UserError, demand
from ltx.knobs import Knobs, knob
from ltx.models.base import Model, batchnorm_scales, layer_kinds, tensors
from ltx.models.pretrained import brought
from ltx.models.skip import input_weights
from ltx.streams import drawing


@dataclass(frozen=True)
class Prunable(Knobs):
    """Which weights may be pruned: kinds of layers, less the names that match a pattern.

    Biases and normalisation are never pruned (LTH section 1: "266K" weights are weight matrices alone).
    """

    prefix = "prunable."

    conv: bool = knob(True, None, "convolutions")
    dense: bool = knob(True, None, "dense layers but the last")
    output: bool = knob(True, None, "the last dense layer")
    shortcut: bool = knob(
        False,
        None,
        "1x1 convolutions of residual shortcuts (LTH Figure 2 leaves them alone; SynFlow, GraSP do not)",
    )
    skip: list[str] = knob([], None, "patterns of parameter names, as in layer1.* or *.conv1.weight")

    def names(self, kinds: dict[str, str]) -> tuple[str, ...]:
        """The prunable among the layers' weights, in network order."""
        for pattern in self.skip:
            demand(
                any(fnmatch(name, pattern) for name in kinds),
                "prunable.skip",
                pattern,
                f"it matches none of {', '.join(kinds)}",
            )
        return tuple(
            name
            for name, kind in kinds.items()
            if getattr(self, kind) and not any(fnmatch(name, p) for p in self.skip)
        )


@dataclass(frozen=True)
class Layers:
    """A network's layers without their values: all that can be checked before any data is touched."""

    shapes: dict[str, tuple[int, ...]]  # of every convolution's and dense layer's weights, prunable or not
    kinds: dict[str, str]  # conv | dense | output | shortcut
    prunable: tuple[str, ...]
    scales: dict[str, int] = field(
        default_factory=dict
    )  # channels of every BatchNorm that scales them and learns
    reading: tuple[str, ...] = ()  # weights with a column for each input, a skip layer's first
    fixed: frozenset[str] = frozenset()  # parameters and buffers that no ticket trains

    @classmethod
    def of(
        cls, network: nn.Module, rule: Prunable, output: str | None, fixed: frozenset[str] = frozenset()
    ) -> Layers:
        """`output`: the weight of the layer that gives the outputs, as a trial of the network has found it.

        What is `fixed` is not pruned either: nothing is learned there that could tell what to prune.
        """
        kinds = layer_kinds(network, output)
        prunable = tuple(name for name in rule.names(kinds) if name not in fixed)
        if not prunable:
            frozen = " and recipe.freeze leave" if fixed else " leaves"
            raise UserError(f"prunable.*{frozen} nothing to prune: the layers are {', '.join(kinds)}")
        shapes = {name: tuple(network.get_parameter(name).shape) for name in kinds}
        scales = {name: n for name, n in batchnorm_scales(network).items() if name not in fixed}
        return cls(shapes, kinds, prunable, scales, input_weights(network), fixed)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {name: prod(shape) for name, shape in self.shapes.items()}

    @property
    def total(self) -> int:
        """The denominator of every density: all weights, those of unpruned layers included (LTH Figure 2)."""
        return sum(self.sizes.values())

    @property
    def free(self) -> int:
        """Weights that may be pruned."""
        return sum(self.sizes[name] for name in self.prunable)


ENGINES = ("dense", "auto", "kernel", "csr")


@dataclass(frozen=True)
class Task:
    """A network to train on data, once for every seed."""

    model: Model
    data: Data
    layers: Layers
    seeds: tuple[int, ...]
    device: torch.device
    goal: Goal = field(default_factory=Classification)
    engine: str = "dense"  # one of ENGINES: how pruned layers may be computed

    @property
    def replicates(self) -> int:
        return len(self.seeds)

    def part(self, rows: range) -> Task:
        """The same for some seeds that stand side by side."""
        return replace(self, seeds=self.seeds[rows.start : rows.stop])

    def only(self, r: int) -> Task:
        """The same for one seed."""
        return self.part(range(r, r + 1))

    def network(self) -> nn.Module:
        """One network on the device, its values of no account."""
        with drawing(0):
            return self.model.build(self.data.shape, self.data.outputs).to(self.device)

    def initial(self, *purpose: object) -> Tree:
        """Freshly initialised weights and buffers [R, *shape], one stream per seed and purpose."""
        drawn = []
        for seed in self.seeds:
            with drawing(seed, "init", *purpose):
                network = self.model.build(self.data.shape, self.data.outputs)
            drawn.append({name: tensor.detach() for name, tensor in tensors(network).items()})
        return {name: torch.stack([tree[name] for tree in drawn]).to(self.device) for name in drawn[0]}

    def dense(self) -> Ticket:
        """The unpruned network: level 0. Raises UserError where a file of weights does not fit it."""
        weights = self.initial()
        for name, tensor in brought(self.model, self.network()).items():
            weights[name] = tensor.to(self.device).expand_as(weights[name]).clone()
        return Ticket(
            weights, {name: torch.ones_like(weights[name], dtype=torch.bool) for name in self.layers.prunable}
        )

    def alive(self, ticket: Ticket) -> torch.Tensor:
        """Weights alive in the whole network, unpruned layers included, [R] int64."""
        kept = ticket.kept()  # of layers that are never pruned, nothing
        whole = sum(size for name, size in self.layers.sizes.items() if name not in kept)
        return torch.stack([kept[name] for name in self.layers.sizes if name in kept]).sum(0) + whole

    def density(self, ticket: Ticket) -> torch.Tensor:
        """The fraction of the whole network's weights that is alive, [R] float64."""
        return self.alive(ticket).double() / self.layers.total

    def describe(self) -> str:
        kinds = Counter(self.layers.kinds.values())
        layers = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{self.layers.total:,} weights ({layers})"
