"""From a composed experiment to a finished run: load, train, publish."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ltx.config.identity import Composed
from ltx.core.checks import Checks
from ltx.core.goals import named
from ltx.core.recipe import Plan
from ltx.core.sealed import SCHEMA
from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.engine.device import tuned
from ltx.engine.executors import Executor, choose, demand_engine
from ltx.errors import Interrupted, UserError, demand
from ltx.experiment.growth import Growth, there
from ltx.experiment.journal import Journal
from ltx.experiment.lanes import Lanes, shares
from ltx.experiment.loop import play
from ltx.experiment.machine import machine
from ltx.experiment.progress import Progress, Several
from ltx.experiment.status import LOG, Heartbeat
from ltx.experiment.store import Store
from ltx.experiment.tracking import check_installed, mirroring
from ltx.files import open_to_append


def execute(composed: Composed, show: Progress | None = None, *, logged: bool = False) -> Path:
    """Run one experiment to its end, continuing what is there; returns its folder.

    `logged`: what it prints goes to log.txt in that folder. Raises UserError for what the user can mend, Busy
    if another process has the run, and Interrupted after saving when asked to stop.
    """
    composed.run.afford()
    check_installed(composed.run.tracker)
    with tuned():
        return _execute(composed, show or Progress(), logged=logged)


def _execute(composed: Composed, show: Progress, *, logged: bool) -> Path:
    run, seconds = composed.run, patience()
    device = run.torch_device()
    task = run.task(run.dataset.load(), device)
    plan, fingerprint = run.recipe.plan(len(task.data.train)), task.data.fingerprint
    run.check(task.data.shape, task.layers, plan)
    demand_engine(task, plan)
    folder = composed.folder(fingerprint)
    executor = choose(task, Round(0, task.dense(), plan))
    lanes = Lanes(task, *shares(run, task, plan, executor))
    with logging_to(folder / LOG) if logged else nullcontext(), lanes, stopping() as stop:
        about = {"config": composed.config, **machine(device)}
        tag = composed.tag(fingerprint)
        opened = Store(folder, task, tag, about, stop, run.checkpoint_seconds, seconds)
        with opened as store, Heartbeat(folder) as beat:
            complete(composed, task, plan, store, show, beat, lanes, executor)
    return folder


def patience() -> float:
    """How long to wait for another process that has the run's folder: LTX_LOCK_SECONDS, 0 unless set."""
    text = os.environ.get("LTX_LOCK_SECONDS") or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    demand(0 <= seconds < 1e9, "LTX_LOCK_SECONDS", text, "it must be a number of seconds, 0 or more")
    return seconds


def complete(
    composed: Composed,
    task: Task,
    plan: Plan,
    store: Store,
    show: Progress,
    beat: Heartbeat,
    lanes: Lanes,
    executor: type[Executor],
) -> None:
    """Train what is missing of a run whose folder we hold, and publish it."""
    growth = Growth.of(composed.run, there(store.folder, store.tag))
    whole = composed.grown(growth.whole)
    about = {"schema": SCHEMA, "tag": store.tag, **facts(whole, task, executor), **machine(task.device)}
    told = Several(show, beat)
    journal = Journal(store, whole.config, about, Checks(), told)
    if (was := journal.before.get("tag", store.tag)) != store.tag:
        raise UserError(
            f"{store.folder} holds another experiment: it is {was[:24]}..., this one is {store.tag[:24]}...; "
            "choose another out=DIR"
        )
    journal.checks.passed.update(journal.before.get("checks", {}))
    where = f"{lanes.count} lanes on {about['device']}" if lanes.count > 1 else about["device"]
    show.say(
        f"{composed.name}: {about['method']} on {about['dataset']}, {task.describe()}, "
        f"seeds {task.seeds[0]}..{task.seeds[-1]}, {plan.steps} steps a round, "
        f"replicates {about['engine']}, {where}, engine {task.engine}\nresults go to {store.folder}"
    )
    if composed.dropped:
        show.say(f"left out of {composed.name}, for what was chosen instead: {', '.join(composed.dropped)}")
    if (model := composed.run.model).weights:
        apart = f"by what {', '.join(model.fresh)} draws, " if model.fresh else ""
        show.say(
            f"every seed begins with {model.weights}: seeds differ {apart}by batches, augmentation and dropout"
        )
    for note in composed.run.method.notes(task.layers):
        show.say(note)
    if warning := other_threads(journal.before, about, task):
        show.say(warning)
    try:
        with show, mirroring(composed, store.folder, show) as mirrors, journal:
            told.shows += mirrors
            play(growth, task, plan, journal, lanes)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(
            f"stopped; everything so far is in {store.folder}, the same command continues"
        ) from None
    for line in outcome(growth, journal):
        show.say(line)


def outcome(growth: Growth, journal: Journal) -> Iterator[str]:
    """What is to be said of a run that has come to its end."""
    store = journal.store
    if journal.ended:
        yield journal.ended
    if growth.kept:
        yield f"{store.folder} has more than was asked for, which is kept: {', '.join(growth.kept)}"
    for place in store.damaged:
        done = "written" if place.startswith("weights/") else "trained"
        yield f"{store.folder / place} was damaged and has been {done} again: {store.damaged[place]}"
    for name in journal.mended:
        yield f"{store.folder / name} was not what its rounds say and has been made again from them"
    if journal.unchanged:
        yield f"{store.folder} was complete already; nothing was trained"


def other_threads(before: Mapping[str, Any], about: Mapping[str, Any], task: Task) -> str:
    """A word where a run goes on with another number of threads, and its network's last bits depend on it."""
    was, now = before.get("threads"), about["threads"]
    dense = {"dense", "output"} >= set(task.layers.kinds.values())
    if was in (None, now) or dense:
        return ""
    return (
        f"this run began with {was} thread{'s' * (was > 1)} and goes on with {now}: sums of convolutions are taken "
        f"in another order, so that the last bits may differ; OMP_NUM_THREADS={was} keeps them"
    )


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append to a file what this process and the libraries in it print, tracebacks included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    saved = [os.dup(number) for number in (1, 2)]
    try:
        file = open_to_append(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with file:
        for stream, number in zip(streams, (1, 2), strict=True):
            stream.flush()
            os.dup2(file.fileno(), number)
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError | Interrupted):
            traceback.print_exc()
        raise
    finally:
        for stream, number, before in zip(streams, (1, 2), saved, strict=True):
            stream.flush()
            os.dup2(before, number)
            os.close(before)


def facts(composed: Composed, task: Task, executor: type[Executor]) -> dict[str, Any]:
    """What a reader of the manifest needs to know about an experiment besides its configuration."""
    splits = {name: getattr(task.data, name) for name in ("train", "val", "test")}
    return {
        "command": composed.command,
        "config": composed.name,
        **{group: composed.config[group]["name"] for group in ("model", "dataset", "method")},
        "network": task.describe(),
        "weights": task.layers.total,
        "seeds": list(task.seeds),
        "goal": {"name": named(task.goal), **task.goal.described()},
        "fingerprint": task.data.fingerprint,
        "normalisation": task.data.prepare.described(),
        "examples": {name: len(split) for name, split in splits.items()},
        "engine": executor.name,
        "bits_depend_on_threads": executor.by_threads,
    }


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask training to save and stop after the current step; a second Ctrl-C stops at once.

    Not below submitit, whose handlers requeue the job: Slurm would take one that stopped by itself for finished.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread() or "SUBMITIT_FOLDER" in os.environ:
        yield asked.is_set
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
