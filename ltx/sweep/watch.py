"""What a person sees of a sweep while it runs and when it has ended, from its runs' files alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ltx.console import Console
from ltx.errors import UserError, plain
from ltx.experiment.status import FILE, PLAN, State, Sweep, state

LOOK_SECONDS = 1.0
REMIND_SECONDS = 60.0
"""How often a sweep without a terminal says at which level its running jobs are."""
ORDER = ("running", "silent", "failed", "damaged", "interrupted", "queued", "complete")
"""What is shown first where not everything fits."""
STYLES = {
    "running": "bold",
    "failed": "red",
    "damaged": "red",
    "silent": "yellow",
    "interrupted": "yellow",
    "queued": "dim",
}


def place(state: State) -> str:
    """Where a run is: `level 3 reinit 51.2 %`."""
    if state.level is None:
        return ""
    density = f" {100 * state.density:.3g} %" if state.density is not None else ""
    return f"level {state.level} {state.role}{density}"


def detail(state: State) -> str:
    """What else is to be known of a run in its state."""
    if state.name == "failed":
        return state.reason + (f"; log: {state.log}" if state.log else "")
    if state.name == "damaged":
        return f"{state.reason}; the same command mends it"
    if state.name == "running" and state.steps:
        measured = f", {state.measured}" if state.measured else ""
        return f"step {state.step:,} of {state.steps:,}{measured}"
    if state.name == "silent" and state.seconds is not None:
        return f"no sign of life for {state.seconds / 60:.0f} min; the same command continues it"
    if state.name == "complete" and state.seconds is not None:
        return f"{state.seconds:.0f} s of training"
    return ""


def told(label: str, state: State) -> str:
    """A run on one plain line."""
    return ", ".join(filter(None, [f"{label}: {state.name}", place(state), detail(state)]))


def counts(states: Sequence[State]) -> str:
    """How many jobs are in which state: `8 jobs: 2 running, 1 failed, 5 complete`."""
    many = Counter(state.name for state in states)
    named = ", ".join(f"{many[name]} {name}" for name in ORDER if many[name])
    return f"{len(states)} {'job' if len(states) == 1 else 'jobs'}: {named}"


def overview(labels: Sequence[str], states: Sequence[State], rows: int | None = None) -> Group:
    """A table of jobs; of the most urgent, a line each, where only some `rows` of them fit."""
    table, short = Table(box=box.SIMPLE_HEAD, pad_edge=False), rows is not None
    for head in ("job", "state", "at"):
        table.add_column(head, overflow="ellipsis" if short else "fold", no_wrap=short)
    table.add_column("", overflow="fold")
    chosen = list(range(len(states)))
    if rows is not None and len(chosen) > rows:
        chosen = sorted(sorted(chosen, key=lambda n: ORDER.index(states[n].name))[: max(rows, 1)])
    for number in chosen:
        now = states[number]
        style = STYLES.get(now.name, "")
        more = Text(
            plain(detail(now)), no_wrap=short, overflow="ellipsis" if short else None
        )  # what gives way first
        table.add_row(Text(plain(labels[number])), Text(now.name, style), Text(plain(place(now))), more)
    return Group(Text(counts(states)), table)


@contextmanager
def watching(sweep: Sweep, console: Console) -> Iterator[threading.Event]:
    """Show how the jobs are doing until the event is set: a table on a terminal, a line a change elsewhere."""
    over = threading.Event()
    look = _live if console.is_terminal else _lines
    thread = threading.Thread(target=look, args=(sweep, console, over), daemon=True)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()


def _live(sweep: Sweep, console: Console, over: threading.Event) -> None:
    labels = sweep.labels()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not over.wait(LOOK_SECONDS):
            states = [job.state() for job in sweep.jobs]
            live.update(overview(labels, states, console.height - 6), refresh=True)


def _lines(sweep: Sweep, console: Console, over: threading.Event) -> None:
    labels, before = sweep.labels(), [job.state() for job in sweep.jobs]
    since = 0.0
    while not over.wait(LOOK_SECONDS):
        since += LOOK_SECONDS
        states = [job.state() for job in sweep.jobs]
        remind = since >= REMIND_SECONDS
        for label, was, now in zip(labels, before, states, strict=True):
            if now.name != was.name or (remind and now.name == "running"):
                console.say(told(label, now))
        before, since = states, 0.0 if remind else since


def status(paths: Sequence[Path], follow: bool = False) -> None:
    """Print how every sweep and every run below the paths is doing; raises UserError if there is none.

    `follow`: again and again until nothing is queued or running any more.
    """
    console = Console()
    if not follow:
        for part in report(paths):
            show(console, *part)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            parts = report(paths)
            rows = max(3, console.height // len(parts) - 6)
            tables = (
                Group(Text(plain(title), "bold"), overview(labels, now, rows)) for title, labels, now in parts
            )
            live.update(Group(*tables), refresh=True)
            if all(state.over or state.name == "silent" for _, _, states in parts for state in states):
                return
            sleep(LOOK_SECONDS)


def report(paths: Sequence[Path]) -> list[tuple[str, list[str], list[State]]]:
    """Title, labels and states of every sweep below the paths, and of the runs that belong to none."""
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(f"no such folder: {', '.join(missing)}")
    plans = {file.resolve(): file for path in paths for file in path.rglob(PLAN)}
    sweeps = [Sweep.read(plan) for _, plan in sorted(plans.items())]
    theirs = {job.folder.resolve() for sweep in sweeps for job in sweep.jobs}
    files = (file for name in ("manifest.json", FILE) for path in paths for file in path.rglob(name))
    others = sorted({file.parent.resolve() for file in files} - theirs)
    parts = [
        (f"{sweep.folder.name} ({sweep.launcher})", sweep.labels(), [job.state() for job in sweep.jobs])
        for sweep in sweeps
    ]
    if others:
        names = [f"{folder.parent.name}/{folder.name}" for folder in others]
        parts.append(("runs", names, [state(folder) for folder in others]))
    if not parts:
        raise UserError(f"no run and no sweep in {', '.join(map(str, paths))}")
    return parts


def show(console: Console, title: str, labels: Sequence[str], states: Sequence[State]) -> None:
    """One sweep: a table on a terminal, a line a job elsewhere."""
    console.say(title)
    if console.is_terminal:
        console.print(overview(labels, states))
        return
    console.say(counts(states))
    for label, now in zip(labels, states, strict=True):
        console.say(told(label, now))
