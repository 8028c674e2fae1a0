"""A grid of experiments: checked, written down as a plan, launched by Hydra, compared at the end."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob

from ltx.config import hydra
from ltx.config.compose import compose_all
from ltx.config.identity import Composed
from ltx.config.overrides import check_override, check_settings, parse, quoted, swept
from ltx.config.registry import options, register
from ltx.config.trust import search
from ltx.console import Console
from ltx.data.base import Data
from ltx.errors import Failed, Interrupted, UserError
from ltx.experiment.status import Job, Sweep
from ltx.experiment.tracking import check_installed
from ltx.sweep.launch import Words, job, through_hydra
from ltx.sweep.watch import show, watching


def sweep(args: list[str], seeds_per_job: int | None = None) -> None:
    """Run every combination of the values given, as far as it is missing, and compare them.

    `seeds_per_job`: how many of a run's seeds go into one job; all, if None. Raises UserError before anything
    is launched, Failed after all else is done if a job failed, Interrupted if asked to stop.
    """
    words = Words.of(args)
    overrides, extra = words.overrides, words.extra_dir
    if words.shows:
        raise UserError(f"{words.shows[0].partition('=')[0]} is not for a sweep; `ltx run` takes it")
    if any(override.startswith("hydra/sweeper=") for override in overrides):
        searched(words, seeds_per_job)
    else:
        launched(planned(overrides, extra, seeds_per_job), words)


def launched(plan: Sweep, words: Words) -> None:
    """Run what is missing of a plan, and compare all of it."""
    console = Console(stderr=True)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {plan.folder}: {error.strerror}; choose another out=DIR") from error
    before = [job.state().name == "complete" for job in plan.jobs]
    jobs = f"{len(plan.jobs)} job{'s' * (len(plan.jobs) > 1)}"
    console.say(f"{jobs}, {sum(before)} done before; the sweep is {plan.folder}")
    if not all(before):
        hydras = ("launcher=", "hydra.", "hydra/", "out=", "device=")
        theirs = [word for word in words.overrides if word.lstrip("+~").startswith(hydras)]
        told = [f"hydra.sweeper.plan={quoted(str(plan.write()))}", sweep_dir(plan.folder.parent)]
        with watching(plan, console) as seen_enough, stoppable(seen_enough):
            through_hydra(job, [*search(words.extra_dir), *theirs, *told], ["--multirun"])
    finish(plan, before)


def searched(words: Words, seeds_per_job: int | None) -> None:
    """Let a sweeper of Hydra's run jobs that it makes up as it goes; raises UserError."""
    if seeds_per_job is not None:
        raise UserError(f"--seeds-per-job {seeds_per_job} is for grids, not for a sweeper that searches")
    check_settings(words.overrides)
    fixed = [override for override in words.overrides if not swept(override)]
    (composed,) = compose_all([fixed], words.extra_dir)
    there = sweep_dir(composed.run.folder / "sweeps")
    told = ["hydra/hydra_logging=default", there, *search(words.extra_dir), *words.overrides]
    with stoppable(threading.Event()):  # and it tells of its trials in Hydra's log
        through_hydra(job, told, ["--multirun"])


def sweep_dir(folder: Path) -> str:
    """The override that says where Hydra itself writes."""
    return f"hydra.sweep.dir={quoted(str(folder))}"


def planned(overrides: Sequence[str], extra_dir: str | None, seeds_per_job: int | None) -> Sweep:
    """Every combination, composed and checked, with its data at hand; raises UserError."""
    if seeds_per_job is not None and seeds_per_job < 1:
        raise UserError(f"--seeds-per-job {seeds_per_job} is not possible: it must be 1 or more")
    combinations = grid(overrides, extra_dir)
    combined = list(zip(combinations, compose_all(combinations, extra_dir), strict=True))
    launcher = [*(word.partition("=")[2] for word in overrides if word.startswith("launcher=")), "local"][0]
    for _, composed in combined:
        check_installed(composed.run.tracker)
        if launcher == "local":  # a login node need not have a cluster's devices
            composed.run.torch_device()
            composed.run.afford()
    read: dict[str, Data] = {}
    for _, composed in combined:  # only when all are right, and once: fetched here instead of by all jobs
        if (name := source(composed)) not in read:
            read[name] = composed.run.dataset.load()
        run, data = composed.run, read[name]
        run.check(data.shape, run.layers(data.shape, data.outputs), run.recipe.plan(len(data.train)))
    jobs: dict[Path, Job] = {}
    for words, composed in combined:
        for part, seeds in parts(composed, seeds_per_job):
            not_theirs = ("seed=", "replicates=") if seeds else ()
            own = [
                word for word in words if not word.lstrip("+~").startswith(("hydra.", "hydra/", *not_theirs))
            ]
            folder = part.folder(read[source(composed)].fingerprint)
            jobs.setdefault(folder, Job([*own, *seeds], folder))
    names = "+".join(sorted({composed.name.replace("/", "-") for _, composed in combined})[:3])
    tag = hashlib.sha256("\n".join(sorted(map(str, jobs))).encode()).hexdigest()[:8]
    folder = combined[0][1].run.folder / "sweeps" / f"{names}-{tag}"
    return Sweep(folder, launcher, list(jobs.values()))


