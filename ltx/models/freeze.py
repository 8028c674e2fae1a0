"""Layers that stay as they are while others are trained."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

from torch import Tensor, nn

from ltx.errors import unknown
from ltx.models.base import tensors


def matching(network: nn.Module, patterns: Iterable[str], key: str) -> list[nn.Module]:
    """The modules whose path fits a pattern, and all below them; raises UserError for a pattern that fits none."""
    paths = {path: module for path, module in network.named_modules() if path}
    found: dict[nn.Module, None] = {}
    for pattern in patterns:
        fitting = [module for path, module in paths.items() if fnmatch(path, pattern)]
        if not fitting:
            raise unknown(key, pattern, paths)
        found |= {below: None for module in fitting for below in module.modules()}
    return list(found)


def own_tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def fixed(network: nn.Module, patterns: Iterable[str], key: str = "recipe.freeze") -> frozenset[str]:
    """The names of the parameters and buffers of what the patterns freeze; raises UserError."""
    there = {id(tensor) for module in matching(network, patterns, key) for tensor in own_tensors(module)}
    return frozenset(name for name, tensor in tensors(network).items() if id(tensor) in there)


def freeze(network: nn.Module, patterns: Iterable[str]) -> nn.Module:
    """The network with what the patterns name as it is from now on, in place: no gradient, so no decay or momentum.

    What keeps statistics, as BatchNorm does, is in evaluation mode; what only draws, as dropout, goes on drawing.
    """
    for module in matching(network, patterns, "recipe.freeze"):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if list(module.buffers(recurse=False)):
            module.training = False
    return network
