"""`ltx bench`: what a ticket costs in every form that it can be used in, measured, beside the dense network."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ltx.console import Console
from ltx.errors import Interrupted, demand, plain
from ltx.experiment.tables import table
from ltx.files import write
from ltx.manifest import enter
from ltx.report.figures.bench import draw
from ltx.study.export import Wish
from ltx.study.formats import Model
from ltx.study.forms import Bench, Form, check_batch, gathered, sorted_out
from ltx.study.memory import model_of, peak

CALLS, SECONDS = 10, 0.2
"""A form's turn: so many calls are timed after one that warms up, fewer where they take longer than this."""
COLUMNS = (
    "network form runtime density measure test examples agreement largest_difference bytes macs peak_bytes "
    "one_median one_p95 all_median all_p95 per_second threads batch calls "
    "bytes_ratio macs_ratio peak_bytes_ratio one_median_ratio all_median_ratio per_second_ratio"
).split()
"""Of bench.csv: seconds at batch 1 with one thread and with all, examples a second at a batch, ratios to dense."""
COMPARED = [name.removesuffix("_ratio") for name in COLUMNS if name.endswith("_ratio")]


@dataclass
class Measured:
    """What is known of a form so far."""

    bench: Bench
    form: Form
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def row(self, threads: int, batch: int) -> dict[str, Any]:
        form = self.form
        about = {"network": self.bench.title, "form": form.name, "runtime": form.runtime}
        known = {"density": form.density, "bytes": form.bytes, "macs": form.macs}
        return about | known | self.facts | self.times(batch) | {"threads": threads, "batch": batch}

    def times(self, batch: int) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": len(self.seconds["one"])}
        for name in ("one", "all"):
            if times := self.seconds[name]:
                found |= {f"{name}_median": np.median(times), f"{name}_p95": np.quantile(times, 0.95)}
        if times := self.seconds["batch"]:
            found["per_second"] = batch / np.median(times)
        return found


def bench(
    paths: Sequence[Path],
    wish: Wish | None = None,
    *,
    batch: int = 256,
    turns: int = 20,
    out: Path | None = None,
) -> Path:
    """Measure the forms of runs and files in turn; returns the folder of the table and the figures.

    Raises UserError; Interrupted after Ctrl-C, when what was measured until then has been written.
    """
    check_batch(batch)
    demand(turns >= 1, "--turns", turns, "it must be 1 or more")
    asked = sorted_out(list(paths))
    demand(out is not None or len(asked) == 1, "--out", None, "say where the tables of several runs go")
    folder = out or next(iter(asked)) / "bench"
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            gathered(run, what, wish or Wish(), made(Path(scratch, str(place))))
            for place, (run, what) in enumerate(asked.items())
        ]
        notes = list(dict.fromkeys(note for bench in found for note in bench.notes))
        Console(stderr=True).say(*notes)
        all_ = [Measured(bench, form) for bench in found for form in bench.forms]
        stopped = measure(all_, threads, batch, turns)
    if stopped and not all_[0].facts:
        raise Interrupted("stopped before anything was measured")
    keep(folder, notes, all_, threads, batch)
    for run in asked:
        enter(run, folder.iterdir())
    if stopped:
        raise Interrupted(f"stopped; what was measured until then is in {folder}")
    return folder


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def measure(all_: Sequence[Measured], threads: int, batch: int, turns: int) -> bool:
    """Fill in what there is to know, forms in turn; whether Ctrl-C ended it."""
    before = torch.get_num_threads()
    try:
        with shown(len(all_) + turns) as step:
            for one in all_:
                step(f"accuracy and memory: {one.form.name} ({one.form.runtime})", aloud=True)
                one.facts |= one.bench.quality(one.form)
                one.facts["peak_bytes"] = peak(one.form.source, needs(one.form), one.bench.inputs[:1])
            plans = ways(all_, threads, batch)
            for turn in range(turns):
                step(f"turn {turn + 1} of {turns}", aloud=turn % 10 == 0)
                for count, visits in plans:
                    torch.set_num_threads(count)
                    for model, inputs, seconds in visits:
                        visit(model, inputs, seconds)
    except KeyboardInterrupt:
        return True
    finally:
        torch.set_num_threads(before)
    return False


Visits = list[tuple[Model, np.ndarray, list[float]]]


def ways(all_: Sequence[Measured], threads: int, batch: int) -> list[tuple[int, Visits]]:
    """What a turn visits: every form with one thread, then every form with all, then a batch of examples."""
    plans = []
    for name, count, examples in (("one", 1, 1), ("all", threads, 1), ("batch", threads, batch)):
        models = [model_of(one.form.source, count) for one in all_]
        inputs = [np.resize(one.bench.inputs, (examples, *one.bench.inputs.shape[1:])) for one in all_]
        plans.append((count, list(zip(models, inputs, [one.seconds[name] for one in all_], strict=True))))
    return plans


def visit(model: Model, inputs: np.ndarray, seconds: list[float]) -> None:
    """Time some calls, after one that brings the form's weights back into the caches."""
    model(inputs)
    ends = time.perf_counter() + SECONDS
    for _ in range(CALLS):
        began = time.perf_counter()
        model(inputs)
        now = time.perf_counter()
        seconds.append(now - began)
        if now > ends:
            break


def needs(form: Form) -> str:
    """The package whose import is no part of a form's memory."""
    return form.runtime.partition(".")[0]


# -- what is kept and said


def keep(folder: Path, notes: Sequence[str], all_: Sequence[Measured], threads: int, batch: int) -> None:
    """Write bench.csv, then what is made of it: pages and figures."""
    rows = with_ratios([one.row(threads, batch) for one in all_ if one.facts])
    write(
        folder / "bench.csv", table(COLUMNS, [tuple(row.get(name, "") for name in COLUMNS) for row in rows])
    )
    draw(folder, "Forms of a network", notes)


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every row with its ratios to the first of its network, which is dense; None is left empty."""
    first: dict[str, Mapping[str, Any]] = {}
    found = []
    for row in rows:
        dense = first.setdefault(row["network"], row)
        ratios = {
            f"{name}_ratio": row[name] / dense[name] for name in COMPARED if row.get(name) and dense.get(name)
        }
        found.append({name: value for name, value in (dict(row) | ratios).items() if value is not None})
    return found


@contextmanager
def shown(total: int) -> Iterator[Callable[..., None]]:
    """How far it is: a bar on a terminal, elsewhere a line for what is said aloud; to standard error."""
    console = Console(stderr=True)
    look = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*look, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task("", total=total, completed=-1)

        def step(text: str, *, aloud: bool) -> None:
            bars.update(bar, description=plain(text), advance=1)
            if aloud and not console.is_terminal:
                console.say(text)

        yield step
