"""ResNets for small images (He et al. 2016, section 4.2); the LTH paper calls ResNet-20 ResNet-18."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from ltx.models.base import Shape
from ltx.models.init import Normalised, initialise


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        # Deviation from He et al., who pad with zeros on CIFAR; the lottery ticket papers project.
        projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(*projection if stride > 1 else ())

    def forward(self, images: Tensor) -> Tensor:
        hidden = relu(self.bn1(self.conv1(images)))
        return relu(self.bn2(self.conv2(hidden)) + self.shortcut(images))


@dataclass(frozen=True)
class _ResNet(Normalised):
    """A 3x3 convolution, then stages of 16, 32 and 64 channels, a mean over the image, a dense layer."""

    depth: ClassVar[int]  # layers with weights, shortcuts not counted: 6 blocks + 2

    def build(self, shape: Shape, outputs: int) -> nn.Sequential:
        """The second and third stages halve the image; any size will do."""
        self.demand(shape, least=1)
        first, second, third = map(self.wide, (16, 32, 64))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            stem=nn.Sequential(
                nn.Conv2d(shape[0], first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
            ),
            stage1=self._stage(first, first, stride=1),
            stage2=self._stage(first, second, stride=2),
            stage3=self._stage(second, third, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            output=nn.Linear(third, outputs),
        )
        return initialise(nn.Sequential(layers), self.init, self.bn_scale)

    def _stage(self, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
        blocks = (self.depth - 2) // 6
        rest = (Block(outputs, outputs, stride=1) for _ in range(blocks - 1))
        return nn.Sequential(Block(inputs, outputs, stride), *rest)


class ResNet20(_ResNet):
    """ResNet-20: three blocks a stage; "ResNet-18" in Frankle & Carbin 2019."""

    summary = 'residual, 20 layers, the papers\' "ResNet-18" (270,896 weights on CIFAR-10)'
    depth = 20


class ResNet32(_ResNet):
    """ResNet-32: five blocks a stage."""

    summary = "residual, 32 layers (464,432 weights on CIFAR-10)"
    depth = 32


class ResNet56(_ResNet):
    """ResNet-56: nine blocks a stage."""

    summary = "residual, 56 layers (851,504 weights on CIFAR-10)"
    depth = 56


class ResNet110(_ResNet):
    """ResNet-110: eighteen blocks a stage."""

    summary = "residual, 110 layers (1,722,416 weights on CIFAR-10)"
    depth = 110
