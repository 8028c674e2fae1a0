"""A network without some of its channels, computed as the smaller network that it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Tree
from ltx.engine.executors.base import Executor
from ltx.engine.executors.separate import Separate
from ltx.models.freeze import freeze
from ltx.pruning.channels import shrunk


class Channels(Executor):
    """One replicate, R = 1, physically cut; what was cut keeps the values that it had, zero where masked."""

    name = "channels"

    @classmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        return bool(round.channels)

    def __init__(self, task: Task, round: Round) -> None:
        kept = {name: keep[0] for name, keep in round.channels.items()}
        self.shrunk = shrunk(task.network(), task.data.shape, kept)
        self.rest = round.ticket.start()
        small = Ticket(self.shrunk.take(round.ticket.weights), self.shrunk.take(round.ticket.mask))
        network = freeze(self.shrunk.network, round.plan.freeze)
        self.inner = Separate(task, replace(round, ticket=small), [network])
        self.leaves, self.gradients = self.inner.leaves, self.inner.gradients
        self.running = self.inner.running

    def backward(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        return self.inner.backward(inputs, targets, step)

    def mask_gradients(self) -> None:
        self.inner.mask_gradients()

    def outputs(self, inputs: Tensor) -> Tensor:
        return self.inner.outputs(inputs)

    def weights(self) -> Tree:
        return self.shrunk.put(self.inner.weights(), self.rest)

    def load(self, weights: Tree, mask: Tree | None = None) -> None:
        self.inner.load(self.shrunk.take(weights), None if mask is None else self.shrunk.take(mask))

    def whole(self, tree: Tree) -> Tree:
        return self.shrunk.put(tree, {name: torch.zeros_like(self.rest[name]) for name in tree})

    def part(self, tree: Tree) -> Tree:
        return self.shrunk.take({name: tree[name] for name in self.leaves if name in tree})
