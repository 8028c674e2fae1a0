"""Metrics mirrored to the tracker that a user looks at, through accelerate's one layer over many of them.

The csv files are the record: a tracker that fails, hangs or is missing later costs a line, never the run.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from math import isfinite
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ltx.config.trackers import TRACKERS
from ltx.core.goal import Goal
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.errors import Damaged, UserError
from ltx.files import read_json, write
from ltx.plugins import told

if TYPE_CHECKING:
    from ltx.config.identity import Composed
    from ltx.experiment.progress import Progress

PATIENCE_SECONDS = 60.0
"""How long the end of a run waits for a tracker to take what is left."""


def check_installed(tracker: str | None) -> None:
    """Raise UserError if a tracker cannot work here for want of a package."""
    missing = []
    for package in ("accelerate", TRACKERS[tracker]) if tracker else ():
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        wanted = " ".join("'ltx[track]'" if package == "accelerate" else package for package in missing)
        raise UserError(
            f"tracker={tracker} needs {' and '.join(missing)}, not installed here: pip install {wanted}"
        )


@contextmanager
def mirroring(composed: Composed, folder: Path, show: Progress) -> Iterator[list[Mirror]]:
    """Whom to tell of a run besides the terminal: its tracker, if it has one."""
    mirrors = [Mirror(composed, folder, show)] if composed.run.tracker else []
    try:
        yield mirrors
    finally:
        for mirror in mirrors:
            mirror.sender.close()


class Mirror:
    """Sends every evaluation and every round's outcome to a tracker.

    Trackers take steps in rising order, so the whole run has one axis: rounds lie one after the other, each as
    long as its training and two steps more. Values are named ROLE/MEASURE and are means over the replicates.
    """

    def __init__(self, composed: Composed, folder: Path, show: Progress) -> None:
        self.sender, self.offset = Sender(composed, folder, show), 0

    def begin(self, task: Task, round: Round) -> None:
        self.goal, self.round, self.about = task.goal, round, described(task, round)

    def tick(self, step: int, measured: Tree | None) -> None:
        if measured is not None and not self.round.apart:  # of those trained one by one there is no mean yet
            self._evaluated(
                self.round, step - self.round.start, self.about | {"step": step}, named(self.goal, measured)
            )

    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None:
        about, curve = described(task, round), trained.curve
        steps, measures = curve.step.tolist(), named(task.goal, curve.tree())
        later = [name for name in measures if name != "train_loss"]
        for e, step in enumerate(steps):
            here = {name: value[:, e] for name, value in measures.items()}
            self._evaluated(round, step - steps[0], about | {"step": step}, here)
        rows, best, last = range(task.replicates), curve.early_stop(), curve.last()
        outcome = {
            "early_stop_step": curve.step[best].float(),
            **{f"early_stop_{name}": measures[name][rows, best] for name in later},
            **{f"final_{name}": measures[name][rows, last] for name in later},
            f"final_train_{task.goal.measure}": trained.train_measure,
        }
        about |= {"diverged": int(trained.diverged.sum())}
        length = steps[-1] - steps[0] + 1
        self._send(round, length, about | means(outcome, ~trained.diverged))
        self.offset += length + 1

    def _evaluated(self, round: Round, after: int, about: dict[str, float], measured: Tree) -> None:
        self._send(round, after, about | means(measured, measured["val_loss"].isfinite()))

    def _send(self, round: Round, after: int, values: dict[str, float]) -> None:
        row = {f"{round.name}/{name}": value for name, value in values.items()}
        self.sender.send(self.offset + after, row)


def described(task: Task, round: Round) -> dict[str, float]:
    """What is the same for all of a round."""
    density = float(task.density(round.ticket).mean())
    return {"level": round.level, "density": density}


def named(goal: Goal, measured: Tree) -> Tree:
    """What was measured, by the names of the goal's own measures, without the steps."""
    return {goal.column(key): value for key, value in measured.items() if key != "step"}


def means(measured: Tree, sound: Tensor) -> dict[str, float]:
    """The mean of every measure [R] over the sound replicates that have it; nothing where none has."""
    found = {name: float(value[sound & value.isfinite()].mean()) for name, value in measured.items()}
    return {name: value for name, value in found.items() if isfinite(value)}


class Sender:
    """A tracker in a thread of its own: training never waits for it, and it ends with its first exception.

    A small file beside the tracker's own notes how far it has come: a run that is continued continues there.
    """

    def __init__(self, composed: Composed, folder: Path, show: Progress) -> None:
        assert composed.run.tracker is not None
        self.name, self.composed, self.show = composed.run.tracker, composed, show
        self.run, self.folder = folder.name, folder / "tracking"
        self.note = self.folder / f"{self.name}.json"
        self.state: dict[str, Any] = {"id": secrets.token_hex(4), "step": -1}
        with suppress(Damaged):  # it is sent from the beginning then
            self.state |= read_json(self.note, {"id": str, "step": int})
        self.sent = self.state["step"]
        self.rows: SimpleQueue[tuple[int, dict[str, float]] | None] = SimpleQueue()
        self.thread = Thread(target=self._work, daemon=True, name=f"tracker={self.name}")

    def send(self, step: int, values: dict[str, float]) -> None:
        """Hand over a row, unless it or a later one was handed over before."""
        if step <= self.sent:
            return
        if self.thread.ident is None:
            self.thread.start()
        self.sent = step
        self.rows.put((step, values))

    def close(self) -> None:
        """Wait until everything is sent, but not for ever."""
        if self.thread.ident is None:
            return
        self.rows.put(None)
        self.thread.join(PATIENCE_SECONDS)
        if self.thread.is_alive():
            self.show.say(
                f"tracker={self.name} has not taken all metrics after {PATIENCE_SECONDS:g} s and is left alone"
            )

    def _work(self) -> None:
        try:
            tracker = self._start()
            while (row := self.rows.get()) is not None:
                step, values = row
                tracker.log(values, step=step)
                self.state["step"] = step
                write(self.note, json.dumps(self.state).encode())
            tracker.finish()
        except (Exception, SystemExit) as error:
            self.show.say(f"tracker={self.name} failed and is left alone, the run goes on: {told(error)}")

    def _start(self) -> Any:
        import pandas as pd
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(cpu=True)  # accelerate asks it which process logs: one, whatever the machine has
        project = self.composed.name.replace("/", "-")
        tracker = LOGGER_TYPE_TO_CLASS[self.name](project, **self._arguments())
        tracker.start()
        if self.state["step"] < 0:
            flat = pd.json_normalize(self.composed.config).to_dict("records")[0]
            config = {key: v if isinstance(v, bool | int | float) else str(v) for key, v in flat.items()}
            tracker.store_init_configuration(config | {"run": self.run})
        return tracker

    def _arguments(self) -> dict[str, Any]:
        """Where trackers differ: how a run is named and continued, and where files go that have no place yet."""
        here = str(self.folder.resolve())
        known: dict[str, dict[str, Any]] = {
            "aim": {"logging_dir": here},
            "dvclive": {"dir": f"{here}/dvclive", "resume": self.state["step"] >= 0},
            "mlflow": {"run_name": self.run},
            "swanlab": {"name": self.run, "log_dir": here},
            "tensorboard": {"logging_dir": here},
            "trackio": {"name": self.run, "resume": "allow"},
            "wandb": {"name": self.run, "id": self.state["id"], "resume": "allow", "dir": here},
        }
        return known.get(self.name, {})
