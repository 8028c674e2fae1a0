"""Networks made physically smaller: which channels go together, and what is left without some of them.

Torch-Pruning's dependency graph (Fang et al. 2023) knows which tensors a channel runs through, residual sums,
flattened images and depthwise convolutions included; nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ltx.core.ticket import Tree
from ltx.errors import UserError
from ltx.models.base import tensors

Places = dict[str, Tensor]
"""By module, which of its outputs or inputs belong to each channel of a group, [channels, k]."""


@dataclass(frozen=True)
class Group:
    """Channels of several layers that are cut together, as in all layers that feed one residual sum."""

    channels: int
    makers: Places = field(
        default_factory=dict
    )  # outputs of the convolutions and dense layers that make them
    scales: Places = field(default_factory=dict)  # by parameter: BatchNorm scales
    passers: Places = field(default_factory=dict)  # of BatchNorms, PReLUs and depthwise convolutions
    readers: Places = field(default_factory=dict)  # inputs of the layers that read them

    @property
    def weights(self) -> set[str]:
        """The weights that have these channels as outputs."""
        return {f"{name}.weight" for name in self.makers}

    def scale(self, weights: Tree) -> Tensor:
        """|γ| of every channel, the mean where several BatchNorms share it, [R, channels]."""
        return torch.stack(
            [weights[name].detach().abs()[:, entries].mean(2) for name, entries in self.scales.items()]
        ).mean(0)


Groups = dict[str, Group]
"""By the module that first makes a group's channels, in network order."""


@dataclass(frozen=True)
class Shrunk:
    """A network without some channels, and where each of its numbers lies in the whole network."""

    network: nn.Module
    index: Tree  # int64, by tensor and of its shape here: places in the whole, flattened tensor

    def take(self, tree: Tree) -> Tree:
        """What is left of the whole network's tensors, [R, *shape] each."""
        return {name: t.reshape(len(t), -1)[:, self.index[name]] for name, t in tree.items()}

    def put(self, tree: Tree, into: Tree) -> Tree:
        """The whole network's tensors: `into` where channels were cut, `tree` where they were not."""
        whole = {name: tensor.clone() for name, tensor in into.items()}
        for name, tensor in tree.items():
            whole[name].view(len(tensor), -1)[:, self.index[name].flatten()] = tensor.reshape(len(tensor), -1)
        return whole


# -- which channels go together


def groups(network: nn.Module, shape: Iterable[int], prunable: Iterable[str]) -> Groups:
    """The groups of channels that BatchNorm scales and all of whose makers' weights are `prunable`."""
    may = set(prunable)
    return {
        name: group
        for name, group in bundles(network, shape).items()
        if group.scales and group.readers and group.weights <= may
    }


def bundles(network: nn.Module, shape: Iterable[int]) -> Groups:
    """All groups of channels that can be cut, the outputs (which nothing reads) among them.

    Not those that take part in a grouped convolution that is not depthwise, whose groups would have to stay
    equal, or in a layer that mixes them without weights of its own, as LayerNorm. The network is made float64.
    Raises UserError for a network whose channels Torch-Pruning cannot follow, such as ShuffleNet's.
    """
    try:
        return followed(network, shape)
    except Exception as error:  # whatever the library stumbles over
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"torch-pruning cannot follow this network's channels ({why})") from error


def followed(network: nn.Module, shape: Iterable[int]) -> Groups:
    """The same; raises whatever the library does."""
    import torch_pruning  # half a second that only those pay who ask

    network.cpu().double().eval()
    blank, names = torch.zeros(1, *shape, dtype=torch.float64), {m: n for n, m in network.named_modules()}
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=blank)
    found = {}
    for items in graph.get_all_groups(root_module_types=[_ConvNd, nn.Linear]):
        if all(cuttable(item.dep.target.module) for item in items):
            group = Group(len(items[0].idxs))
            for item in items:
                join(group, item, names, graph)
            found[next(iter(group.makers))] = group
    return {name: found[name] for name in names.values() if name in found}


def join(group: Group, item: Any, names: Mapping[nn.Module, str], graph: Any) -> None:
    """Add what Torch-Pruning says of one layer to a group."""
    layer, handler = item.dep.target.module, item.dep.handler
    if layer not in names:  # an operation without weights
        return
    name = names[layer]
    places = by_channel(item.idxs, item.root_idxs, group.channels)
    if isinstance(layer, _BatchNorm) and layer.affine:
        group.scales[f"{name}.weight"] = places
    if passes(layer):
        part = group.passers
    else:
        part = group.makers if graph.is_out_channel_pruning_fn(handler) else group.readers
    part[name] = torch.cat([part[name], places], 1) if name in part and part is group.readers else places


