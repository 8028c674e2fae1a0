"""Which of the trained weights to keep, if not the largest: the mask criteria of Zhou et al. 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Tree
from ltx.knobs import knob, one_of
from ltx.methods.after import AfterTraining
from ltx.methods.base import Search
from ltx.pruning.scores import CRITERIA
from ltx.streams import stream


@dataclass(frozen=True)
class Criterion(AfterTraining):
    """IMP by any mask criterion (Zhou et al. 2019, section 2); large_final is IMP, small_final inverts it."""

    summary: ClassVar[str] = (
        "imp by another criterion: method.score=movement, large_init, small_final, random, ..."
    )

    score: str = knob(
        "magnitude_increase",
        one_of(CRITERIA),
        "what the weights that are kept have most of; see ltx/pruning/scores.py",
    )

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        k = self.rewind(plan)
        trained = yield Round(0, dense, plan, keep=(k,))
        ticket = dense.rewound(trained.at[k])
        for level in range(1, self.levels + 1):
            before, after, noise = ticket.start(), trained.final, uniform(task, ticket, level)
            scores = {name: CRITERIA[self.score](before[name], after[name], noise[name]) for name in noise}
            ticket = ticket.masked(self.pruned(task, scores, ticket.mask, level))
            trained = yield Round(level, ticket, plan, start=k, kept=self.kept(task.layers, level))


def uniform(task: Task, ticket: Ticket, level: int) -> Tree:
    """U(0, 1) for every prunable weight, from a stream of its own for each seed, level and layer."""

    def draw(name: str, seed: int) -> Tensor:
        generator = stream(seed, "criterion", level, name)
        return torch.rand(ticket.mask[name][0].shape, generator=generator)

    return {name: torch.stack([draw(name, s) for s in task.seeds]).to(task.device) for name in ticket.mask}