def grid(overrides: Sequence[str], extra_dir: str | None) -> list[list[str]]:
    """Every combination of the values that the overrides name, as Hydra's own sweeper makes them."""
    register(overrides)
    check_settings(overrides)
    check_once(overrides)
    parsed = []
    for override in overrides:
        key, one = override.partition("=")[0], parse(override, extra_dir)
        if isinstance(pattern := one.value(), Glob):
            if not (names := pattern.filter(options(key, extra_dir))):
                raise UserError(
                    f"{override} matches nothing; choose from {', '.join(options(key, extra_dir))}"
                )
            override = f"{key}={','.join(names)}"
            one = parse(override, extra_dir)
        parsed.append(one)
        if not one.is_sweep_override():
            check_override(override, extra_dir)
            if key == "hydra.mode":
                raise UserError(f"{override} is not possible: `ltx sweep` launches jobs, `ltx run` runs here")
        elif key in ("out", "launcher") or key.startswith("hydra"):
            raise UserError(f"{override} is not possible: a sweep has one {key}")
    if endless := [o.input_line for o in parsed if o.is_sweep_override() and not o.is_discrete_sweep()]:
        raise UserError(
            f"{endless[0]} is no list of values; only a sweeper that searches takes it: hydra/sweeper="
        )
    combinations = hydra.combinations(parsed)
    if not combinations:
        raise UserError(f"{' '.join(overrides)} names no combination: a range is empty")
    return combinations


def check_once(overrides: Sequence[str]) -> None:
    """Refuse a key of several values that is given again; raises UserError."""
    for word in filter(swept, overrides):
        key = word.partition("=")[0]
        if others := [other for other in overrides if other.partition("=")[0] == key and other is not word]:
            raise UserError(f"{key} is given twice: {word} and {others[0]}")


def source(composed: Composed) -> str:
    """What an experiment's data are read from."""
    return json.dumps(composed.config["dataset"], sort_keys=True)


def parts(composed: Composed, size: int | None) -> Iterator[tuple[Composed, list[str]]]:
    """An experiment in batches of its seeds, each with the overrides that make it."""
    if size is None:
        yield composed, []
        return
    seeds = composed.run.seeds
    for first in range(0, len(seeds), size):
        batch = seeds[first : first + size]
        yield composed.seeded(batch[0], len(batch)), [f"seed={batch[0]}", f"replicates={len(batch)}"]


@contextmanager
def stoppable(asked: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event and stop the sweep, whose launcher lets its jobs save first."""

    def stop(number: int, frame: Any) -> None:
        asked.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; what is done is kept, the same sweep goes on with what is missing"
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(plan: Sweep, before: Sequence[bool]) -> None:
    """Tell how every job ended, compare those that have something to compare; raises Failed if one failed."""
    from ltx import report

    console, states = Console(stderr=True), [job.state() for job in plan.jobs]
    show(console, "", plan.labels(), states)
    found = [job.folder for job in plan.jobs if (job.folder / "levels.csv").exists()]
    failed = sum(state.name == "failed" for state in states)
    if found:
        compared = report.compare(found)
        results = Console()
        report.print_tables(compared, results, ["means", "matching"])
        try:
            report.write(compared, out=plan.folder)
            results.say(f"figures and tables: {plan.folder}")
        except UserError as error:  # a full disk fails jobs too, of which more is to be said
            if not failed:
                raise
            console.say(str(error))
    if failed:
        raise Failed(f"{failed} of {len(states)} jobs failed; the same sweep tries them again")
