"""A run's rounds read back as its method asks for them: nothing is trained, nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ltx.core.checks import Checks
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.engine.evaluate import evaluate, own_outputs
from ltx.experiment import tables
from ltx.experiment.journal import MethodTables
from ltx.experiment.store import Store
from ltx.study.findings import Findings

CLOSE = 2e-3
"""How far what is measured again may lie from the stored value, of values above 1 as a share of them: another
machine adds in another order."""


class Missing(Exception):
    """A round that the method asks for is not there."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"{place} is missing")
        self.place = place


class Witness(Store):
    """A run's rounds, read and never written."""

    def load(self, round: Round) -> Trained | None:
        """The round in its place; None if it is not there. Raises Damaged or Another."""
        place = self.place(round)
        return self._read(place, round) if (place / "trained.safetensors").exists() else None

    def keep(self, weights: Tree) -> str:
        """The weights' digest, if they are kept as they are; raises FileNotFoundError or Damaged."""
        sha = self.digest(weights)
        self.kept(sha)
        return sha


class Replay:
    """A journal that reads: what is missing ends it, and nothing is trained or written."""

    def __init__(self, store: Witness, said: dict[str, Any], measured: Findings | None) -> None:
        self.store, self.task, self.measured = store, store.task, measured
        self.checks, self.ended = Checks(), ""
        self.tables = tables.Tables(store.folder, tables.columns(self.task.goal))
        self.record = tables.Record(self.task, said["config"], said["method"])

    def has(self, round: Round) -> bool:
        """Whether the round is there."""
        return self.store.load(round) is not None

    def settle(
        self, round: Round, train: object, lost: torch.Tensor, told: MethodTables | None = None
    ) -> Trained:
        """The round's outcome and its rows; raises Missing."""
        if (trained := self.store.load(round)) is None:
            raise Missing(self.store.place(round))
        self.tables.add(self.record.rows(round, replace(trained, diverged=trained.diverged | lost)))
        if told:
            self.tables.note(told(self.task, round, trained))
        if self.measured:
            measure_again(self.measured, self.task, round, trained, self.store.place(round))
        return trained


@dataclass(frozen=True)
class Saved:
    """R networks of saved weights, each computed by PyTorch's own modules."""

    task: Task
    weights: Tree

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return own_outputs(self.task, self.weights, inputs)


def measure_again(found: Findings, task: Task, round: Round, trained: Trained, place: Path) -> None:
    """The loss and the measures at the end of training, from the saved weights and the data."""
    last, rows, stored = trained.curve.last(), torch.arange(task.replicates), trained.curve.tree()
    for split in ("val", "test"):
        measured = evaluate(task.goal, Saved(task, trained.final), task.data, getattr(task.data, split))
        for name, now in measured.items():
            column = f"{split}_{'measure' if name == task.goal.measure else name}"
            if column not in stored:
                continue
            was = stored[column][rows, last]
            off = ((now - was).abs() / was.abs().clamp(min=1))[~trained.diverged]
            apart = float(off.max()) if len(off) else 0.0
            exact = "to the bit" if apart == 0 else f"within {CLOSE:g}"
            found.hold(
                f"the {split} {name.replace('_', ' ')} at the end is that of the saved weights, {exact}",
                apart <= CLOSE,
                place / "trained.safetensors",
                f"its curve ends at {was.tolist()}",
                f"its weights make {now.tolist()}",
            )
