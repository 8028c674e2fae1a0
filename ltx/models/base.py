"""What is a network to ltx, and of which kind is each of its weights?"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ltx.errors import UserError, demand
from ltx.knobs import FILE, Knobs, above, knob

Shape = tuple[int, ...]  # of one input: channels, height and width of an image, columns of a table


@dataclass(frozen=True, kw_only=True)
class Model(Knobs, ABC):
    """One architecture family: its fields are the knobs a user may turn, and it builds the network."""

    prefix = "model."
    summary: ClassVar[str]  # one line for `ltx list`

    weights: str | None = knob(
        None,
        FILE,
        "trained tensors that every replicate begins with: a safetensors file, or a state dict of torch.save",
        result=False,
    )
    fresh: list[str] = knob(
        [], None, "patterns of tensors that are drawn by seed all the same, as in fc.*; with model.weights"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            not self.fresh or self.weights is not None,
            "model.fresh",
            self.fresh,
            "it goes with model.weights=FILE",
        )

    @abstractmethod
    def build(self, shape: Shape, outputs: int) -> nn.Module:
        """A network from inputs [B, *shape] to [B, outputs], freshly drawn from torch's global RNG."""

    def demand(self, shape: Shape, *, least: int) -> None:
        """Refuse what is no image, or has fewer than `least` pixels a side, which pooling would shrink to nothing."""
        if len(shape) != 3 or min(shape[1:]) < least:
            name, size = type(self).__name__.lower(), "x".join(map(str, shape))
            raise UserError(f"model {name} needs images of at least {least}x{least}, got {size}")


@dataclass(frozen=True)
class ConvNet(Model):
    """A network with channels, which one knob multiplies."""

    width: float = knob(
        1.0, above(0), "multiplies the channels (and hidden units) of every layer but the output"
    )

    def wide(self, channels: int) -> int:
        """So many channels at width 1, at this width; at least one."""
        return max(1, round(channels * self.width))


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """All that a network's outputs depend on besides its code: its parameters and buffers, each once.

    By its first name, in the order of `state_dict`: a tensor that is tied or belongs to a module used twice has
    no second name here, and buffers that are not persistent are there like all others.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in network.named_modules():
        for own in (module.named_parameters, module.named_buffers):
            for leaf, tensor in own(recurse=False, remove_duplicate=False):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{path}.{leaf}" if path else leaf] = tensor
    return found


@torch.no_grad()
def filled(network: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """The network with these values of its tensors, copied into it."""
    for name, tensor in tensors(network).items():
        tensor.copy_(values[name])
    return network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards each module in the mode that it was in.

    A module that its builder has put into evaluation mode, as a frozen BatchNorm, so stays in it for training.
    """
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def layer_kinds(network: nn.Module, output: str | None) -> dict[str, str]:
    """Each convolution or dense weight's parameter name, in network order, and its kind.

    The kind is "conv", "dense", "output" (the weight of that name) or "shortcut" (a 1x1 convolution whose path
    says shortcut or downsample, as in residual networks). Layers are known by module type; attention's projections
    are dense. Biases and normalisation never appear, nor do embeddings, recurrent layers or reparametrised
    weights. A tied weight appears once; a network that ends in a convolution has no output.
    """
    kinds = {}
    for name, _ in network.named_parameters():
        path, _, leaf = name.rpartition(".")
        layer = network.get_submodule(path)
        if isinstance(layer, _ConvNd) and leaf == "weight":
            residual = "shortcut" in path or "downsample" in path
            kinds[name] = "shortcut" if residual and set(layer.kernel_size) == {1} else "conv"
        elif isinstance(layer, nn.Linear) and leaf == "weight":
            kinds[name] = "output" if name == output else "dense"
        elif isinstance(layer, nn.MultiheadAttention) and leaf.endswith("proj_weight"):
            kinds[name] = "dense"
    return kinds


def batchnorm_scales(network: nn.Module) -> dict[str, int]:
    """Each BatchNorm scale's parameter name, in network order, and its channels."""
    return {
        f"{name}.weight": layer.num_features
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and layer.affine
    }
