"""From a composed experiment to a finished run: load, train, publish. The task that Hydra's launchers call."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from omegaconf import DictConfig, OmegaConf

from ltx.config.compose import Composed, compose, config_dir, register
from ltx.console import Console
from ltx.core.checks import Checks
from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.engine.device import tune
from ltx.engine.forward import choose
from ltx.errors import Interrupted, UserError
from ltx.experiment.loop import play
from ltx.experiment.progress import Progress, Several
from ltx.experiment.status import LOG, Heartbeat
from ltx.experiment.store import Store, machine, now
from ltx.experiment.tracking import check_installed, mirroring
from ltx.files import write
from ltx.report.objective import objective

WITH_VALUE = {
    "-cd",
    "--config-dir",
    "-cn",
    "--config-name",
    "-cp",
    "--config-path",
    "-c",
    "--cfg",
    "-p",
    "--package",
}
"""Hydra's flags that are followed by a value."""


def execute(composed: Composed, show: Progress | None = None, *, logged: bool = False) -> Path:
    """Run one experiment to its end, continuing what is there; returns its folder.

    `logged`: what it prints goes to log.txt in that folder. Raises UserError for what the user can mend, Busy
    if another process has the run, and Interrupted after saving when asked to stop.
    """
    run = composed.run
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
    with path.open("ab") as file:
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
        "fingerprint": task.data.fingerprint,
        "examples": {name: len(split) for name, split in splits.items()},
        "engine": choose(task.network(), plan).name,
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


def launch(args: list[str]) -> None:
    """Run one experiment: compose and check first, so that the messages are ours, then let Hydra call back."""
    overrides, flags = split(args)
    check_flags(flags)
    if {"-m", "--multirun"} & set(flags) or any(
        o.startswith(("launcher=", "hydra.mode=")) for o in overrides
    ):
        raise UserError(
            "`ltx run` trains one experiment here; `ltx sweep` launches several, here or elsewhere"
        )
    compose(overrides, *extra_dirs(flags)[:1])
    failure: list[BaseException] = []

    def alone(config: DictConfig) -> None:
        try:
            finish(execute(Composed.of(config, HydraConfig.get().runtime.choices)))
        except (UserError, Interrupted) as error:  # Hydra would print its own line before ours
            failure.append(error)

    through_hydra(alone, overrides, flags)
    if failure:
        raise failure[0]


def job(config: DictConfig) -> float:
    """One job of a sweep, and its objective; of module level, for launchers send it elsewhere by its name."""
    runtime = HydraConfig.get().runtime
    os.chdir(runtime.cwd)  # a Ray cluster's workers begin where the cluster was started
    composed = Composed.of(config, runtime.choices)
    return objective(execute(composed, logged=True), composed.run.objective)


def through_hydra(task: Callable[[DictConfig], Any], overrides: list[str], flags: list[str]) -> None:
    """Hand over to Hydra, which reads its arguments from sys.argv and calls `task`."""
    arguments, sys.argv = sys.argv, ["ltx", *overrides, *flags]
    try:
        register(overrides)
        hydra.main(version_base="1.3", config_path=config_dir(), config_name="ltx")(task)()
    finally:
        sys.argv = arguments


def finish(folder: Path) -> None:
    """Draw the run's figures and print its table."""
    from ltx import report

    found = report.compare([folder])
    report.write(found)
    console = Console()
    report.print_tables(found, console, ["means"])
    console.say(f"figures and tables: {folder}")


def split(args: list[str]) -> tuple[list[str], list[str]]:
    """Overrides and Hydra's flags apart: argparse takes positional arguments in one stretch only."""
    overrides: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *args], args, strict=False):
        value = before in WITH_VALUE or (before == "--info" and "=" not in word)
        (flags if word.startswith("-") or value else overrides).append(word)
    return overrides, flags


def check_flags(flags: list[str]) -> None:
    """Refuse flags that Hydra does not have; raises UserError."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `ltx run --hydra-help` lists Hydra's flags")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    if strange := parser.parse_known_args(flags)[1]:
        refuse(f"unknown flag {strange[0]}")


def extra_dirs(flags: list[str]) -> list[str]:
    """The folder that -cd or --config-dir names, if any."""
    named = [b for a, b in pairwise(flags) if a in ("-cd", "--config-dir")]
    return named + [f.partition("=")[2] for f in flags if f.startswith("--config-dir=")]


def completions(words: list[str], incomplete: str) -> list[str]:
    """Hydra's own completions of a half-typed override; bash hands `config=m` over as three words."""
    words, head = list(words), ""
    if words[-1:] == ["="]:  # config = m<TAB>
        words, head = words[:-2], words[-2] + "="
    elif words and "=" not in words[-1] and words[-1][0] not in "-~":  # config =<TAB>
        head = words.pop() + "="
    joined: list[str] = []
    for word in words:
        if word == "=" or (joined and joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    register()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=config_dir()):
        loader = GlobalHydra.instance().config_loader()
        found = DefaultCompletionPlugin(loader)._query("ltx", " ".join([*joined, head + incomplete]))
    return [word.removeprefix(head) for word in found]
