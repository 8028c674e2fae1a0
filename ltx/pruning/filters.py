"""How much each filter matters: one network's scores [channels] by group, those with the least go first.

A filter that several layers share, as in a residual stream, has the mean of its scores in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ltx.core.ticket import Tree
from ltx.pruning.channels import Group, Groups, is_depthwise

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [N, K], targets) to the loss of each example [N]."""


def by_weights(network: nn.Module, groups: Groups, one: Callable[[Tensor], Tensor]) -> Tree:
    """Scores from what makes a filter; `one` turns weights [filters, the rest] into scores [filters].

    Deviation from Li et al., who rank within a layer: divided by the layer's mean, so that layers compare.
    """
    found = {}
    for name, group in groups.items():
        parts = []
        for module, places in group.makers.items():
            weight = network.get_submodule(module).weight.detach().flatten(1)  # type: ignore[operator]
            scores = one(weight)
            parts.append((scores / scores.mean().clamp(min=1e-30))[places].mean(1))
        found[name] = torch.stack(parts).mean(0)
    return found


def distances(weight: Tensor) -> Tensor:
    """Summed distance of each filter from all others, least at the geometric median (FPGM: He et al. 2019)."""
    return torch.cdist(weight, weight).sum(1)


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda weight: weight.abs().sum(1),  # Li et al. 2017, section 3.1
    "l2": lambda weight: weight.norm(dim=1),
    "fpgm": distances,
}


def places_of(network: nn.Module, group: Group) -> dict[str, Tensor]:
    """Where a group's feature maps are seen: behind its BatchNorms if it has any, else behind its makers."""
    norms = {name.removesuffix(".weight"): places for name, places in group.scales.items()}
    makers = {
        n: p for n, p in group.makers.items() if isinstance(network.get_submodule(n), _ConvNd | nn.Linear)
    }
    return norms or makers


def observed(
    network: nn.Module, groups: Groups, inputs: Tensor, targets: Tensor, loss: Loss
) -> dict[str, tuple[Tensor, Tensor]]:
    """Feature maps and the loss's gradient by them, [N, outputs, positions] each, by module."""
    seen: Tree = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def keep(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
            output.retain_grad()
            seen[name] = output
            return output.clone()  # a ReLU may work in place on what follows

        return keep

    modules = {name for group in groups.values() for name in places_of(network, group)}
    hooks = [network.get_submodule(name).register_forward_hook(hook(name)) for name in modules]
    try:
        loss(network(inputs), targets).sum().backward()
    finally:
        for handle in hooks:
            handle.remove()
    return {name: (z.detach().flatten(2), grad_of(z).flatten(2)) for name, z in seen.items()}


def grad_of(z: Tensor) -> Tensor:
    return torch.zeros_like(z) if z.grad is None else z.grad


def by_maps(
    network: nn.Module, groups: Groups, chunks: list[tuple[Tensor, Tensor]], loss: Loss, kind: str
) -> Tree:
    """Scores from feature maps over all examples: taylor, taylor_signed or apoz."""
    totals: Tree = {}
    for inputs, targets in chunks:
        for name, (z, gradient) in observed(network, groups, inputs, targets, loss).items():
            if kind == "apoz":  # how often a map is above zero (Hu et al. 2016 count how often it is zero)
                part = (z > 0).double().mean(2).sum(0)
            else:
                change = (z * gradient).double().mean(2)  # [N, outputs]: what the loss does without the map
                part = (change.abs() if kind == "taylor" else change).sum(0)
            totals[name] = totals.get(name, 0) + part
    found = {}
    for name, group in groups.items():
        parts = [scaled(totals[m].abs(), kind)[p].mean(1) for m, p in places_of(network, group).items()]
        found[name] = torch.stack(parts).mean(0).float()
    return found


def scaled(scores: Tensor, kind: str) -> Tensor:
    """Taylor scores by their layer's l2 norm (Molchanov et al. 2017, equation 10); others as they are."""
    return scores / scores.norm().clamp(min=1e-30) if kind.startswith("taylor") else scores


MAPS = ("taylor", "taylor_signed", "apoz")
"""taylor: the mean over examples of |z ∂C/∂z| (Molchanov et al. 2017, equation 8). taylor_signed: the magnitude of
the sum over all examples, in which they may cancel, as Gildenblat's code has it."""


def filters(groups: Groups, network: nn.Module, prunable: set[str]) -> Groups:
    """The groups that convolutions make, whose weights may all be pruned and which something reads."""

    def whole(name: str) -> bool:
        layer = network.get_submodule(name)
        return isinstance(layer, _ConvNd) and not is_depthwise(layer)

    return {
        name: group
        for name, group in groups.items()
        if group.readers and group.weights <= prunable and any(whole(maker) for maker in group.makers)
    }
