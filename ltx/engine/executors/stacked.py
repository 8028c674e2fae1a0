"""Dense layers of R networks as batched matrix products, with the gradient written out.

On a CPU the operations of such a network are so short that autograd's bookkeeping and allocations cost as much
again (benchmarks/engine.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.engine.executors.base import Dense, network_of

DEFAULT = {"start_dim": 1, "end_dim": -1}  # of a flattening
OBSERVERS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Stacked(Dense):
    """Dense layers as batched matrix products, forward and backward, into buffers made once."""

    name = "stacked"
    by_threads = False  # as far as was seen: LeNets with one thread and with two

    @classmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        return round.plan.precision == "float32" and stackable(network)

    def __init__(self, task: Task, round: Round, within: str = "") -> None:
        """`within`: the part of the network that is such a stack of layers."""
        network = network_of(task, round)
        super().__init__(network, round)
        self.goal, batch = task.goal, round.plan.batch_size
        layers = network.get_submodule(within).named_children()
        names = [f"{within}.{name}".lstrip(".") for name, layer in layers if isinstance(layer, nn.Linear)]
        self.layers = [self.leaves[f"{name}.weight"] for name in names]  # [R, out, in]
        self.biases = [self.leaves[f"{name}.bias"][:, None] for name in names]  # [R, 1, out]
        replicates = self.layers[0].shape[0]
        widths = [self.layers[0].shape[2], *(weight.shape[1] for weight in self.layers)]
        new = self.layers[0].new_empty
        self.active = [new(replicates, batch, width) for width in widths]  # what each layer sees
        self.delta = [new(replicates, batch, width) for width in widths]  # the loss's gradient there
        self.weight_grads = [self.gradients[f"{name}.weight"] for name in names]
        self.bias_grads = [self.gradients[f"{name}.bias"][:, None] for name in names]

    @torch.no_grad()
    def backward(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        self.ahead(inputs)
        loss, self.delta[-1] = self.goal.backward(self.active[-1], targets)
        self.back()
        return loss

    def ahead(self, inputs: Tensor) -> None:
        """Fill `active` from the inputs to the outputs."""
        active, last = self.active, len(self.layers)
        active[0] = inputs.flatten(2)
        for i, (weight, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            torch.baddbmm(bias, active[i], weight.transpose(1, 2), out=active[i + 1])
            if i + 1 < last:
                active[i + 1].relu_()

    def back(self) -> None:
        """Fill the gradients from that of the outputs."""
        active, delta = self.active, self.delta
        for i in reversed(range(len(self.layers))):
            torch.bmm(delta[i + 1].transpose(1, 2), active[i], out=self.weight_grads[i])
            torch.sum(delta[i + 1], 1, keepdim=True, out=self.bias_grads[i])
            if i:  # the inputs need no gradient
                torch.bmm(delta[i + 1], self.layers[i], out=delta[i])
                torch.ops.aten.threshold_backward.grad_input(delta[i], active[i], 0, grad_input=delta[i])

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1).expand(len(self.layers[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu_() if i else x, weight.transpose(1, 2))
        return x


def stackable(network: nn.Module) -> bool:
    """Whether a network is surely nothing but a flattening, then dense layers with ReLUs between them.

    By exact types: a subclass may compute anything. Nor may a layer be hooked, reparametrised, used twice,
    frozen, without a bias, or share its weights.
    """
    if not isinstance(network, nn.Sequential) or not plain(network, nn.Sequential):
        return False
    layers = list(network)
    first, dense, between = layers[:1], layers[1::2], layers[2::2]
    parameters = [parameter for layer in dense for parameter in layer.parameters()]
    return (
        all(plain(layer, nn.Flatten) and vars(layer).items() >= DEFAULT.items() for layer in first)
        and len(dense) == len(between) + 1
        and all(plain(layer, nn.Linear) and layer.bias is not None for layer in dense)
        and all(plain(layer, nn.ReLU) for layer in between)
        and all(ordinary(parameters))
        and len(set(map(id, parameters))) == 2 * len(dense)
    )


def plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of this very kind and computes what that kind computes."""
    hooked = any(getattr(module, observers) for observers in OBSERVERS)
    return (
        type(module) is kind and "forward" not in vars(module) and not hooked and not is_parametrized(module)
    )


def ordinary(parameters: Iterable[nn.Parameter]) -> Iterable[bool]:
    """Of each parameter, whether it is trained, by float32 gradients that nobody changes on their way."""
    for p in parameters:
        yield (
            type(p) is nn.Parameter and p.requires_grad and p.dtype == torch.float32 and not p._backward_hooks
        )
