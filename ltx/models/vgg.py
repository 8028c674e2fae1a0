"""VGG for small images: convolutions with BatchNorm and one dense layer (Frankle & Carbin 2019, fig. 2)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ltx.models.base import Shape
from ltx.models.init import Normalised, initialise


@dataclass(frozen=True)
class _VGG(Normalised):
    """Stages of 3x3 convolutions with a max pool between stages, a mean over the image, a dense layer.

    Convolutions have no bias (open_lth keeps one): BatchNorm, which follows, would subtract it again.
    """

    repeats: ClassVar[tuple[int, ...]]  # convolutions in each of at most five stages

    def build(self, shape: Shape, outputs: int) -> nn.Sequential:
        """The four pools between five stages shrink the image sixteenfold."""
        self.demand(shape, least=2 ** (len(self.repeats) - 1))
        layers: list[nn.Module] = []
        channels = shape[0]
        for repeats, wide in zip(self.repeats, map(self.wide, (64, 128, 256, 512, 512)), strict=False):
            layers += [nn.MaxPool2d(2)] if layers else []
            for before in [channels, *[wide] * (repeats - 1)]:
                layers += [nn.Conv2d(before, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)
        return initialise(nn.Sequential(*layers, *head), self.init, self.bn_scale)


class VGG8(_VGG):
    """VGG-8, for images too small for five stages: three, and as few layers as show how they are pruned."""

    summary = "five convolutions with BatchNorm in three stages, for small images"
    repeats = (1, 2, 2)


class VGG11(_VGG):
    """VGG-11: eight convolutions, where ImageNet's has three dense layers more."""

    summary = "eight convolutions with BatchNorm (9,222,848 weights on CIFAR-10)"
    repeats = (1, 1, 2, 2, 2)


class VGG13(_VGG):
    """VGG-13: ten convolutions."""

    summary = "ten convolutions with BatchNorm (9,407,168 weights on CIFAR-10)"
    repeats = (2, 2, 2, 2, 2)


class VGG16(_VGG):
    """VGG-16: thirteen convolutions."""

    summary = "thirteen convolutions with BatchNorm (14,715,584 weights on CIFAR-10)"
    repeats = (2, 2, 3, 3, 3)


class VGG19(_VGG):
    """VGG-19: sixteen convolutions."""

    summary = "sixteen convolutions with BatchNorm (20,024,000 weights on CIFAR-10)"
    repeats = (2, 2, 4, 4, 4)
