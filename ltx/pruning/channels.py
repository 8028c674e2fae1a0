"""Networks made physically smaller: which channels go together, and what is left without some of them.

Torch-Pruning's dependency graph (Fang et al. 2023) knows which tensors a channel runs through, residual sums,
flattened images and depthwise convolutions included; nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ltx.core.ticket import Tree
from ltx.errors import UserError
from ltx.models.base import tensors


@dataclass(frozen=True)
class Group:
    """Channels of several tensors that are cut together, as in all layers that feed one residual sum."""

    channels: int
    makers: tuple[str, ...]  # weights that have these channels as outputs
    scales: dict[str, Tensor]  # BatchNorm scales: the entries [channels, k] that belong to each channel

    def scale(self, weights: Tree) -> Tensor:
        """|γ| of every channel, the mean where several BatchNorms share it, [R, channels]."""
        return torch.stack(
            [weights[name].detach().abs()[:, entries].mean(2) for name, entries in self.scales.items()]
        ).mean(0)


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


def groups(network: nn.Module, shape: Iterable[int], prunable: Iterable[str]) -> dict[str, Group]:
    """The groups of channels that BatchNorm scales, by the module that first makes them.

    A group may be cut if all weights that make its channels are `prunable`; not if it takes part in a grouped
    convolution that is not depthwise, whose groups would have to stay equal, or has no scale, as the outputs.
    """
    graph, names = dependencies(network, shape), {m: name for name, m in network.named_modules()}
    found = {}
    for group in graph.get_all_groups(root_module_types=[_ConvNd, nn.Linear]):
        convolutions = [m for m in (item.dep.target.module for item in group.items) if isinstance(m, _ConvNd)]
        if any(1 < layer.groups < layer.out_channels for layer in convolutions):
            continue
        makers = [
            names[item.dep.target.module]
            for item in group.items
            if isinstance(item.dep.target.module, _ConvNd | nn.Linear)
            and graph.is_out_channel_pruning_fn(item.dep.handler)
        ]
        channels = len(group[0].idxs)
        scales = {
            f"{names[item.dep.target.module]}.weight": by_channel(item.idxs, item.root_idxs, channels)
            for item in group.items
            if isinstance(item.dep.target.module, _BatchNorm) and item.dep.target.module.affine
        }
        weights = tuple(dict.fromkeys(f"{name}.weight" for name in makers))
        if scales and set(weights) <= set(prunable):
            found[makers[0]] = Group(channels, weights, scales)
    return {name: found[name] for name in names.values() if name in found}  # in network order


def by_channel(entries: Iterable[int], channel: Iterable[int], channels: int) -> Tensor:
    """The entries of a tensor as [channels, k], ordered by the channel that each belongs to."""
    order = torch.tensor(list(channel)).argsort(stable=True)
    return torch.tensor(list(entries))[order].view(channels, -1)


def shrunk(network: nn.Module, shape: Iterable[int], kept: Tree) -> Shrunk:
    """The network with only the `kept` channels [channels] of every group; its values are of no account.

    The library cuts a network whose every number is its own place: what is left says where it came from.
    """
    device = next(network.parameters()).device
    graph = dependencies(network, shape)
    with torch.no_grad():
        for tensor in tensors(network).values():
            tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    for name, alive in kept.items():
        cut = (~alive).nonzero().flatten().tolist()
        if cut:
            layer = network.get_submodule(name)
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune, cut).prune()
    index = {name: tensor.detach().long().to(device) for name, tensor in tensors(network).items()}
    return Shrunk(network.float().train().to(device), index)


def dependencies(network: nn.Module, shape: Iterable[int]) -> Any:
    """Torch-Pruning's graph of a network, which is made float64 on the CPU: places are exact up to 2^53.

    Raises UserError for a network whose channels the library cannot follow, such as ShuffleNet's.
    """
    import torch_pruning  # half a second that only those pay who cut channels

    network.cpu().double().eval()
    blank = torch.zeros(1, *shape, dtype=torch.float64)
    try:
        return torch_pruning.DependencyGraph().build_dependency(network, example_inputs=blank)
    except Exception as error:  # whatever the library stumbles over
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"torch-pruning cannot follow this network's channels ({why})") from error


def masked(dense: Tree, parts: Iterable[Shrunk]) -> Tree:
    """Masks of the weights in `dense`, [R, *shape]: what each replicate's shrunk network has of them."""
    rows = []
    for shrunk in parts:
        nothing = {name: torch.zeros_like(tensor[:1], dtype=torch.bool) for name, tensor in dense.items()}
        alive = {name: torch.ones_like(shrunk.index[name], dtype=torch.bool)[None] for name in dense}
        rows.append(shrunk.put(alive, nothing))
    return {name: torch.cat([row[name] for row in rows]) for name in dense}
