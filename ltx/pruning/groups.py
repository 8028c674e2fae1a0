"""Weights that a penalty draws to zero together: a neuron's, a filter's, an input's, or what leaves a neuron."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.core.task import Layers, Task
from ltx.core.ticket import Tree
from ltx.models.base import tensors
from ltx.pruning import channels
from ltx.pruning.prox import shrinkage

LEAVES = ("weight", "bias")


@dataclass(frozen=True)
class Groups:
    """`count` groups alike: group g is slice g of every part, a tensor's name and the axis that numbers groups."""

    name: str
    parts: tuple[tuple[str, int], ...]
    count: int
    size: int  # weights of one group

    def norms(self, weights: Tree) -> Tensor:
        """‖w_g‖ of every group, [R, count]."""
        squares = [weights[name].detach().square().movedim(axis + 1, 1) for name, axis in self.parts]
        return torch.stack([part.reshape(*part.shape[:2], -1).sum(2) for part in squares]).sum(0).sqrt()

    def scale(self, weights: Tree, factors: Tensor) -> None:
        """Multiply every group by its factor [R, count], in place."""
        for name, axis in self.parts:
            weights[name].mul_(along(factors, weights[name], axis))

    def shrink(self, weights: Tree, threshold: float) -> None:
        """The proximal step of threshold · Σ √|g| ‖w_g‖ (Yuan & Lin 2006), in place."""
        self.scale(weights, shrinkage(self.norms(weights), threshold * self.size**0.5))


def along(values: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Values [R, count] that broadcast over the tensor [R, *shape], one for each slice of its axis."""
    shape = [len(values)] + [1] * (tensor.dim() - 1)
    shape[axis + 1] = values.shape[1]
    return values.view(shape)


def grouped(name: str, parts: Iterable[tuple[str, int]], shapes: dict[str, torch.Size]) -> Groups:
    """The groups of some parts, whose axes are equally long."""
    parts = tuple(parts)
    count = shapes[parts[0][0]][parts[0][1]]
    return Groups(name, parts, count, sum(shapes[part].numel() for part, _ in parts) // count)


def neurons(task: Task, shapes: dict[str, torch.Size]) -> list[Groups]:
    """Incoming weights with their bias, and with scale and shift of the BatchNorm behind; no output is a neuron.

    Layers whose channels are added up, as in residual networks, share their groups.
    """
    found, taken = [], set[str]()
    if task.layers.scales:
        for name, group in channels.groups(task.network(), task.data.shape, task.layers.prunable).items():
            whole = [m for m, places in (group.makers | group.passers).items() if places.shape[1] == 1]
            parts = [(f"{m}.{leaf}", 0) for m in whole for leaf in LEAVES if f"{m}.{leaf}" in shapes]
            found.append(grouped(f"{name}.weight", parts, shapes))
            taken |= group.weights
    for name in task.layers.prunable:
        if name not in taken and task.layers.kinds[name] != "output" and name not in task.layers.reading[:-1]:
            layer = name.removesuffix(".weight")
            parts = [(f"{layer}.{leaf}", 0) for leaf in LEAVES if f"{layer}.{leaf}" in shapes]
            found.append(grouped(name, parts, shapes))
    return found


def inputs(task: Task, shapes: dict[str, torch.Size]) -> list[Groups]:
    """All weights that read one input, where dense layers read the inputs."""
    return [grouped("inputs", [(name, 1) for name in task.layers.reading], shapes)]


def outgoing(task: Task, shapes: dict[str, torch.Size]) -> list[Groups]:
    """All weights of a dense layer that read one neuron of the layer before."""
    return [
        grouped(name, [(name, 1)], shapes)
        for name in task.layers.prunable
        if task.layers.kinds[name] in ("dense", "output") and name not in task.layers.reading
    ]


OVER = {"neurons": neurons, "inputs": inputs, "outgoing": outgoing}


def fits(over: str, layers: Layers) -> bool:
    """Whether a network has such groups."""
    inner = [name for name in layers.prunable if layers.kinds[name] != "output"]
    reading = layers.reading if set(layers.reading).isdisjoint(layers.fixed) else ()
    return bool(reading if over == "inputs" else inner)


def groups_of(task: Task, over: str) -> list[Groups]:
    """The groups of a network, layer by layer."""
    learning = {name: t for name, t in tensors(task.network()).items() if name not in task.layers.fixed}
    shapes = {name: tensor.shape for name, tensor in learning.items()}
    return OVER[over](task, shapes)
