"""The loop: a method asks for tickets, each is trained once, its controls beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ltx.config.run import Run
from ltx.core.checks import Checks
from ltx.core.recipe import Plan
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained
from ltx.errors import NothingLeft
from ltx.experiment.growth import Growth
from ltx.experiment.journal import Journal, MethodTables
from ltx.experiment.lanes import Lanes
from ltx.experiment.packing import ticket_identity
from ltx.methods.base import Search
from ltx.pruning.controls import CONTROLS, LAYERWISE


def play(growth: Growth, task: Task, plan: Plan, journal: Journal, lanes: Lanes) -> None:
    """Let the method ask for tickets until it has no more questions; train each one once, and its controls.

    Resuming is replaying: the method is driven again and the journal answers for the rounds already trained.
    """
    method, checks = growth.whole.method, journal.checks
    search, trained, parent = method.search(task, task.dense(), plan), None, None
    lost = torch.zeros(task.replicates, dtype=torch.bool)
    while (round := ask(search, trained, journal)) is not None:
        if not growth.wants(round) and not journal.has(round):
            if not round.of:
                break  # a level beyond those asked for: what follows builds on it
            trained = None
            continue
        checks.counts(round.ticket, round.kept, f"level {round.level}")
        if parent is not None and method.nested:
            checks.nested(round.ticket.mask, parent.mask, f"level {round.level}")
        beside = controls(growth.whole, task, round, checks)
        wanted = [one for one in beside if growth.wants(one) or journal.has(one)]
        lanes.start([round, *wanted], journal)
        trained, parent = settle(round, journal, lanes, lost, method.tables), round.ticket
        lost = lost | trained.diverged
        for control in wanted:
            settle(control, journal, lanes, lost)


def settle(
    round: Round, journal: Journal, lanes: Lanes, lost: torch.Tensor, told: MethodTables | None = None
) -> Trained:
    """A round's outcome: known, or trained now."""

    def now() -> Trained:
        session = Session(journal.checks, journal.store.checkpoint(round), journal.show.tick)
        return lanes.train(round, session)

    return journal.settle(round, now, lost, told)


def ask(search: Search, trained: Trained | None, journal: Journal) -> Round | None:
    """The method's next round, or None when it has seen enough or has nothing left to prune."""
    try:
        return search.send(trained)  # type: ignore[arg-type]  # a generator is started by sending None
    except StopIteration:
        return None
    except NothingLeft as end:
        journal.ended = str(end)
        return None


def controls(run: Run, task: Task, round: Round, checks: Checks) -> Iterator[Round]:
    """Every draw of every control of a pruned ticket, to be trained exactly like it."""
    if round.level == 0:
        return
    for name in run.controls:
        drawn = set()
        for draw in range(run.control_draws):
            ticket = CONTROLS[name](task, round, draw)
            if (mine := ticket_identity(ticket)) in drawn:
                break  # nothing about this control is drawn: once more would only look like more evidence
            drawn.add(mine)
            control = replace(round, ticket=ticket, role=name, draw=draw, keep=())
            where = f"level {round.level}, {control.name}"
            checks.control(ticket, round.ticket, where, layerwise=name in LAYERWISE)
            yield control
