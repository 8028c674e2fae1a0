"""A network is tried once before it is trained: what would fail, or mislead, after hours is told in one line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ltx.errors import UserError
from ltx.models.base import Shape, evaluating, tensors
from ltx.plugins import told


@torch.enable_grad()  # whatever the caller has switched off
def tried(network: nn.Module, shape: Shape, classes: int, batch_size: int) -> str | None:
    """One small batch forward and back as training does it, and forward as evaluation does.

    Returns the name of the output layer's weight: of the dense layer that is executed last, wherever it was
    defined; None where a convolution comes after. Raises UserError.
    """
    apart(network)
    batch = torch.zeros(min(2, batch_size), *shape)
    try:
        called = executed(network, batch)
        outputs = network(batch)
        checked(outputs, batch, classes, "in training")
        outputs.square().sum().backward()
        with torch.no_grad(), evaluating(network):
            checked(network(batch), batch, classes, "in evaluation")
    except UserError:
        raise
    except Exception as error:  # whatever a foreign network raises
        key = "recipe.batch_size=1" if batch_size == 1 else "model"
        raise UserError(f"{key}: the network cannot be trained: {told(error)}") from error
    if not called or not isinstance(called[-1], nn.Linear):
        return None
    names = {id(tensor): name for name, tensor in tensors(network).items()}
    return names.get(id(called[-1].weight))  # none of a reparametrised layer


def executed(network: nn.Module, batch: Tensor) -> list[nn.Module]:
    """Convolutions and dense layers in the order in which evaluation calls them."""
    called: list[nn.Module] = []
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | _ConvNd)]
    handles = [layer.register_forward_hook(lambda module, *_: called.append(module)) for layer in layers]
    try:
        with torch.no_grad(), evaluating(network):
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return called


def checked(outputs: object, batch: Tensor, classes: int, when: str) -> None:
    """Refuse outputs that are not a row of numbers for each example, or that nothing trained has a part in."""
    asked = [len(batch), classes]
    if not isinstance(outputs, Tensor) or list(outputs.shape) != asked or not outputs.is_floating_point():
        given = str(list(outputs.shape)) if isinstance(outputs, Tensor) else type(outputs).__name__
        given += (
            " of whole numbers" if isinstance(outputs, Tensor) and not outputs.is_floating_point() else ""
        )
        raise UserError(f"model: {when} the network must turn {list(batch.shape)} into {asked}, not {given}")
    if torch.is_grad_enabled() and not outputs.requires_grad:
        raise UserError("model: nothing in the network is trained: all that its outputs depend on is frozen")


def apart(network: nn.Module) -> None:
    """Refuse two tensors in one memory: torch ties a weight by one Parameter under two names, not by its data."""
    places = defaultdict(list)
    for name, tensor in tensors(network).items():
        if tensor.numel():
            places[tensor.data_ptr()].append(name)
    for names in places.values():
        if len(names) > 1:
            raise UserError(
                f"model: {' and '.join(names)} share their memory but are not one tensor; "
                "tie them as in b.weight = a.weight"
            )


def demand_drawn(asked: str, one: nn.Module, other: nn.Module, names: Iterable[str]) -> None:
    """Refuse, for what asks for new initial weights, a network that two seeds give the same; raises UserError.

    A layer that begins as one number, such as zeros, is the same by its initialisation and no obstacle.
    """
    for name in names:
        first, second = one.get_parameter(name), other.get_parameter(name)
        if torch.equal(first, second) and (first != first.flatten()[0]).any():
            raise UserError(
                f"{asked} is not possible: {name} has the same values for every seed, so that it cannot be drawn anew; "
                "a network that comes trained is given by model.weights=FILE"
            )
