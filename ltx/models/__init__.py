"""The networks ltx knows, by name."""

from ltx.models.base import Model, layer_kinds
from ltx.models.conv import Conv2, Conv4, Conv6
from ltx.models.foreign import Custom, TorchVision
from ltx.models.lenet import LeNet, LeNet5
from ltx.models.resnet import ResNet20, ResNet32, ResNet56, ResNet110
from ltx.models.skip import SkipMLP
from ltx.models.vgg import VGG8, VGG11, VGG13, VGG16, VGG19

__all__ = ["MODELS", "Model", "layer_kinds"]

MODELS: dict[str, type[Model]] = {
    "lenet": LeNet,
    "lenet5": LeNet5,
    "skip_mlp": SkipMLP,
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet56": ResNet56,
    "resnet110": ResNet110,
    "vgg8": VGG8,
    "vgg11": VGG11,
    "vgg13": VGG13,
    "vgg16": VGG16,
    "vgg19": VGG19,
    "torchvision": TorchVision,
    "custom": Custom,
}