def passes(layer: nn.Module) -> bool:
    """Whether a layer treats every channel by itself."""
    return not isinstance(layer, _ConvNd | nn.Linear) or is_depthwise(layer)


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def cuttable(layer: nn.Module) -> bool:
    """Whether channels of a layer, or of an operation in Torch-Pruning's graph, can be cut one by one."""
    if isinstance(layer, _ConvNd):
        return layer.groups == 1 or is_depthwise(layer)
    operation = type(layer).__module__ == "torch_pruning.ops" and not isinstance(layer, nn.MultiheadAttention)
    return operation or isinstance(layer, nn.Linear | _BatchNorm | nn.PReLU)


def by_channel(entries: Iterable[int], channel: Iterable[int], channels: int) -> Tensor:
    """The entries of a tensor as [channels, k], ordered by the channel that each belongs to."""
    order = torch.tensor(list(channel)).argsort(stable=True)
    return torch.tensor(list(entries))[order].view(channels, -1)


# -- what is left without some


def shrunk(network: nn.Module, shape: Iterable[int], kept: Tree) -> Shrunk:
    """The network with only the `kept` channels [channels] of every group; its values are of no account.

    What is cut is a network whose every number is its own place: what is left says where it came from.
    """
    device = next(network.parameters()).device
    every = bundles(network, shape)  # float64 from here on: places are exact up to 2^53
    with torch.no_grad():
        for tensor in tensors(network).values():
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    cut(network, every, kept)
    index = {name: tensor.detach().long().to(device) for name, tensor in tensors(network).items()}
    return Shrunk(network.float().train().to(device), index)


def cut(network: nn.Module, groups: Groups, kept: Tree) -> None:
    """Take all but the `kept` channels [channels] of each group out of a network, in place."""
    stay: dict[str, list[Tensor | None]] = {}  # by module: its outputs and inputs that stay, where any go
    for name, alive in kept.items():
        group = groups[name]
        for side, part in enumerate((group.makers | group.passers, group.readers)):
            for module, places in part.items():
                layer = network.get_submodule(module)
                sides = stay.setdefault(module, [None, None])
                sides[side] = without(sides[side], places[~alive], width(layer, side))
    for module, (outputs, inputs) in stay.items():
        trim(network.get_submodule(module), outputs, inputs)


def without(stay: Tensor | None, gone: Tensor, width: int) -> Tensor:
    """Which of `width` entries stay once `gone` went too."""
    stay = torch.ones(width, dtype=torch.bool) if stay is None else stay
    stay[gone.flatten()] = False
    return stay


def width(layer: Any, side: int) -> int:
    """How many outputs (0) or inputs (1) a layer has."""
    if isinstance(layer, _ConvNd):
        return (layer.out_channels, layer.in_channels)[side]
    if isinstance(layer, nn.Linear):
        return (layer.out_features, layer.in_features)[side]
    return layer.num_features if isinstance(layer, _BatchNorm) else layer.num_parameters


def trim(layer: Any, outputs: Tensor | None, inputs: Tensor | None) -> None:
    """Take outputs and inputs [width] bool out of one layer's tensors and from what it says of itself."""
    if outputs is not None:
        for key, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if tensor.dim() and not (isinstance(layer, nn.PReLU) and tensor.numel() == 1):
                dim = 1 if key == "weight" and getattr(layer, "transposed", False) else 0
                replace(layer, key, tensor, outputs, dim)
    if inputs is not None:
        replace(layer, "weight", layer.weight, inputs, 0 if getattr(layer, "transposed", False) else 1)
    counts: list[tuple[Tensor | None, tuple[str, ...]]] = [
        (outputs, ("out_channels", "out_features", "num_features")),
        (inputs, ("in_channels", "in_features")),
    ]
    if is_depthwise(layer) and outputs is not None:
        layer.in_channels = layer.groups = int(outputs.sum())
    for stay, names in counts:
        for name in names:
            if stay is not None and hasattr(layer, name):
                setattr(layer, name, int(stay.sum()))


def replace(layer: nn.Module, key: str, tensor: Tensor, stay: Tensor, dim: int) -> None:
    """Put what stays of a parameter or buffer along `dim` in its place."""
    left = tensor.detach().index_select(dim, stay.nonzero().flatten())
    setattr(layer, key, nn.Parameter(left) if isinstance(tensor, nn.Parameter) else left)


def masked(dense: Tree, parts: Iterable[Shrunk]) -> Tree:
    """Masks of the weights in `dense`, [R, *shape]: what each replicate's shrunk network has of them."""
    rows = []
    for shrunk in parts:
        nothing = {name: torch.zeros_like(tensor[:1], dtype=torch.bool) for name, tensor in dense.items()}
        alive = {name: torch.ones_like(shrunk.index[name], dtype=torch.bool)[None] for name in dense}
        rows.append(shrunk.put(alive, nothing))
    return {name: torch.cat([row[name] for row in rows]) for name in dense}
