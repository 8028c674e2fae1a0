"""Linear mode connectivity drawn from connect.csv and barriers.csv: two figures, a table, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ltx.errors import UserError
from ltx.files import write
from ltx.report import render
from ltx.report.barriers import STABLE, section
from ltx.report.figures import drawing, style
from ltx.report.figures.style import COLOURS, DASHES, GREY, MARKERS, STYLE
from ltx.report.layers import spread
from ltx.report.stats import band
from ltx.report.tables import percent

SPLITS = {"test": "Test error", "train": "Train error"}
RANGE = "their minimum and maximum"
COLUMNS = 4  # panels side by side, each of one k


def draw(folder: Path, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Draw the answers in `folder` beside their csv files, those of diverged copies left out; the files."""
    lines, barriers = (pd.read_csv(folder / f"{name}.csv") for name in ("connect", "barriers"))
    if gone := int(barriers.l2.isna().sum()):
        notes = [*notes, f"Left out: {gone} pairs of which a network diverged."]
    lines, barriers = lines.dropna(), barriers.dropna()
    if barriers.empty:
        raise UserError(f"every pair of copies has diverged: there is nothing to draw in {folder}")
    page = render.markdown(f"{title}: linear mode connectivity", [section(barriers, notes)])
    write(folder / "connect.md", page.encode())
    files = [folder / "connect.md"]
    with drawing(STYLE):
        for name, figure in (
            ("connect", interpolation(lines, f"{title}: the line between two copies", notes)),
            ("instability", instability(barriers, f"{title}: instability to the noise of SGD", notes)),
        ):
            files += style.save(figure, folder / name, ["png", "svg"])
    return files


def interpolation(lines: pd.DataFrame, title: str, notes: Sequence[str]) -> Figure:
    """Error along the line between the copies, a column of panels per k (Frankle et al. 2020, Figure 2)."""
    steps = spread(sorted(lines.k.unique()), COLUMNS)
    handles, notes = (
        legend(lines, marked=False),
        [f"Lines: mean of n pairs of copies. Bands: {RANGE}.", *notes],
    )
    names = [f"From step {k:,} on" if k else "From initialisation on" for k in steps]
    below = style.below(handles, notes)
    figure, axes = style.sheet(title, len(SPLITS), len(steps), height=1.9, below=below, names=names)
    for (split, name), row in zip(SPLITS.items(), axes, strict=True):
        for panel, k in zip(row, steps, strict=True):
            for place, level in enumerate(sorted(lines.level.unique())):
                curve = 100 * band(lines[(lines.k == k) & (lines.level == level)], "alpha", f"{split}_error")
                line = look(place, marked=False)
                panel.fill_between(
                    curve.index, curve["low"], curve["high"], color=line["color"], alpha=0.13, lw=0
                )
                panel.plot(curve.index, curve["mean"], **line)
        row[0].set_ylabel(f"{name} (%)")
        ceiling(row[0], max(0.05, lines[f"{split}_error"].max()))
    for panel in axes[-1]:
        panel.set_xlabel("Interpolation α")
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        panel.xaxis.set_major_formatter(FixedFormatter(["0", "0.5", "1"]))
    style.footer(figure, handles, notes)
    return figure


def instability(barriers: pd.DataFrame, title: str, notes: Sequence[str]) -> Figure:
    """The barrier over k, a line per level (Figures 3, 5); over the weights remaining if there is one k."""
    steps = sorted(barriers.k.unique())
    notes = [
        f"Points: mean of n pairs of copies. Bars: {RANGE}.",
        f"Dotted: {100 * STABLE:g} points, below which a network is stable to the noise of SGD.",
        *notes,
    ]
    if several := len(steps) > 1:
        groups, x = [rows for _, rows in barriers.groupby("level")], "k"
        handles = legend(barriers, marked=True)
    else:
        weights = 100 * barriers.groupby("level").density.transform("mean")
        groups, x = [barriers.assign(weights=weights)], "weights"
        handles = [Line2D([], [], label=f"k = {steps[0]:,}, {count(barriers)}", **look(0, marked=True))]
    below = style.below(handles, notes)
    figure, axes = style.sheet(title, 1, 2, height=2.3, below=below, names=list(SPLITS.values()))
    highest = float(barriers[[f"{split}_barrier" for split in SPLITS]].to_numpy().max())
    for panel, split in zip(axes[0], SPLITS, strict=True):
        for place, rows in enumerate(groups):
            points(panel, rows, x, f"{split}_barrier", place)
        panel.axhline(100 * STABLE, color=GREY, linewidth=0.9, linestyle=":", zorder=1.5)
        ceiling(panel, max(1.5 * STABLE, highest))
        if several:
            step_axis(panel, steps)
        else:
            style.sparsity_axis(panel, [weight / 100 for weight in groups[0].weights], apart=0.1)
    axes[0, 0].set_ylabel("Error barrier (points)")
    style.footer(figure, handles, notes)
    return figure


def points(axes: Axes, rows: pd.DataFrame, x: str, measure: str, place: int) -> None:
    """Mean barriers, in points of error, with bars from min to max."""
    at = 100 * band(rows, x, measure)
    reach = [at["mean"] - at["low"], at["high"] - at["mean"]]
    axes.errorbar(
        at.index,
        at["mean"],
        yerr=reach,
        elinewidth=0.8,
        capsize=1.5,
        capthick=0.8,
        **look(place, marked=True),
    )


def ceiling(axes: Axes, highest: float) -> None:
    """An axis of error from 0, with room to see a line that lies there."""
    axes.set_ylim(-2 * highest, 106 * highest)


def step_axis(axes: Axes, steps: Sequence[int]) -> None:
    """Steps, logarithmic with room for 0, ticks at the measured ones."""
    axes.set_xscale("symlog", linthresh=min(step for step in steps if step), linscale=0.5)
    axes.xaxis.set_major_locator(FixedLocator(list(steps)))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{step:,}" for step in steps]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Step k from which the copies part")


def look(place: int, *, marked: bool) -> dict[str, Any]:
    """How the line at a place in the legend is drawn."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)] if marked else "",
    }


def legend(rows: pd.DataFrame, *, marked: bool) -> list[Line2D]:
    """One entry per level: how much of the network is left, and how many pairs of copies stand behind it."""
    return [
        Line2D(
            [],
            [],
            label=f"{percent(here.density.mean())} % of weights, {count(here)}",
            **look(place, marked=marked),
        )
        for place, (_, here) in enumerate(rows.groupby("level"))
    ]


def count(rows: pd.DataFrame) -> str:
    """How many pairs of copies stand behind each point: `n = 5`."""
    sizes = rows.groupby(["level", "k"]).seed.nunique()
    return f"n = {sizes.max()}" if sizes.min() == sizes.max() else f"n = {sizes.min()} to {sizes.max()}"
