"""How far runs have come, from their files alone: the same from another shell or another machine."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock

from ltx.errors import Busy, Damaged, Died, Interrupted, UserError
from ltx.files import read_csv, read_json, write
from ltx.manifest import altered
from ltx.schema import MANIFEST, STATUS, SWEEP

if TYPE_CHECKING:
    from ltx.core.task import Task
    from ltx.core.ticket import Round, Trained, Tree

FILE = "status.json"
LOG = "log.txt"
PLAN = "sweep.json"
BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A run that has said nothing for so long has probably died without a chance to say so."""


UNWRITTEN: dict[Path, dict[str, Any]] = {}
"""What a full disk did not take of this process's words: it still shows them itself."""


class Heartbeat:
    """Says in a run's folder, every few seconds, where its training is; and at the end, why it stopped.

    A complete run needs no such file: it is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.said: dict[str, Any] = {"state": "running", "host": socket.gethostname(), "pid": os.getpid()}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)  # dies with its process, as it must

    def __enter__(self) -> Self:
        self._write()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()
        if error is None:
            self.path.unlink(missing_ok=True)
        elif isinstance(error, Interrupted | KeyboardInterrupt | SystemExit):
            self.said["state"] = "interrupted"
            self._write()
        else:
            note_failure(self.path.parent, error)

    def begin(self, task: Task, round: Round) -> None:
        self.goal = task.goal
        self.said |= {
            "role": round.name,
            "level": round.level,
            "density": float(task.density(round.ticket).mean()),
            "step": round.start,
            "steps": round.plan.steps,
            "measured": "",
        }

    def tick(self, step: int, measured: Tree | None) -> None:
        self.said["step"] = step
        if measured is not None:
            self.said["measured"] = f"val {self.goal.shown(float(measured['val_measure'].mean()))}"

    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None:
        """What is trained already is in the tables."""

    def _beat(self) -> None:
        while not self.over.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        try:
            write(self.path, json.dumps(self.said | {"updated": time.time()}).encode())
        except UserError:  # a full disk: training itself will say so where it matters
            return


def note_failure(folder: Path, error: BaseException, log: str | None = None) -> None:
    """Leave in a run's folder why it failed, unless another process has it or it has said so itself."""
    before = last_words(folder)
    if isinstance(error, Busy) or before.get("state") == "failed":
        return
    reason = next(iter(str(error).strip().splitlines()), "")
    if not isinstance(error, UserError | Died):
        reason = f"{type(error).__name__}: {reason}"
    said = before | {"state": "failed", "reason": reason, "updated": time.time()}
    if log is not None:
        said["log"] = log
    try:
        write(folder / FILE, json.dumps(said).encode())
    except UserError:
        UNWRITTEN[folder] = said


def last_words(folder: Path) -> dict[str, Any]:
    """What status.json says; nothing if it is damaged: it is only written again."""
    try:
        return read_json(folder / FILE, STATUS)
    except Damaged:
        return {}


@dataclass(frozen=True)
class State:
    """What a run's folder says about it."""

    name: str  # queued | running | silent | interrupted | failed | damaged | complete
    level: int | None = None
    role: str = ""
    density: float | None = None
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None  # of all its training, once it has ended; else since its last sign of life
    reason: str = ""  # why it failed, or what is damaged
    log: str = ""
    measured: str = ""  # what the goal's measure was on the validation split while training

    @property
    def over(self) -> bool:
        return self.name in ("interrupted", "failed", "damaged", "complete")


def state(folder: Path) -> State:
    """The state of the run in `folder`, which need not exist yet."""
    try:
        said = UNWRITTEN.get(folder) or read_json(folder / FILE, STATUS)
        manifest = read_json(folder / "manifest.json", MANIFEST)
        if not said and (changed := altered(folder, manifest)):
            raise Damaged(folder / changed[0], "it is missing or not what its checksum says")
        last = last_ticket(folder)
    except Damaged as error:
        return State("damaged", reason=str(error))
    if not said:
        if manifest.get("status") == "complete":
            return State("complete", *last, seconds=manifest.get("seconds"))
        name = "interrupted" if manifest else "queued"
        return State(name, *last, seconds=manifest.get("seconds"))
    silence = time.time() - said.get("updated", 0.0)
    name = said.get("state", "running")
    return State(
        "silent" if name == "running" and silence > SILENT_SECONDS else name,
        said.get("level"),
        said.get("role", ""),
        said.get("density"),
        said.get("step"),
        said.get("steps"),
        silence,
        said.get("reason", ""),
        said.get("log", str(folder / LOG) if (folder / LOG).exists() else ""),
        said.get("measured", ""),
    )


def last_ticket(folder: Path) -> tuple[int | None, str, float | None]:
    """Level, role and density of the sparsest ticket in a run's table; raises Damaged."""
    table = folder / "levels.csv"
    try:
        rows = [(int(row["level"]), float(row["density"])) for row in read_csv(table)]
    except (ValueError, KeyError) as error:
        raise Damaged(table, f"no level or density: {error}") from error
    level, density = max(rows, default=(None, None))
    return level, "ticket" if rows else "", density


@dataclass(frozen=True)
class Job:
    """One run of a sweep: what was typed for it, and the folder that it fills."""

    overrides: list[str]
    folder: Path

    def state(self) -> State:
        return state(self.folder)


@dataclass(frozen=True)
class Sweep:
    """A plan: the jobs, and the folder of the sweep itself."""

    folder: Path
    launcher: str
    jobs: list[Job]

    @classmethod
    def read(cls, file: Path) -> Self:
        """The plan in a sweep.json; raises Damaged if it is not one."""
        said = read_json(file, SWEEP)
        try:
            jobs = [
                Job(job["overrides"], Path(os.path.normpath(file.parent / job["folder"])))
                for job in said["jobs"]
            ]
            launcher = said["launcher"]
        except KeyError as error:
            raise Damaged(file, f"it has no {error.args[0]}") from error
        if not jobs:
            raise Damaged(file, "it plans no job")
        return cls(file.parent, launcher, jobs)

    def write(self) -> Path:
        """Write the plan, with folders relative to its own so that the tree may move; returns the file."""
        jobs = [
            {"overrides": job.overrides, "folder": os.path.relpath(job.folder, self.folder)}
            for job in self.jobs
        ]
        file = self.folder / PLAN
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):  # the same sweep may be begun twice at the same time
            write(file, json.dumps({"launcher": self.launcher, "jobs": jobs}, indent=1).encode())
        return file

    def missing(self) -> list[Job]:
        return [job for job in self.jobs if job.state().name != "complete"]

    def labels(self) -> list[str]:
        """Each job by the overrides in which it differs from another."""
        common = set.intersection(*(set(job.overrides) for job in self.jobs))
        own = [" ".join(o for o in job.overrides if o not in common) for job in self.jobs]
        return [label.replace("\\", "") or job.folder.name for label, job in zip(own, self.jobs, strict=True)]
