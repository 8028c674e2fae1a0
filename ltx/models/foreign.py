"""Networks that others wrote: torchvision's, and the user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ltx.errors import UserError, unknown
from ltx.knobs import IMPORTED, knob
from ltx.models.base import Model, Shape, evaluating
from ltx.plugins import load_path, told


@dataclass(frozen=True)
class TorchVision(Model):
    """A torchvision classifier, untrained; its first convolution and last layer are fitted to the dataset."""

    summary: ClassVar[str] = "any torchvision classifier by name, such as model=torchvision:mobilenet_v2"

    arch: str = knob("resnet18", None, "as in torchvision.models.list_models()")

    def __post_init__(self) -> None:
        super().__post_init__()
        from torchvision import models  # costs more than a second, so only whoever asks pays

        known = models.list_models(module=models)
        if self.arch not in known:
            raise unknown("model.arch", self.arch, known)

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        """Initialised as torchvision does; a first convolution refitted to the channels, as torch does."""
        from torchvision import models

        self.demand(shape, least=1)
        channels, height, width = shape
        one_output = {"aux_logits": False, "init_weights": True}  # unset, init_weights would warn
        options: dict[str, dict[str, Any]] = {
            "googlenet": one_output,
            "inception_v3": one_output,
            "maxvit_t": {"input_size": (height, width)},
            **{name: {"image_size": height} for name in models.list_models(include="vit_*")},
        }

        def make() -> nn.Module:
            network: nn.Module = models.get_model(
                self.arch, weights=None, num_classes=outputs, **options.get(self.arch, {})
            )
            first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
            if first.in_channels != channels:
                first.in_channels = channels
                first.weight = nn.Parameter(torch.empty(first.out_channels, channels, *first.kernel_size))
                first.reset_parameters()
            return network

        return tried(make, f"model.arch={self.arch}", shape, outputs)


@dataclass(frozen=True)
class Custom(Model):
    """The user's own network, made by a function of (shape, outputs)."""

    summary: ClassVar[str] = "your own network: model.path=package.module:function"

    path: str = knob("", IMPORTED, "package.module:function, found from the working directory too")

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        """Whatever the function returns, once it has turned inputs into outputs."""
        function = load_path("model.path", self.path)
        return tried(lambda: function(shape, outputs), f"model.path={self.path}", shape, outputs)


def tried(make: Callable[[], nn.Module], key: str, shape: Shape, outputs: int) -> nn.Module:
    """A made network, in training mode, after it has turned two blank inputs into two rows of outputs."""
    size = "x".join(map(str, shape))
    try:
        network = make()
        if not network.training:
            network.train()  # all of it; where only some of its modules are in evaluation mode, they stay so
        with torch.no_grad(), evaluating(network):
            logits = network(torch.zeros(2, *shape))
    except Exception as error:  # whatever a foreign network raises
        raise UserError(f"{key} cannot be built for inputs of {size}: {told(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, outputs):
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{key} must turn inputs [2, {size}] into [2, {outputs}], got {given}")
    return network
