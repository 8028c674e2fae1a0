"""From a composed experiment to a finished run: load, train, publish."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltx.config.identity import Composed
from ltx.core.checks import Checks
from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.engine.device import tune
from ltx.engine.executors import choose
from ltx.errors import Interrupted, UserError
from ltx.experiment.loop import play
from ltx.experiment.progress import Progress, Several
from ltx.experiment.status import LOG, Heartbeat
from ltx.experiment.store import Store, machine, now
from ltx.experiment.tracking import check_installed, mirroring
from ltx.files import open_to_append, write


def execute(composed: Composed, show: Progress | None = None, *, logged: bool = False) -> Path:
    """Run one experiment to its end, continuing what is there; returns its folder.

    `logged`: what it prints goes to log.txt in that folder. Raises UserError for what the user can mend, Busy
    if another process has the run, and Interrupted after saving when asked to stop.
    """
    run = composed.run
    run.afford()
    check_installed(run.tracker)
    tune()
    device = run.torch_device()
    data = run.dataset.load().to(device)
    layers = run.layers(data.shape, data.classes)
    plan = run.recipe.plan(len(data.train))
    run.method.check(layers, plan)
    task = Task(run.model, data, layers, run.seeds, device)
    folder = composed.folder(data.fingerprint)
    with logging_to(folder / LOG) if logged else nullcontext(), stopping() as stop:
        opened = Store(
            folder,
            task,
            composed.name,
            composed.config["method"]["name"],
            stop,
            run.checkpoint_seconds,
            patience=float(os.environ.get("LTX_LOCK_SECONDS", 0)),
        )
        with opened as store, Heartbeat(folder) as beat:
            complete(composed, task, plan, store, show or Progress(), beat)
    return folder


def complete(
    composed: Composed, task: Task, plan: Plan, store: Store, show: Progress, beat: Heartbeat
) -> None:
    """Train what is missing of a run whose folder we hold, and publish it."""
    began = time.perf_counter()
    write(store.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(composed.config)).encode())
    before = store.manifest
    checks = Checks(before.get("checks", {}))
    store.manifest = {**facts(composed, task, plan), "started": before.get("started", now())}
    show.say(
        f"{composed.name}: {store.manifest['method']} on {store.manifest['dataset']}, {task.describe()}, "
        f"seeds {task.seeds[0]}..{task.seeds[-1]}, {plan.steps} steps a round, "
        f"replicates {store.manifest['engine']}, {store.manifest['device']}\n"
        f"results go to {store.folder}"
    )
    if composed.dropped:
        show.say(f"left out of {composed.name}, for what was chosen instead: {', '.join(composed.dropped)}")
    try:
        with show, mirroring(composed, store.folder, show) as mirrors:
            play(composed.run, task, plan, store, checks, Several(show, beat, *mirrors))
    except (Interrupted, KeyboardInterrupt):
        seconds = round(before.get("seconds", 0) + time.perf_counter() - began, 1)
        store.publish("interrupted", checks=dict(checks.passed), seconds=seconds)
        raise Interrupted(
            f"stopped; everything so far is in {store.folder}, the same command continues"
        ) from None
    if store.trained_now or before.get("status") != "complete":
        seconds = round(before.get("seconds", 0) + time.perf_counter() - began, 1)
        store.publish("complete", checks=dict(checks.passed), finished=now(), seconds=seconds)
    else:
        show.say(f"{store.folder} was complete already; nothing was trained")
    for damaged in store.damaged:
        show.say(f"{damaged} was damaged and has been trained again")


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


def facts(composed: Composed, task: Task, plan: Plan) -> dict[str, Any]:
    """What a reader of the manifest needs to know about an experiment besides its configuration."""
    splits = {name: getattr(task.data, name) for name in ("train", "val", "test")}
    return {
        "config": composed.name,
        **{group: composed.config[group]["name"] for group in ("model", "dataset", "method")},
        "network": task.describe(),
        "weights": task.layers.total,
        "seeds": list(task.seeds),
        "goal": {"name": "classification", **task.goal.described()},
        "fingerprint": task.data.fingerprint,
        "examples": {name: len(split) for name, split in splits.items()},
        "engine": choose(task, Round(0, task.dense(), plan)).name,
        **machine(task.device),
    }


@contextmanager
def stopping() -> Iterator:
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
