"""Dense layers with a skip layer beside them: one more batched matrix product than without."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.engine.executors.stacked import Stacked, ordinary, plain, stackable
from ltx.models.skip import Skip


class StackedSkip(Stacked):
    """LassoNet's network: its dense layers as any stack of them, its skip layer added to what comes out."""

    @classmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        return (
            round.plan.precision == "float32"
            and plain(network, Skip)
            and isinstance(network, Skip)
            and plain(network.skip, nn.Linear)
            and all(ordinary(network.skip.parameters()))
            and stackable(network.layers)
        )

    def __init__(self, task: Task, round: Round) -> None:
        super().__init__(task, round, "layers")
        self.skip, self.skip_grad = self.leaves["skip.weight"], self.gradients["skip.weight"]

    def ahead(self, inputs: Tensor) -> None:
        super().ahead(inputs)
        self.active[-1].baddbmm_(self.active[0], self.skip.transpose(1, 2))

    def back(self) -> None:
        torch.bmm(self.delta[-1].transpose(1, 2), self.active[0], out=self.skip_grad)
        super().back()

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        x = inputs.flatten(1).expand(len(self.skip), -1, -1)
        return torch.baddbmm(super().outputs(inputs), x, self.skip.transpose(1, 2))
