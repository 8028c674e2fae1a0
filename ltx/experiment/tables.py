"""The tables of a run: rows of every round, appended to csv files that its rounds can always make again."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ltx.core.goal import Goal
from ltx.core.task import Task
from ltx.core.ticket import OWN, Round, Trained
from ltx.errors import Damaged
from ltx.experiment import cost, overlap, sizes
from ltx.files import append, read_bytes, write

NETWORK = "role draw level seed".split()
"""What names one trained network within a run."""
FOUND = [
    "config",
    "method",
    *NETWORK,
    *"density weights_remaining early_stop_step early_stop_val_loss".split(),
]
SPENT = "steps seconds diverged censored".split()

Rows = list[tuple[Any, ...]]


def columns(goal: Goal) -> dict[str, list[str]]:
    """The columns of every table by its name."""
    return {
        "levels": levels_columns(goal),
        "curves": [*NETWORK, "step", *map(goal.column, measured_keys(goal))],
        "layers": [*NETWORK, *"layer kind size kept".split()],
        "masks": [*NETWORK, "layer", *overlap.COLUMNS],
        "costs": [*NETWORK, *cost.COLUMNS],
        "size": [*NETWORK, *sizes.COLUMNS],
        "channels": [*NETWORK, *"group channels kept".split()],
    }


def levels_columns(goal: Goal) -> list[str]:
    """Of levels.csv: the goal names what was measured; its further measures come last."""
    measure, moments = goal.measure, ("early_stop", "final")
    own = [f"early_stop_test_{measure}", f"final_test_{measure}", f"final_train_{measure}"]
    further = [f"{moment}_test_{name}" for name in goal.further for moment in moments]
    return [*FOUND, *own, *SPENT, *further, "engine"]


def measured_keys(goal: Goal) -> list[str]:
    """What a curve holds besides its steps, in the order of curves.csv."""
    return [*OWN[1:], *(f"{split}_{name}" for split in ("val", "test") for name in goal.further)]


class Record:
    """Makes rows of rounds, which come in the order that the method asks for them."""

    def __init__(self, task: Task, config: str, method: str) -> None:
        self.task, self.names = task, (config, method)
        self.ledger, self.sizes = cost.Ledger(task), sizes.Sizes(task)

    def rows(self, round: Round, trained: Trained) -> dict[str, Rows]:
        """A round's rows by table."""
        return {
            "levels": self._levels(round, trained),
            "curves": self._curves(round, trained),
            "layers": self._layers(round, trained),
            "masks": self._masks(round, trained),
            "costs": self._keyed(round, self.ledger.rows(round, trained)),
            "size": self._keyed(round, self.sizes.rows(trained)),
            "channels": [
                (*key, group, stay.shape[1], int(stay[r].sum()))
                for r, key in enumerate(self._keys(round))
                for group, stay in round.channels.items()
            ],
        }

    def _keys(self, round: Round) -> list[tuple[Any, ...]]:
        return [(round.role, round.draw, round.level, seed) for seed in self.task.seeds]

    def _keyed(self, round: Round, rows: Rows) -> Rows:
        """A row per replicate with its key before it."""
        return [(*key, *row) for key, row in zip(self._keys(round), rows, strict=True)]

    def _levels(self, round: Round, trained: Trained) -> Rows:
        ticket = round.ticket.masked(trained.mask)
        alive, density = self.task.alive(ticket).tolist(), self.task.density(ticket).tolist()
        curve = trained.curve
        best, last, censored = curve.early_stop(), curve.last(), curve.censored()
        further = [curve.further[f"test_{name}"] for name in self.task.goal.further]
        rows = []
        for r, key in enumerate(self._keys(round)):
            at, end = int(best[r]), int(last[r])
            outcome = (
                density[r],
                alive[r],
                int(curve.step[at]),
                number(curve.val_loss[r, at]),
                number(curve.test_measure[r, at]),
                number(curve.test_measure[r, end]),
                number(trained.train_measure[r]),
                int(trained.steps[r]),
                float(f"{trained.seconds / self.task.replicates:.3f}"),
                int(trained.diverged[r]),
                int(censored[r]),
                *(number(value[r, e]) for value in further for e in (at, end)),
                trained.engine,
            )
            rows.append((*self.names, *key, *outcome))
        return rows

    def _curves(self, round: Round, trained: Trained) -> Rows:
        curve, measured = trained.curve, trained.curve.measured()
        values = [curve.tree()[key] for key in measured_keys(self.task.goal)]
        return [
            (*key, step, *(number(value[r, e]) for value in values))
            for r, key in enumerate(self._keys(round))
            for e, step in enumerate(curve.step.tolist())
            if measured[r, e]
        ]

    def _layers(self, round: Round, trained: Trained) -> Rows:
        kept, layers = round.ticket.masked(trained.mask).kept(), self.task.layers
        return [
            (*key, layer, layers.kinds[layer], size, int(kept[layer][r]) if layer in kept else size)
            for r, key in enumerate(self._keys(round))
            for layer, size in layers.sizes.items()
        ]

    def _masks(self, round: Round, trained: Trained) -> Rows:
        described = overlap.described(trained.mask, ~trained.diverged)
        return [
            (*key, layer, *facts[r])
            for r, key in enumerate(self._keys(round))
            for layer, facts in described.items()
        ]


