"""The networks ltx knows, by name."""

from importlib import metadata

from ltx.errors import UserError
from ltx.models.base import Model, layer_kinds, unknown
from ltx.models.conv import Conv2, Conv4, Conv6
from ltx.models.foreign import Custom, TorchVision, load
from ltx.models.lenet import LeNet, LeNet5
from ltx.models.resnet import ResNet20, ResNet32, ResNet56, ResNet110
from ltx.models.vgg import VGG11, VGG13, VGG16, VGG19

__all__ = ["MODELS", "Model", "entry_points", "find", "layer_kinds"]

MODELS: dict[str, type[Model]] = {
    "lenet": LeNet,
    "lenet5": LeNet5,
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet56": ResNet56,
    "resnet110": ResNet110,
    "vgg11": VGG11,
    "vgg13": VGG13,
    "vgg16": VGG16,
    "vgg19": VGG19,
    "torchvision": TorchVision,
    "custom": Custom,
}


def entry_points() -> dict[str, metadata.EntryPoint]:
    """What installed packages offer in the entry point group "ltx.models", by name and not yet imported."""
    return {entry.name: entry for entry in metadata.entry_points(group="ltx.models")}


def find(name: str) -> type[Model]:
    """The model called `name`: one of ours, else one of an installed package, which is then imported."""
    if name in MODELS:
        return MODELS[name]
    offered = entry_points()
    if name not in offered:
        raise unknown("model", name, {*MODELS, *offered})
    model = load("model", offered[name])
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise UserError(f"model {name!r} ({offered[name].value}) must be a subclass of ltx.models.Model")
    return model
