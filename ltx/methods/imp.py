"""Prune the smallest weights after training and rewind the others: iteratively (IMP), or in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket
from ltx.methods.after import AfterTraining
from ltx.methods.base import Search
from ltx.pruning.scores import magnitude


@dataclass(frozen=True)
class IMP(AfterTraining):
    """Iterative magnitude pruning (Frankle & Carbin 2019, section 1), to step k (Frankle et al. 2020)."""

    summary: ClassVar[str] = "train, prune the smallest weights, rewind the survivors, repeat"

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        k = self.rewind(plan)
        trained = yield Round(0, dense, plan, keep=(k,))
        ticket = dense.rewound(trained.at[k])
        for level in range(1, self.levels + 1):
            ticket = ticket.masked(self.pruned(task, magnitude(trained.final), ticket.mask, level))
            trained = yield Round(level, ticket, plan, start=k, kept=self.kept(task.layers, level))


@dataclass(frozen=True)
class OneShot(AfterTraining):
    """One dense training, then one ticket for each density of the iterative schedule (LTH section 2)."""

    summary: ClassVar[str] = "train once, prune to each density in one go, rewind, train"

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        k = self.rewind(plan)
        trained = yield Round(0, dense, plan, keep=(k,))
        rewound, scores = dense.rewound(trained.at[k]), magnitude(trained.final)
        for level in range(1, self.levels + 1):
            ticket = rewound.masked(self.pruned(task, scores, dense.mask, level))
            kept, found_by = self.kept(task.layers, level), {(0, "ticket"): trained.steps}
            yield Round(level, ticket, plan, start=k, kept=kept, found_by=found_by)
