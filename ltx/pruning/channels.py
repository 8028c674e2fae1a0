"""Networks made physically smaller: which channels go together, and what is left without some of them.

Torch-Pruning's dependency graph (Fang et al. 2023) knows which tensors a channel runs through, residual sums,
flattened images and depthwise convolutions included; nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ltx.core.ticket import Tree
from ltx.errors import UserError
from ltx.models.base import evaluating, filled, tensors
from ltx.plugins import told
from ltx.streams import drawing

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
    with drawing(0, "groups"):
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
    trained = isinstance(tensor, nn.Parameter)
    setattr(layer, key, nn.Parameter(left, requires_grad=tensor.requires_grad) if trained else left)


def masked(dense: Tree, parts: Iterable[Shrunk]) -> Tree:
    """Masks of the weights in `dense`, [R, *shape]: what each replicate's shrunk network has of them."""
    rows = []
    for shrunk in parts:
        nothing = {name: torch.zeros_like(tensor[:1], dtype=torch.bool) for name, tensor in dense.items()}
        alive = {name: torch.ones_like(shrunk.index[name], dtype=torch.bool)[None] for name in dense}
        rows.append(shrunk.put(alive, nothing))
    return {name: torch.cat([row[name] for row in rows]) for name in dense}


# -- whether it is the same network


def tried(build: Callable[[], nn.Module], shape: Iterable[int], groups: Groups) -> None:
    """Cut half of all channels for a trial, and compare with the whole network in which nothing reads them.

    A network whose channels run where the library does not follow would be cut into another one. Raises
    UserError.
    """
    kept = {name: torch.arange(group.channels) % 2 == 0 for name, group in groups.items()}
    with drawing(0, "trial cut"):
        whole = build().cpu().double()
        values = {name: drawn(tensor)[None] for name, tensor in tensors(whole).items()}
        images = torch.rand(2, *shape, dtype=torch.float64)
        try:
            small = shrunk(build(), shape, kept)
            layers = {name: tensor for name, tensor in values.items() if tensor.dim() > 2}
            silent = values | {name: layers[name] * alive for name, alive in masked(layers, [small]).items()}
            parts = (whole, silent), (small.network.double(), small.take(values))
            one, other = (outputs(filled(network, only(tree)), images) for network, tree in parts)
        except Exception as error:  # whatever a network says that is wired otherwise
            raise UserError(
                f"the network cannot be made smaller: without some channels, {told(error)}"
            ) from error
    apart = float((one - other).abs().max() / one.abs().max())
    if not apart < 1e-6:
        raise UserError(
            "the network cannot be made smaller: torch-pruning does not follow all that its channels run through "
            f"(outputs differ by {apart:.1%}); prune weights instead, as method=imp does"
        )


def drawn(tensor: Tensor) -> Tensor:
    """Values for a trial: weights as they are; no scale, shift or statistic may be trivial."""
    weight = tensor.dim() > 1 or not tensor.is_floating_point()
    return tensor.detach().clone() if weight else torch.rand_like(tensor) + 0.5


def only(tree: Tree) -> Tree:
    """The one replicate of a stack, without its axis."""
    return {name: tensor[0] for name, tensor in tree.items()}


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images in evaluation."""
    with drawing(0, "outputs"), evaluating(network):
        logits: Tensor = network(images)
        return logits
