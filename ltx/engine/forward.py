"""The seam: how a batch of R networks is executed. Two ways, one signature, chosen by measurement.

`Stacked` runs fully connected networks as batched matrix products with the gradient written out: on a CPU the
operations of such a network are so short that autograd's bookkeeping and allocations cost as much again.
`Separate` runs any network, one replicate after the other, with autograd: on 2 CPU cores convolutions vmapped
over replicates were 1.3 to 2 times slower than this loop (benchmarks/engine.py).

Both own no weights. They are bound to stacked leaves [R, *shape] and leave gradients in `gradients`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ltx.core.goal import Goal
from ltx.core.recipe import Plan
from ltx.core.ticket import Tree
from ltx.streams import derive


class Forward(Protocol):
    """R networks as one."""

    name: str
    gradients: Tree  # [R, *shape] of every parameter, valid after `backward`

    def backward(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """Mean loss [R] of a training batch ([R, B, C, H, W], [R, B]); leaves its gradients behind."""

    def outputs(self, images: Tensor) -> Tensor:
        """Evaluation-mode outputs [R, N, K] of the same images [N, C, H, W] for every replicate."""


def stackable(network: nn.Module) -> bool:
    """Whether a network is nothing but dense layers with biases and ReLUs between them."""
    if not isinstance(network, nn.Sequential) or not isinstance(network[0], nn.Flatten):
        return False
    layers = list(network)[1:]
    return len(layers) % 2 == 1 and all(
        isinstance(layer, nn.Linear) and layer.bias is not None if i % 2 == 0 else isinstance(layer, nn.ReLU)
        for i, layer in enumerate(layers)
    )


def choose(network: nn.Module, plan: Plan) -> type[Stacked] | type[Separate]:
    """The faster way of running copies of `network`."""
    return Stacked if stackable(network) and plan.precision == "float32" else Separate


def bind(network: nn.Module, weights: Tree, plan: Plan, seeds: Sequence[int], goal: Goal) -> Forward:
    """R copies of `network` on `weights`, which are read and never copied."""
    return choose(network, plan)(network, weights, plan, seeds, goal)


class Stacked:
    """Dense layers as batched matrix products, forward and backward, into buffers made once."""

    name = "stacked"

    def __init__(
        self, network: nn.Module, weights: Tree, plan: Plan, seeds: Sequence[int], goal: Goal
    ) -> None:
        self.goal, batch = goal, plan.batch_size
        names = [name for name, layer in network.named_children() if isinstance(layer, nn.Linear)]
        self.weights = [weights[f"{name}.weight"].detach() for name in names]  # [R, out, in]
        self.biases = [weights[f"{name}.bias"].detach()[:, None] for name in names]  # [R, 1, out]
        replicates = self.weights[0].shape[0]
        widths = [self.weights[0].shape[2], *(weight.shape[1] for weight in self.weights)]
        new = self.weights[0].new_empty
        self.active = [new(replicates, batch, width) for width in widths]  # what each layer sees
        self.delta = [new(replicates, batch, width) for width in widths]  # the loss's gradient there
        self.gradients = {
            name: torch.zeros_like(weights[name])
            for name, _ in network.named_parameters(remove_duplicate=False)
        }
        self.weight_grads = [self.gradients[f"{name}.weight"] for name in names]
        self.bias_grads = [self.gradients[f"{name}.bias"][:, None] for name in names]

    @torch.no_grad()
    def backward(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        active, delta, last = self.active, self.delta, len(self.weights)
        active[0] = images.flatten(2)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            torch.baddbmm(bias, active[i], weight.transpose(1, 2), out=active[i + 1])
            if i + 1 < last:
                active[i + 1].relu_()
        loss, delta[last] = self.goal.backward(active[last], labels)
        for i in reversed(range(last)):
            torch.bmm(delta[i + 1].transpose(1, 2), active[i], out=self.weight_grads[i])
            torch.sum(delta[i + 1], 1, keepdim=True, out=self.bias_grads[i])
            if i:  # the images need no gradient
                torch.bmm(delta[i + 1], self.weights[i], out=delta[i])
                torch.ops.aten.threshold_backward.grad_input(delta[i], active[i], 0, grad_input=delta[i])
        return loss

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        x = images.flatten(1).expand(len(self.weights[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu_() if i else x, weight.transpose(1, 2))
        return x


class Separate:
    """Any network, one replicate after the other: each is an nn.Module whose tensors are views of the stack."""

    name = "separate"

    def __init__(
        self, network: nn.Module, weights: Tree, plan: Plan, seeds: Sequence[int], goal: Goal
    ) -> None:
        self.seeds, self.goal = seeds, goal
        self.gradients = {name: torch.zeros_like(weights[name]) for name, _ in network.named_parameters()}
        self.networks = [self._view(network, weights, r) for r in range(len(seeds))]
        self.half = plan.precision == "bfloat16"
        self.layout = layout(network)

    def _view(self, network: nn.Module, weights: Tree, r: int) -> nn.Module:
        network = copy.deepcopy(network)
        for name, parameter in network.named_parameters():
            parameter.data = weights[name].detach()[r]
            parameter.grad = self.gradients[name][r]
        for name, buffer in network.named_buffers():
            buffer.data = weights[name].detach()[r]
        return network.train()

    def backward(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        for gradient in self.gradients.values():
            gradient.zero_()
        losses = []
        for seed, network, x, y in zip(self.seeds, self.networks, images, labels, strict=True):
            torch.manual_seed(derive(seed, "dropout", step))
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half):
                loss = self.goal.mean(network(self._arranged(x)), y)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).float()

    def _arranged(self, inputs: Tensor) -> Tensor:
        return inputs.contiguous(memory_format=self.layout) if inputs.ndim == 4 else inputs

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        outputs, images = [], self._arranged(images)
        for network in self.networks:
            network.eval()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
                outputs.append(network(images).float())
            network.train()
        return torch.stack(outputs)


def layout(network: nn.Module) -> torch.memory_format:
    """The memory layout that convolutions are fastest in; it spreads from the images through the network.

    Not where a strided 1x1 convolution has fewer than 8 inputs: its weight gradient writes past its buffer in
    torch 2.15 on CPUs with AVX2 (1, 3 or 5 inputs corrupt the heap within 200 steps, 8 and more do not).
    """
    broken = any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 8
        for m in network.modules()
    )
    return torch.contiguous_format if broken else torch.channels_last
