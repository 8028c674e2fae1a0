"""What a way of executing R networks must offer, and what those share that keep every weight in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from ltx.core.task import Task
from ltx.core.ticket import Round, Tree
from ltx.models.base import tensors
from ltx.models.freeze import freeze


def network_of(task: Task, round: Round) -> nn.Module:
    """One network as the round trains it, its values of no account: what the plan freezes is frozen."""
    return freeze(task.network(), round.plan.freeze)


class Executor(ABC):
    """R networks as one: how they are computed, and what of them is optimised.

    Leaves are what the optimizer moves, in whatever shape this way of executing likes, axis 0 the replicate:
    whole tensors, the values of a sparse pattern, the part of a network that channel pruning has left. Only
    `whole` and `part` know how they lie in the network's own tensors. Frozen parameters are no leaves.

    A training calls, step by step: `backward`, then the method's hooks on `leaves` and `gradients`, then
    `mask_gradients`, then the optimizer, which changes `leaves` in place.
    """

    name: ClassVar[str]
    by_threads: ClassVar[bool] = True  # whether bits depend on the number of threads, as convolutions' do
    leaves: Tree  # [R, ...]
    gradients: Tree  # [R, ...] by the same names, valid after `backward`
    build: str = ""  # by what it is computed, as far as the last bits depend on that
    running: list[bool]  # R: whoever has stopped need not be computed by `backward`, and must not change

    @classmethod
    @abstractmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        """Whether the task's network can be computed so in this round: its mask, plan, hooks and channels."""

    @property
    def identity(self) -> str:
        """What the last bits of a result depend on."""
        return self.build or self.name

    @abstractmethod
    def __init__(self, task: Task, round: Round) -> None:
        """R networks at the round's start, in memory of their own."""

    @abstractmethod
    def backward(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean loss [R] of a training batch ([R, B, ...] each); leaves every leaf's gradient behind."""

    def blocks(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By leaf, the stack [R, ...] that it is a view of and that of its gradient, if not they themselves."""
        return {name: (leaf, self.gradients[name]) for name, leaf in self.leaves.items()}

    def mask_gradients(self) -> None:  # noqa: B027  # not every way has something to do
        """Make the gradients of what is pruned zero; nothing to do where only survivors are leaves."""

    @abstractmethod
    def outputs(self, inputs: Tensor) -> Tensor:
        """Evaluation-mode outputs [R, N, K] of the same inputs [N, ...] for every replicate."""

    @abstractmethod
    def weights(self) -> Tree:
        """All tensors of the network as they are now, [R, *shape], zero where pruned: only to be read."""

    @abstractmethod
    def load(self, weights: Tree, mask: Tree | None = None) -> None:
        """Take on the network's tensors [R, *shape] and, if given, another mask: to resume, to regrow."""

    @abstractmethod
    def whole(self, tree: Tree) -> Tree:
        """Something of the leaves' shapes, such as their momenta, in the shapes of the network, zero if cut."""

    @abstractmethod
    def part(self, tree: Tree) -> Tree:
        """The inverse of `whole`: what the leaves have of the network's tensors, or of some of them."""


class Dense(Executor):
    """Leaves are the network's own parameters, and the mask is multiplied onto their gradients.

    A pruned weight starts at zero and never sees a gradient: it stays zero, and so do its moments and decay.
    Deviation from torch: a parameter that the loss does not reach has a gradient of zero, not none, so weight
    decay shrinks it like all others.
    """

    def __init__(self, network: nn.Module, round: Round) -> None:
        """The stacks that `network`, or each of several like it, is to be computed from."""
        self.stack = round.ticket.start()  # [R, *shape] of every tensor
        found = tensors(network)
        self.leaves = {name: self.stack[name] for name, tensor in found.items() if tensor.requires_grad}
        self.gradients = {name: torch.zeros_like(leaf) for name, leaf in self.leaves.items()}
        self.running = [True] * round.ticket.replicates
        self._mask(round.ticket.mask)

    def _mask(self, mask: Tree) -> None:
        # As numbers of the gradients' type, once: a bool factor would be converted at every step.
        self.alive = {
            name: alive.to(self.leaves[name].dtype)
            for name, alive in mask.items()
            if name in self.leaves and not alive.all()
        }

    def mask_gradients(self) -> None:
        for name, alive in self.alive.items():
            self.gradients[name].mul_(alive)

    def weights(self) -> Tree:
        return self.stack

    def load(self, weights: Tree, mask: Tree | None = None) -> None:
        for name, tensor in self.stack.items():
            tensor.copy_(weights[name])  # in place: what computes is bound to this memory
        if mask is not None:
            self._mask(mask)

    def whole(self, tree: Tree) -> Tree:
        return tree

    def part(self, tree: Tree) -> Tree:
        return {name: tree[name] for name in self.leaves if name in tree}
