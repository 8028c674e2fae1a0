"""What `ltx compare` found, drawn from compare.csv: how far networks agree, over the weights that remain; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltx.report.figures import drawing, style
from ltx.report.figures.style import COLOURS, DASHES, MARKERS, STYLE
from ltx.report.stats import band

PANELS = {
    "disagreement": "With the other seeds' networks",
    "solution_disagreement": "With the pruned solution",
    "solution_barrier": "Barrier to the pruned solution",
    "ensemble_gain": "Gain of the ensemble of all seeds",
}
LABELS = ("Disagreement (% of test examples)", "Test error or accuracy (points)")
NOTES = (
    "Points: mean over n seeds. Bars: their minimum and maximum; the ensemble's gain is over each of its members.",
    "The pruned solution is what the mask was cut from, under the mask (Evci et al. 2022, section 4).",
)


def draw(folder: Path, title: str) -> list[Path]:
    """Draw compare.csv beside it; the files, none if no pruned network was compared."""
    rows = pd.read_csv(folder / "compare.csv")
    rows = rows.assign(ensemble_gain=rows.ensemble - rows.accuracy)
    rows = rows[(rows.level > 0) & rows.accuracy.notna()]
    if rows.empty:
        return []
    with drawing(STYLE):
        return style.save(agreement(rows, title), folder / "compare", ["png", "svg"])


def agreement(rows: pd.DataFrame, title: str) -> Figure:
    """Four panels over the weights that remain: a line for tickets and for each control."""
    roles = list(dict.fromkeys(rows.role))
    handles = [
        Line2D([], [], label=f"{role}, n = {rows[rows.role == role].seed.nunique()}", **look(place))
        for place, role in enumerate(roles)
    ]
    below = style.below(handles, NOTES)
    names = list(PANELS.values())
    figure, axes = style.sheet(title, 2, 2, height=1.9, below=below, names=names, shared=False)
    rows = rows.assign(weights=100 * rows.groupby(["level", "role"]).density.transform("mean"))
    for panel, measure in zip(axes.flat, PANELS, strict=True):
        for place, role in enumerate(roles):
            points(panel, rows[rows.role == role].dropna(subset=[measure]), measure, place)
        low, high = panel.get_ylim()
        panel.set_ylim(min(0.0, low), high + 0.05 * (high - min(0.0, low)))
    for row, label in zip(axes, LABELS, strict=True):
        row[0].set_ylabel(label)
    for panel in axes[-1]:
        style.sparsity_axis(panel, (rows.weights / 100).tolist(), apart=0.1)
    style.footer(figure, handles, NOTES)
    return figure


def points(axes: Axes, rows: pd.DataFrame, measure: str, place: int) -> None:
    """A line of means with bars from min to max, in percent or points."""
    if rows.empty:
        return
    at = 100 * band(rows, "weights", measure)
    reach = [at["mean"] - at["low"], at["high"] - at["mean"]]
    axes.errorbar(at.index, at["mean"], yerr=reach, elinewidth=0.8, capsize=1.5, **look(place))


def look(place: int) -> dict[str, Any]:
    """How the role at a place in the legend is drawn."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }
