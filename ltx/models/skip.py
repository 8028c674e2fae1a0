"""Fully connected networks with a direct way from every input to every output, as LassoNet needs."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from ltx.knobs import at_least, each, knob
from ltx.models.base import Model, Shape


class Skip(nn.Module):
    """x to skip(x) + layers(x): a linear map and, beside it, dense layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: list[int], outputs: int) -> None:
        super().__init__()
        self.skip = nn.Linear(inputs, outputs, bias=False)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise([inputs, *hidden, outputs]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [B, ...], flattened, to outputs [B, K]."""
        outputs: Tensor = self.skip(inputs.flatten(1)) + self.layers(inputs)
        return outputs


@dataclass(frozen=True)
class SkipMLP(Model):
    """LassoNet's network (Lemhadri et al. 2021, section 2), initialised as PyTorch does, as is theirs."""

    summary: ClassVar[str] = "fully connected, with a skip layer from the inputs to the outputs (LassoNet)"

    hidden: list[int] = knob([100], each(at_least(1), least=1), "units in each hidden layer")

    def build(self, shape: Shape, classes: int) -> Skip:
        """Inputs of any shape are flattened."""
        return Skip(prod(shape), list(self.hidden), classes)


def input_weights(network: nn.Module) -> tuple[str, ...]:
    """The weights [out, inputs] that read the network's inputs, where each input has a column of its own.

    The skip layer's first, if there is one; none for networks whose inputs are not read by dense layers.
    """
    if isinstance(network, Skip):
        return "skip.weight", "layers.1.weight"
    layers = [(name, layer) for name, layer in network.named_children() if not isinstance(layer, nn.Flatten)]
    if isinstance(network, nn.Sequential) and layers and isinstance(layers[0][1], nn.Linear):
        return (f"{layers[0][0]}.weight",)
    return ()