@dataclass
class Table:
    """A csv file that grows: what is on disk is begun anew once, then only added to."""

    path: Path
    columns: Sequence[str]
    pending: list[bytes] = field(default_factory=list)
    ours: bool = False  # whether the file on disk is what was written here
    sha: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Rows to be written with the next `flush`."""
        if content := text(rows):
            fresh = not self.pending and not self.ours
            self.pending += [text([tuple(self.columns)]), content] if fresh else [content]

    def flush(self, root: Path) -> str | None:
        """Bring the file up to date; returns its SHA-256, None if it has no row."""
        content = b"".join(self.pending)
        self.sha.update(content)
        self.pending.clear()
        if self.ours:
            if content:
                append(self.path, content, root)
        elif content:
            self.ours = True
            if self._on_disk(root) != content:
                write(self.path, content, root)
        return self.sha.hexdigest() if self.ours else None

    def _on_disk(self, root: Path) -> bytes | None:
        try:
            return read_bytes(self.path, root=root)
        except (FileNotFoundError, Damaged):
            return None


class Tables:
    """All tables of a run's folder. Bringing them up to date costs what is new, not what is there."""

    def __init__(self, folder: Path, columns: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self.all = {name: Table(folder / f"{name}.csv", names) for name, names in columns.items()}

    def add(self, rows: Mapping[str, Iterable[tuple[Any, ...]]]) -> None:
        """Rows by table."""
        for name, new in rows.items():
            self.all[name].add(new)

    def note(self, tables: Mapping[str, tuple[list[str], Rows]]) -> None:
        """Rows of tables of a method's own, as columns and rows by name."""
        for name, (columns, rows) in tables.items():
            self.all.setdefault(name, Table(self.folder / f"{name}.csv", columns)).add(rows)

    def flush(self) -> dict[str, str]:
        """Bring the files up to date; returns the SHA-256 of each by file."""
        sums = {f"{name}.csv": table.flush(self.folder) for name, table in self.all.items()}
        return {file: sha for file, sha in sums.items() if sha is not None}


def number(value: torch.Tensor) -> float:
    """A float32 in its shortest decimal form that reads back to the same bits."""
    return float(str(value.numpy().astype("float32")))


def text(rows: Iterable[tuple[Any, ...]]) -> bytes:
    """CSV without a header; a NaN is an empty cell."""
    lines = StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([["" if cell != cell else cell for cell in row] for row in rows])
    return lines.getvalue().encode()


def table(columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> bytes:
    """A whole csv file."""
    return text([tuple(columns), *rows])
