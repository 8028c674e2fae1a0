"""Which of the trained weights to keep, if not the largest: the mask criteria of Zhou et al. 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Tree
from ltx.knobs import knob, one_of
from ltx.methods.after import AfterTraining
from ltx.methods.base import Search
from ltx.pruning.scores import CRITERIA, uniform


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
            noise = uniform(task.seeds, ticket.mask, "criterion", level)
            scores = self.scores(ticket.start(), trained.final, noise)
            ticket = ticket.masked(self.pruned(task, scores, ticket.mask, level))
            trained = yield Round(level, ticket, plan, start=k, kept=self.kept(task.layers, level))

    def scores(self, initial: Tree, final: Tree, noise: Tree) -> Tree:
        """How much each weight matters in its layer or, with scope=global, among all: ranks are of that many."""
        score = CRITERIA[self.score]
        if self.scope == "layer":
            return {name: score(initial[name], final[name], there) for name, there in noise.items()}
        flat = [torch.cat([tree[name].flatten(1) for name in noise], 1) for tree in (initial, final, noise)]
        parts = score(*flat).split([there[0].numel() for there in noise.values()], 1)
        return {name: part.view_as(noise[name]) for name, part in zip(noise, parts, strict=True)}
