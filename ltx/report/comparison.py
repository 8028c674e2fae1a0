"""What was found in some runs, arranged for reading: the one thing that tables and figures are made of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ltx.errors import UserError, demand
from ltx.report.layout import Layout, arrange, named, ordered, split
from ltx.report.runs import Experiment, Run, find_runs, pool, read_run
from ltx.report.select import known, select
from ltx.report.stats import differences, matching_table, summarize

CONFIGS = 8
"""Configs that get figures of their own beside those of the comparison."""
FEW = 3
"""Runs that are named one by one in a note."""


@dataclass(frozen=True)
class Page:
    """What has a page of tables and its figures: the experiments of one config, or of all that are compared."""

    name: str
    experiments: Sequence[Experiment]
    summary: pd.DataFrame  # as `stats.summarize` makes it
    differences: pd.DataFrame  # as `stats.differences` makes it
    layout: Layout
    general: Sequence[str]  # what a reader must know of the whole comparison

    @property
    def notes(self) -> list[str]:
        """What a reader of this page must know; complete only when everything else has been read."""
        own = [note for experiment in self.experiments for note in experiment.notes]
        runs = {run.path: run for experiment in self.experiments for run in experiment.runs}
        return list(dict.fromkeys([*incomplete(list(runs.values())), *own, *self.general]))

    @property
    def keys(self) -> list[str]:
        """The settings in which the experiments differ, of those that name lines and panels."""
        return [key for key in self.layout.keys if self.summary[key].nunique(dropna=False) > 1]


@dataclass(frozen=True)
class Comparison:
    """Runs compared: a page per config, and how they are laid out."""

    runs: Sequence[Run]
    pages: Sequence[Page]
    layout: Layout
    tolerance: float
    notes: Sequence[str]  # what a reader must know of all of it

    @property
    def summary(self) -> pd.DataFrame:
        """The summaries of all pages as one, with names that tell lines and panels of all apart."""
        return named(pd.concat([page.summary for page in self.pages], ignore_index=True), self.layout)

    @property
    def panelled(self) -> bool:
        """Whether there is more to compare than the lines of one panel."""
        return len(self.pages) > 1 or self.pages[0].summary.panel.nunique() > 1

    def of(self, page: Page) -> "Comparison":
        """The part that one page shows."""
        return replace(self, pages=[page])

    def means(self) -> pd.DataFrame:
        """One row per line and level: the settings in which lines differ, then the numbers."""
        keys = dict.fromkeys(key for page in self.pages for key in page.keys)
        first = list(dict.fromkeys(["config", "experiment", "line", "role", "method", *keys]))
        rows = pd.concat([page.summary for page in self.pages], ignore_index=True)
        rest = rows.columns.drop(["panel", "series", "hue", *{*first, *self.layout.keys}])
        return rows[[*first, *rest]]

    def matching(self) -> pd.DataFrame:
        """One row per line: the smallest network that matches."""
        return pd.concat(
            [matching_table(page.summary, page.keys, self.tolerance) for page in self.pages],
            ignore_index=True,
        )

    def differences(self) -> pd.DataFrame:
        """One row per pair of lines and level: the paired differences."""
        found = [page.differences.assign(config=page.name) for page in self.pages]
        rows = pd.concat(found, ignore_index=True)
        return rows[["config", *rows.columns.drop(["config", "panel"], errors="ignore")]]


def compare(
    paths: Sequence[Path],
    *,
    by: Sequence[str] | None = None,
    where: Sequence[str] = (),
    tolerance: float = 0.0,
    interval: bool = False,
    against: str | None = None,
) -> Comparison:
    """Compare the runs at or below `paths`.

    `by` names the settings that make lines (else `layout.arrange` finds them), `where` the runs and networks
    looked at (`select.select`), `tolerance` the accuracy that a matching network may lack, as a fraction,
    `interval` 95 % intervals over seeds for the range, `against` the line that others are compared with.
    UserError if there is nothing to compare, or for a key, value or line that no run has.
    """
    demand(0 <= tolerance < 1, "--tolerance", tolerance, "it must be in [0, 1), a fraction")
    by = [key for text in by for key in text.split(",")] if by else None
    runs, general = read(find_runs(paths))
    for key in by or ():
        known(runs, key, "--by")
        if key == "level":
            raise UserError("--by level: levels are what every line runs through; choose another key")
    if where:
        runs = select(runs, where)
        stay = any(filter.startswith(("role=", "level=")) for filter in where)
        general = [f"Only {' and '.join(where)}{', and the dense networks' if stay else ''}.", *general]
    experiments = split(pool(runs), by)
    layout = arrange(experiments, by)
    experiments = ordered(experiments, layout)
    pages: dict[str, list[Experiment]] = {}
    for e in experiments:
        pages.setdefault(e.settings["config"] if layout.pages else "comparison", []).append(e)
    found = []
    for name, members in pages.items():
        summary = summarize(members, layout, interval=interval)
        found.append((name, members, summary))
    if against is not None and not any(has(summary, against) for *_, summary in found):
        lines = dict.fromkeys(line for *_, summary in found for line in summary.line)
        raise UserError(f"--against {against}: no line has this name; choose from {', '.join(lines)}")
    notes = [*layout.notes, *general]
    if len(found) > CONFIGS:
        notes.append(f"{len(found)} configs: `ltx plot` of one's folder draws its other figures.")
    return Comparison(
        runs,
        [
            Page(name, members, summary, differences(members, summary, against), layout, notes)
            for name, members, summary in found
        ],
        layout,
        tolerance,
        notes,
    )


def has(summary: pd.DataFrame, line: str) -> bool:
    """Whether a line has this name, or is the tickets of it."""
    return bool(summary.line.isin([line, f"{line} ticket"]).any())


def read(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs in `folders` that can be compared, and notes on those that cannot.

    A UserError if no network has been trained in any of them, or if the only ones are damaged.
    """
    runs, left_out = [], []
    first: UserError | None = None
    for folder in folders:
        try:
            run = read_run(folder)
        except UserError as error:
            first = first or error
            left_out.append(str(error))
            continue
        if len(run.levels):
            runs.append(run)
        else:
            left_out.append(f"{run.name} (status: {run.status}), no network has been trained yet")
    if not runs:
        raise first or UserError(f"no network has been trained yet in {', '.join(map(str, folders))}")
    if any(run.known for run in runs):
        left_out += [f"{run.path / 'config.yaml'} is missing or damaged" for run in runs if not run.known]
        runs = [run for run in runs if run.known]
    more = [f"Left out: {len(left_out) - FEW} runs more."] if len(left_out) > FEW else []
    altered = [f"{note}." for run in runs for note in run.notes]
    return runs, [f"Left out: {what}." for what in left_out[:FEW]] + more + altered


def incomplete(runs: Sequence[Run]) -> list[str]:
    """Notes on the runs that have not come to their end."""
    open = [run for run in runs if run.status != "complete"]
    if len(open) <= FEW:
        return [f"{run.name} is not complete (status: {run.status})." for run in open]
    counts = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in open).items())
    return [f"{len(open)} of {len(runs)} runs are not complete: {counts}."]
