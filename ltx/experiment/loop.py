"""The loop: a method asks for tickets, each is trained once, its controls beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch

from ltx.core.checks import Checks
from ltx.core.recipe import Plan
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.engine.train import train
from ltx.experiment.store import Store, identity
from ltx.methods.base import Search
from ltx.pruning.controls import CONTROLS, LAYERWISE

if TYPE_CHECKING:
    from ltx.config.run import Run


class Show(Protocol):
    """What the terminal is told."""

    def begin(self, task: Task, round: Round) -> None: ...
    def tick(self, step: int, measured: Tree | None) -> None: ...
    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None: ...


def play(run: Run, task: Task, plan: Plan, store: Store, checks: Checks, show: Show) -> None:
    """Let the method ask for tickets until it has no more questions; train each one once, and its controls.

    Resuming is replaying: the method is driven again and the store answers for the rounds already trained.
    """
    search, trained, parent = run.method.search(task, task.dense(), plan), None, None
    lost = torch.zeros(task.replicates, dtype=torch.bool)
    while (round := ask(search, trained)) is not None:
        checks.counts(round.ticket, round.kept, f"level {round.level}")
        if parent is not None and run.method.nested:
            checks.nested(round.ticket.mask, parent.mask, f"level {round.level}")
        trained, parent = settle(task, round, store, checks, show), round.ticket
        # What follows from a diverged training is marked too, never silently averaged.
        lost = lost | trained.diverged
        store.record(round, replace(trained, diverged=lost))
        store.note(run.method.tables(task, round, trained))
        for rival in rivals(run, task, round, checks):
            outcome = settle(task, rival, store, checks, show)
            store.record(rival, replace(outcome, diverged=outcome.diverged | lost))


def ask(search: Search, trained: Trained | None) -> Round | None:
    """The method's next round, or None when it has seen enough."""
    try:
        return search.send(trained)  # type: ignore[arg-type]  # a generator is started by sending None
    except StopIteration:
        return None


def rivals(run: Run, task: Task, round: Round, checks: Checks) -> Iterator[Round]:
    """Every draw of every control of a pruned ticket, to be trained exactly like it."""
    if round.level == 0:
        return
    for name in run.controls:
        drawn = set()
        for draw in range(run.control_draws):
            ticket = CONTROLS[name](task, round, draw)
            if identity(ticket) in drawn:
                break  # nothing about this control is drawn: once more would only look like more evidence
            drawn.add(identity(ticket))
            rival = replace(round, ticket=ticket, role=name, draw=draw, keep=())
            where = f"level {round.level}, {rival.name}"
            checks.control(ticket, round.ticket, where, layerwise=name in LAYERWISE)
            yield rival


def settle(task: Task, round: Round, store: Store, checks: Checks, show: Show) -> Trained:
    """The round's outcome: from the store if it was trained before, else by training it now."""
    if (known := store.load(round)) is not None:
        show.end(task, round, known, fresh=False)
        return known
    where, before = f"level {round.level}, {round.name}", identity(round.ticket)
    show.begin(task, round)
    trained = train(task, round, Session(checks, store.checkpoint(round), show.tick))
    checks.hold(
        "training leaves the stored rewind weights and mask untouched",
        identity(round.ticket) == before,
        where,
    )
    store.save(round, trained)
    saved = store.load(round)
    checks.hold("a saved round can be read back", saved is not None, where)
    assert saved is not None
    checks.zero("weights in the saved file", saved.final, round.ticket.mask, ~trained.diverged, where)
    store.refresh(checks=dict(checks.passed))
    show.end(task, round, trained, fresh=True)
    return trained
