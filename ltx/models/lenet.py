"""The LeNets: small networks for small grey images."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar

from torch import nn

from ltx.knobs import at_least, each, knob
from ltx.models.base import ConvNet, Model, Shape
from ltx.models.init import initialise


@dataclass(frozen=True)
class LeNet(Model):
    """LeNet-300-100, or any fully connected network (LeCun et al. 1998; Frankle & Carbin 2019, fig. 2)."""

    summary: ClassVar[str] = "fully connected, 300 and 100 hidden units (266,200 weights on MNIST)"

    hidden: list[int] = knob([300, 100], each(at_least(1)), "units in each hidden layer")

    def build(self, shape: Shape, outputs: int) -> nn.Sequential:
        """Flatten, then Linear layers with ReLU between them, and nothing else: the engine stacks these."""
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise([prod(shape), *self.hidden, outputs]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return initialise(nn.Sequential(*layers[:-1]))


@dataclass(frozen=True)
class LeNet5(ConvNet):
    """LeNet-5 as Caffe has it and the pruning papers (Han 2015, SNIP) use it, not the 61,000 weights of 1998.

    Only the hidden layer has a ReLU: the max pools are what is not linear about the convolutions.
    """

    summary: ClassVar[str] = (
        "two 5x5 convolutions and 500 hidden units, Caffe's form (430,500 weights on MNIST)"
    )

    def build(self, shape: Shape, outputs: int) -> nn.Sequential:
        """Two unpadded convolutions, each with a max pool of 2, then two dense layers."""
        self.demand(shape, least=16)
        first, second, hidden = map(self.wide, (20, 50, 500))
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in shape[1:])  # each convolution costs 4 pixels
        return initialise(
            nn.Sequential(
                nn.Conv2d(shape[0], first, 5),
                nn.MaxPool2d(2),
                nn.Conv2d(first, second, 5),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(second * rows * columns, hidden),
                nn.ReLU(),
                nn.Linear(hidden, outputs),
            )
        )
