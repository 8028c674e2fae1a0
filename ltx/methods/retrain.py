"""Retraining after pruning (Renda et al. 2020): survivors keep their trained weights and are trained on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket
from ltx.knobs import knob
from ltx.methods.after import AfterTraining
from ltx.methods.base import Search
from ltx.pruning.scores import magnitude


@dataclass(frozen=True)
class Retraining(AfterTraining):
    """Prune the smallest weights and train the rest on, from `rewind_step` to the end of the plan.

    The paper's retraining time t is what lies between the two; IMP with the same rewind_step is its third
    technique, weight rewinding.
    """

    iterative: bool = knob(
        True,
        None,
        "prune what retraining made of the level before; false = one-shot, each level from the dense network",
    )

    @abstractmethod
    def retraining(self, plan: Plan) -> Plan:
        """How to train what has been pruned."""

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        trained = yield Round(0, dense, plan)
        parent, dense_steps = dense.rewound(trained.final), trained.steps
        for level in range(1, self.levels + 1):
            ticket = parent.masked(self.pruned(task, magnitude(parent.weights), parent.mask, level))
            kept, start = self.kept(task.layers, level), self.rewind(plan)
            found_by = None if self.iterative else {(0, "ticket"): dense_steps}
            trained = yield Round(
                level, ticket, self.retraining(plan), start=start, kept=kept, found_by=found_by
            )
            if self.iterative:
                parent = ticket.rewound(trained.final)


@dataclass(frozen=True)
class LRRewind(Retraining):
    """Learning-rate rewinding: trained weights, the schedule of step k (Renda et al. 2020, section 2)."""

    summary: ClassVar[str] = (
        "train, prune the smallest weights, train the others on from an earlier rate, repeat"
    )

    def retraining(self, plan: Plan) -> Plan:
        return plan


@dataclass(frozen=True)
class FineTune(Retraining):
    """Fine-tuning: trained weights at the last learning rate, constant (Renda et al. 2020, section 2)."""

    summary: ClassVar[str] = "train, prune the smallest weights, train the others on at the last rate, repeat"

    def retraining(self, plan: Plan) -> Plan:
        return plan.constant(plan.lr_at(plan.steps - 1))
