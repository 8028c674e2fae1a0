"""What a run has done, told once: each round is kept, recorded and published, and the end is told whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

import torch
from omegaconf import OmegaConf

from ltx import manifest
from ltx.core.checks import Checks
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.errors import Died, Interrupted, UserError
from ltx.experiment import tables
from ltx.experiment.machine import now
from ltx.experiment.packing import ticket_identity
from ltx.experiment.store import Store
from ltx.files import write

CONFIG = "config.yaml"

MethodTables = Callable[[Task, Round, Trained], Mapping[str, tuple[list[str], list[tuple[Any, ...]]]]]
"""What a method tells of a round besides its measures, as columns and rows by table."""


class Show(Protocol):
    """What the terminal is told."""

    def begin(self, task: Task, round: Round) -> None: ...
    def tick(self, step: int, measured: Tree | None) -> None: ...
    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None: ...


class Journal:
    """A session of a run: what it keeps is on disk with its rows when `settle` returns.

    On leaving it publishes what there is, as complete, interrupted or failed, with the reason.
    """

    def __init__(
        self, store: Store, config: dict[str, Any], facts: dict[str, Any], checks: Checks, show: Show
    ) -> None:
        self.store, self.task, self.checks, self.show = store, store.task, checks, show
        self.before = manifest.sound(store.folder)
        self.manifest = {**facts, "started": self.before.get("started", now())}
        self.tables = tables.Tables(store.folder, tables.columns(self.task.goal))
        self.record = tables.Record(self.task, facts["config"], facts["method"])
        self.config = OmegaConf.to_yaml(OmegaConf.create(config)).encode()
        self.seconds, self.ended = 0.0, ""
        self.mended = self._altered()

    def _altered(self) -> list[str]:
        """Which of the tables and the configuration are not what the folder's manifest says."""
        folder = self.store.folder
        if not self.before and (folder / manifest.FILE).exists():
            return [manifest.FILE]
        return manifest.altered(folder, self.before)

    def __enter__(self) -> Journal:
        write(self.store.folder / CONFIG, self.config, self.store.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.store.tidy()
            return self._publish("complete", finished=now(), **{"ended": self.ended} if self.ended else {})
        stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        try:
            self._publish("interrupted") if stopped else self._publish("failed", reason=reason(error))
        except UserError:  # a full disk, a lost lock: the error that is under way says more
            return None

    @property
    def unchanged(self) -> bool:
        """Whether the run was complete before, and is now what it was."""
        return self.before.get("status") == "complete" and not self.store.trained_now and not self.mended

    def settle(
        self, round: Round, train: Callable[[], Trained], lost: torch.Tensor, told: MethodTables | None = None
    ) -> Trained:
        """The round's outcome, from the store or by training it now; its rows are published before this returns.

        `lost` [R] bool: who follows from a diverged training and is marked too, never silently averaged.
        """
        trained = self.store.load(round)
        if fresh := trained is None:
            trained = self._train(round, train)
        self.tables.add(self.record.rows(round, replace(trained, diverged=trained.diverged | lost)))
        self.seconds += trained.seconds
        if told:
            self.tables.note(told(self.task, round, trained))
        if fresh:
            self._publish("running")
        self.show.end(self.task, round, trained, fresh=fresh)
        return trained

    def has(self, round: Round) -> bool:
        """Whether the round was trained before."""
        return self.store.load(round) is not None

    def _train(self, round: Round, train: Callable[[], Trained]) -> Trained:
        where, ticket = f"level {round.level}, {round.name}", ticket_identity(round.ticket)
        self.show.begin(self.task, round)
        trained = train()
        self.checks.hold(
            "training leaves the stored rewind weights and mask untouched",
            ticket_identity(round.ticket) == ticket,
            where,
        )
        self.store.save(round, trained)
        saved = self.store.load(round)
        self.checks.hold("a saved round can be read back", saved is not None, where)
        assert saved is not None
        self.checks.zero("weights in the saved file", saved.final, trained.mask, ~trained.diverged, where)
        return saved

    def _publish(self, status: str, **more: object) -> None:
        """Bring tables and manifest up to date: what is new, not what is there."""
        self.store.demand_lock()
        config = manifest.sha256(self.store.folder / CONFIG, self.store.folder) or ""
        files = {**self.store.files, **self.tables.flush(), CONFIG: config}
        drawn = {name: sha for name, sha in self.before.get("files", {}).items() if self._drawn(name)}
        said = {
            **self.manifest,
            "status": status,
            "updated": now(),
            **more,
            "checks": dict(self.checks.passed),
            "seconds": round(self.seconds, 1),
            # `commit` is the code that publishes; whoever continues or redraws a run did not train all of it.
            "trained_by": list(self.store.commits),
            "files": dict(sorted((drawn | files).items())),
        }
        if not (status == "complete" and self.unchanged and said["files"] == self.before.get("files")):
            manifest.write_manifest(self.store.folder, said)

    def _drawn(self, name: str) -> bool:
        """Whether a file was drawn from the tables, and is there."""
        rounds = name.startswith(("level_", "weights/"))
        return (
            not rounds
            and name.removesuffix(".csv") not in self.tables.all
            and (self.store.folder / name).is_file()
        )


def reason(error: BaseException) -> str:
    """Why a run failed, in a line."""
    line = next(iter(str(error).strip().splitlines()), "")
    return line if isinstance(error, UserError | Died) else f"{type(error).__name__}: {line}"
