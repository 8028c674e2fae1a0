"""A network as a list of operations, if it is surely nothing but those that are known here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from ltx.engine.executors.stacked import ordinary, plain
from ltx.models.resnet import Block

CONTAINERS = {nn.Sequential, Block}
MODULES = {
    nn.Conv2d: "product",
    nn.Linear: "product",
    nn.BatchNorm2d: "norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.AdaptiveAvgPool2d: "mean",
    nn.Flatten: "flatten",
}


Shape = tuple[int, int, int]
"""Channels, height and width."""


@dataclass(frozen=True)
class Node:
    """One operation."""

    kind: str  # input, product, norm, relu, add, pool, mean or flatten
    inputs: tuple[int, ...]  # places in the list of what it reads
    module: nn.Module | None = None
    name: str = ""  # the module's, in the network


def read(network: nn.Module) -> list[Node] | None:
    """The operations in the order in which they run, the input first; None if anything is not known.

    Modules count by their exact types, and a container of ours or torch's has no other forward than its own.
    Not by torch.fx, which while it traces patches what every other thread's networks call.
    """
    if not all(known(module) for module in network.modules()):
        return None
    parameters = list(network.parameters())
    if not all(ordinary(parameters)) or len(parameters) != len(
        list(network.named_parameters(remove_duplicate=False))
    ):
        return None
    nodes = [Node("input", ())]
    follow(network, "", 0, nodes)
    return nodes


def follow(module: nn.Module, name: str, place: int, nodes: list[Node]) -> int:
    """Append what a module does with the value at a place; where its own value then is."""
    match module:
        case nn.Sequential():
            for child, part in module._modules.items():  # a module that stands there twice runs twice
                assert part is not None
                place = follow(part, f"{name}.{child}".lstrip("."), place, nodes)
            return place
        case Block():
            first = follow(
                module.bn1, f"{name}.bn1", follow(module.conv1, f"{name}.conv1", place, nodes), nodes
            )
            hidden = appended(nodes, Node("relu", (first,)))
            second = follow(module.conv2, f"{name}.conv2", hidden, nodes)
            second = follow(module.bn2, f"{name}.bn2", second, nodes)
            both = (second, follow(module.shortcut, f"{name}.shortcut", place, nodes))
            return appended(nodes, Node("relu", (appended(nodes, Node("add", both)),)))
    return appended(nodes, Node(MODULES[type(module)], (place,), module, name))


def appended(nodes: list[Node], node: Node) -> int:
    """The place of a node at the end of the list."""
    nodes.append(node)
    return len(nodes) - 1


def known(module: nn.Module) -> bool:
    """Whether a module is one of those that are written out, in a form that is."""
    if not plain(module, type(module)):
        return False
    match module:
        case nn.Conv2d():
            shapes = (module.kernel_size, module.stride, module.padding)
            square = all(isinstance(shape, tuple) and len(set(shape)) == 1 for shape in shapes)
            usual = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
            return type(module) is nn.Conv2d and square and usual
        case nn.BatchNorm2d():
            return module.affine and module.track_running_stats and module.momentum is not None
        case nn.MaxPool2d():
            options = (module.padding, module.dilation, module.ceil_mode, module.return_indices)
            return (
                module.kernel_size == module.stride
                and options == (0, 1, False, False)
                and isinstance(module.stride, int)
            )
        case nn.AdaptiveAvgPool2d():
            return module.output_size in (1, (1, 1))
        case nn.Flatten():
            return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in CONTAINERS | set(MODULES)


def as_image(shape: Sequence[int]) -> Shape:
    """A shape of inputs as channels, height and width: one that is none has a channel for every number."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return prod(shape), 1, 1


def shapes(nodes: list[Node], shape: Shape) -> list[Shape]:
    """Channels, height and width of what each operation makes of images of a shape."""
    found: list[Shape] = []
    for node in nodes:
        channels, height, width = found[node.inputs[0]] if node.inputs else shape
        match node.module:
            case nn.Conv2d():
                kernel, stride, padding = form(node.module)
                height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
                found.append((node.module.out_channels, height, width))
            case nn.Linear():
                found.append((node.module.out_features, 1, 1))
            case nn.MaxPool2d():
                found.append((channels, height // window(node.module), width // window(node.module)))
            case nn.AdaptiveAvgPool2d():
                found.append((channels, 1, 1))
            case nn.Flatten():
                found.append((channels * height * width, 1, 1))
            case _:
                found.append((channels, height, width))
    return found


def form(module: nn.Module | None) -> tuple[int, int, int]:
    """Kernel, stride and padding; a dense layer is a convolution of 1x1."""
    if not isinstance(module, nn.Conv2d):
        return 1, 1, 0
    return module.kernel_size[0], module.stride[0], int(module.padding[0])


def window(module: nn.MaxPool2d) -> int:
    assert isinstance(module.kernel_size, int)
    return module.kernel_size
