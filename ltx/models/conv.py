"""Conv-2, Conv-4 and Conv-6: the VGG-like networks that Frankle & Carbin 2019 scaled down for CIFAR-10."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import nn

from ltx.knobs import knob, within
from ltx.models.base import ConvNet, Shape
from ltx.models.init import initialise


@dataclass(frozen=True)
class _Conv(ConvNet):
    """Pairs of 3x3 convolutions, a max pool after each pair, then 256, 256 and the classes (fig. 2)."""

    pairs: ClassVar[tuple[int, ...]]  # channels of each pair of convolutions

    dropout: float = knob(
        0.0,
        within(0, 1),
        "rate after each hidden dense layer; the paper's fig. 6 uses 0.5 and names no place",
    )

    def build(self, shape: Shape, outputs: int) -> nn.Sequential:
        """Convolutions keep the image's size, pools halve it; there is no BatchNorm."""
        shrink = 2 ** len(self.pairs)
        self.demand(shape, least=shrink)
        channels, height, width = shape
        layers: list[nn.Module] = []
        for wide in map(self.wide, self.pairs):
            for before in (channels, wide):
                layers += [nn.Conv2d(before, wide, 3, padding=1), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = wide
        layers.append(nn.Flatten())
        hidden = self.wide(256)
        for before, after in pairwise([channels * (height // shrink) * (width // shrink), hidden, hidden]):
            layers += [nn.Linear(before, after), nn.ReLU()]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return initialise(nn.Sequential(*layers, nn.Linear(hidden, outputs)))


class Conv2(_Conv):
    """Conv-2: 64, 64."""

    summary = "two convolutions, three dense layers (4,300,992 weights on CIFAR-10)"
    pairs = (64,)


class Conv4(_Conv):
    """Conv-4: 64, 64, 128, 128."""

    summary = "four convolutions, three dense layers (2,425,024 weights on CIFAR-10)"
    pairs = (64, 128)


class Conv6(_Conv):
    """Conv-6: 64, 64, 128, 128, 256, 256. Deviation: fig. 2 counts 1.7M weights; its layers sum to 2.3M."""

    summary = "six convolutions, three dense layers (2,261,184 weights on CIFAR-10)"
    pairs = (64, 128, 256)
