"""Any network, one replicate after the other, with autograd.

On 2 CPU cores convolutions vmapped over replicates were 1.3 to 2 times slower than this loop
(benchmarks/engine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ltx.core.task import Task
from ltx.core.ticket import Round, Tree
from ltx.engine.executors.base import Dense, network_of
from ltx.engine.executors.graph import read
from ltx.models.base import evaluating, tensors
from ltx.streams import seeded


class Separate(Dense):
    """Each replicate is an nn.Module of its own, whose tensors are views of the stacks.

    A network of the user's own may draw numbers as it likes: it finds torch's, numpy's and Python's generators
    seeded for its replicate and step, and other threads wait meanwhile.
    """

    name = "separate"

    @classmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        return True

    def __init__(self, task: Task, round: Round, networks: Sequence[nn.Module] = ()) -> None:
        """`networks`: what is to be computed if not the task's own, one a replicate."""
        # Each built anew: a copy of a module would lose the hooks of its tensors.
        self.networks = list(networks) or [network_of(task, round) for _ in task.seeds]
        super().__init__(self.networks[0], round)
        self.goal, self.seeds = task.goal, task.seeds
        self.layout = layout(self.networks[0])
        self.draws = read(self.networks[0]) is None  # or may, as far as is known
        self.half = round.plan.precision == "bfloat16"
        for r, network in enumerate(self.networks):
            for name, tensor in tensors(network).items():
                tensor.data = self.stack[name][r]
                if name in self.gradients:
                    tensor.grad = self.gradients[name][r]

    def backward(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        for gradient in self.gradients.values():
            gradient.zero_()
        losses = [
            self._backward(r, inputs[r], targets[r], step) if runs else inputs.new_zeros(())
            for r, runs in enumerate(self.running)
        ]
        return torch.stack(losses).float()

    @torch.enable_grad()  # whatever the caller has switched off
    def _backward(self, r: int, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        half = torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half)
        with self.computing(r, "dropout", step):
            with half:
                loss = self.goal.mean(self.networks[r](self.laid_out(inputs)), targets)
            loss.backward()
        return loss.detach()

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        inputs = self.laid_out(inputs)
        return torch.stack([self._outputs(r, inputs) for r in range(len(self.networks))])

    def _outputs(self, r: int, inputs: Tensor) -> Tensor:
        half = torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half)
        with self.computing(r, "evaluation"), evaluating(self.networks[r]), half:
            logits: Tensor = self.networks[r](inputs)
            return logits.float()

    def computing(self, r: int, *purpose: object) -> AbstractContextManager[None]:
        return seeded(self.seeds[r], *purpose) if self.draws else nullcontext()

    def laid_out(self, inputs: Tensor) -> Tensor:
        """Images in the layout that suits the network; other inputs as they are."""
        return inputs.contiguous(memory_format=self.layout) if inputs.dim() == 4 else inputs

    def weights(self) -> Tree:
        for r, network in enumerate(self.networks):
            for name, tensor in tensors(network).items():
                view = self.stack[name][r]
                if tensor.data_ptr() != view.data_ptr():  # a buffer that the network has assigned anew
                    tensor.data = view.copy_(tensor.detach())
        return self.stack


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
