"""What a person sees while a run trains: bars on a terminal, one plain line a level elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ltx.console import Console
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.errors import plain
from ltx.pruning.masks import emptied

if TYPE_CHECKING:
    from ltx.experiment.journal import Show

REFRESH_SECONDS = 0.25


class Several:
    """Tells several at once."""

    def __init__(self, *shows: Show) -> None:
        self.shows = list(shows)

    def begin(self, task: Task, round: Round) -> None:
        for show in self.shows:
            show.begin(task, round)

    def tick(self, step: int, measured: Tree | None) -> None:
        for show in self.shows:
            show.tick(step, measured)

    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None:
        for show in self.shows:
            show.end(task, round, trained, fresh=fresh)


class Progress:
    """Level, density, step rate, time left and the goal's measure on the validation split; to standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[measured]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.again = 0

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()
        self._say_again()

    def say(self, text: str) -> None:
        self.console.say(*text.splitlines())

    def begin(self, task: Task, round: Round) -> None:
        self._say_again()
        density = 100 * float(task.density(round.ticket).mean())
        self.bar = self.bars.add_task(
            f"level {round.level} {plain(round.name)} {density:.1f} %",
            total=round.plan.steps - round.start,
            rate="",
            measured="",
        )
        self.goal, self.measured = task.goal, ""
        self.first, self.began, self.shown = round.start, time.monotonic(), 0.0

    def tick(self, step: int, measured: Tree | None) -> None:
        if self.bars.disable:
            return
        now = time.monotonic()
        if measured is None and now - self.shown < REFRESH_SECONDS:
            return
        self.shown, done = now, step - self.first
        if measured is not None:
            self.measured = f"val {self.goal.shown(float(measured['val_measure'].mean()))}"
        rate = f"{done / max(now - self.began, 1e-9):.0f} steps/s"
        self.bars.update(self.bar, completed=done, rate=rate, measured=self.measured)

    def end(self, task: Task, round: Round, trained: Trained, *, fresh: bool) -> None:
        if not fresh:
            self.again += 1
            return
        self.bars.remove_task(self.bar)
        best = trained.curve.early_stop()
        rows = range(task.replicates)
        measured = float(trained.curve.test_measure[rows, best].mean())
        early = float(trained.curve.step[best].float().mean())
        density = 100 * float(task.density(round.ticket).mean())
        diverged, empty = int(trained.diverged.sum()), emptied(round.ticket.mask)
        self.say(
            f"level {round.level:2d}  {round.name:10s} {density:6.2f} % of weights   "
            f"test {task.goal.shown(measured, digits=2)} at early stop (step {early:.0f})   {trained.seconds:.1f} s"
            + (f"   {diverged} of {task.replicates} diverged" if diverged else "")
            + (
                f"   {len(empty)} of {len(round.ticket.mask)} layers are empty: {', '.join(empty)}"
                if empty
                else ""
            )
        )
        if (round.level, round.role) == (0, "ticket") and (warning := still_improving(trained)):
            self.say(warning)

    def _say_again(self) -> None:
        if self.again:
            self.say(f"{self.again} rounds were trained before and are taken as they are")
            self.again = 0


def still_improving(trained: Trained) -> str:
    """A warning where early stop is only where training ended; nothing where every network had its minimum."""
    sound = ~trained.diverged
    censored, n = int((trained.curve.censored() & sound).sum()), int(sound.sum())
    if not censored:
        return ""
    were = "network was" if n == 1 else f"networks {'was' if censored == 1 else 'were'}"
    return f"{censored} of {n} {were} still improving at the last step: raise recipe.steps"
