"""Lines over percent of weights remaining: their looks, their legend, and how many a panel can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ltx.report.figures import style
from ltx.report.figures.style import COLOURS, DASHES, GREY, MARKERS
from ltx.report.layers import spread
from ltx.report.stats import COMPARED, dense, ends

BARS = {
    ("min", "max"): "Points: mean of n networks. Bars: their minimum and maximum.",
    ("low", "high"): "Points: mean over n seeds. Bars: 95 % t-interval, none where n = 1.",
}
LINES = 12  # in a panel: with more, controls are left to the tables
SERIES = 24  # in a panel: of more, some
AT_LEAST = "^"  # hollow: a mean of steps that is only a bound
HOLLOW = "Hollow, upward: at least so many, networks were still improving at the last step."
NAMED = 4  # lines in a note; dense levels in a panel


@dataclass(frozen=True)
class Look:
    """How one line is drawn: colour and dash by role; with several series, colour by series."""

    colour: str
    dash: Any
    marker: str


def looks(summary: pd.DataFrame) -> dict[str, Look]:
    """The look of every line of a summary.

    Of more series than colours, the first key has the colours and the others the markers, if they suffice;
    else colours follow the order of the series.
    """
    lines = summary.drop_duplicates("line")
    roles, series, hues = (list(lines[name].unique()) for name in ("role", "series", "hue"))
    many, by_hue = len(series) > len(COLOURS), 1 < len(hues) <= len(COLOURS)
    rainbow = style.viridis(len(series)) if many and not by_hue else COLOURS
    found = {}
    for place, row in enumerate(lines.itertuples()):
        hue, marker = (series.index(row.series) if len(series) > 1 else roles.index(row.role)), place
        if many and by_hue:
            beside = list(lines.series[lines.hue == row.hue].unique())
            hue, marker = hues.index(row.hue), beside.index(row.series)
        found[str(row.line)] = Look(
            rainbow[hue % len(rainbow)],
            DASHES[roles.index(row.role) % len(DASHES)],
            MARKERS[marker % len(MARKERS)],
        )
    return found


def bars(summary: pd.DataFrame) -> str:
    """What points and bars are."""
    return BARS[ends(summary)]


def readable(summary: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """What of a summary a figure can show, and notes on what is left to the tables."""
    notes = []
    if summary.groupby("panel").line.nunique().max() > LINES and summary.role.nunique() > 1:
        summary = summary[summary.role == "ticket"]
        notes.append("Controls are left to the tables: too many lines.")
    series = list(summary.series.unique())
    if len(series) > SERIES:
        summary = summary[summary.series.isin(spread(series, SERIES))]
        notes.append(f"Shown: {SERIES} of {len(series)} lines, evenly chosen; the tables have all.")
    return summary, notes


def against_sparsity(
    axes: Axes, summary: pd.DataFrame, measure: str, look: dict[str, Look], *, scale: float
) -> None:
    """Every line of `measure` as means with bars, and the dense mean as a dotted level."""
    for line, rows in summary.groupby("line", sort=False):
        mean, low, high = (scale * rows[f"{measure}_{what}"].to_numpy() for what in ("mean", *ends(summary)))
        style, order = look[str(line)], 3 if rows.role.iloc[0] == "ticket" else 2.5
        axes.errorbar(
            100 * rows.density.to_numpy(), mean, yerr=np.maximum([mean - low, high - mean], 0), label=line,
            color=style.colour, linestyle=style.dash, marker=style.marker,
            elinewidth=0.8, capsize=1.5, capthick=0.8, zorder=order,
        )  # fmt: skip
        if measure == "early_stop_step" and (bound := rows.censored.to_numpy() > 0).any():
            axes.plot(
                100 * rows.density.to_numpy()[bound], mean[bound], linestyle="", marker=AT_LEAST, markersize=6,
                markerfacecolor="white", markeredgecolor=style.colour, zorder=order + 0.1,
            )  # fmt: skip
    baselines = levels(summary, measure)
    for _, row in baselines.iterrows():
        colour = look[row.line].colour if len(baselines) > 1 else GREY
        axes.axhline(scale * row[f"{measure}_mean"], color=colour, linewidth=0.9, linestyle=":", zorder=1.5)


def levels(summary: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The dense networks whose level is drawn as a dotted line; none where there are too many."""
    found = dense(summary).drop_duplicates(f"{measure}_mean")
    return found if len(found) <= NAMED else found.iloc[:0]


def legend(summary: pd.DataFrame, shown: pd.DataFrame | None = None) -> list[Line2D]:
    """One entry per line of those shown, naming its n, and one for the dense level."""
    look, shown = looks(summary), summary if shown is None else shown
    entries = [
        Line2D(
            [],
            [],
            color=look[str(line)].colour,
            linestyle=look[str(line)].dash,
            marker=look[str(line)].marker,
            label=f"{line}, {count(rows)}",
        )
        for line, rows in shown.groupby("line", sort=False)
    ]
    level = Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="dense network")
    drawn = any(len(levels(here, COMPARED[0])) for _, here in shown.groupby("panel"))
    return [*entries, level] if drawn else entries


def count(rows: pd.DataFrame) -> str:
    """How many networks stand behind the points of one line: `n = 15 (5 seeds × 3 draws)`."""
    low, high = rows.n.min(), rows.n.max()
    drawn = rows.draws.max() > 1 and ends(rows) == ("min", "max")
    of = f" ({rows.seeds.max()} seeds × {rows.draws.max()} draws)" if drawn else ""
    return f"n = {high}{of}" if low == high else f"n = {low} to {high}{of}"


def cut(low: float, below: Sequence[str]) -> list[str]:
    """A note on the lines that fall below an axis, as long as they are few."""
    if not below:
        return []
    names = ", ".join(below) if len(below) <= NAMED else f"{len(below)} lines"
    return [
        f"The axis is cut at {100 * low:.1f} %: {names} {'falls' if len(below) == 1 else 'fall'} below it."
    ]


def visible(rows: pd.DataFrame, measures: Sequence[str]) -> tuple[float, list[str]]:
    """Where an axis starts so that tickets stay legible, and the lines that fall below it."""
    means = [f"{measure}_mean" for measure in measures]
    spreads = [f"{measure}_{end}" for measure in measures for end in ends(rows)]
    tickets = rows.loc[rows.role == "ticket", means].to_numpy()
    low = style.floor(rows[[*means, *spreads]].to_numpy(), tickets, least=0.04)
    return low, list(rows.line[(rows[means] < low).any(axis=1)].unique())


def highest(rows: pd.DataFrame, measures: Sequence[str]) -> float:
    """The upper end of the highest bar."""
    parts = [f"{measure}_{what}" for measure in measures for what in ("mean", ends(rows)[1])]
    return float(np.nanmax(rows[parts].to_numpy()))


def title(summary: pd.DataFrame) -> str:
    """The config, and the method if there is only one."""
    methods, configs = summary.method.unique(), summary.config.unique()
    name = ", ".join(configs) if len(configs) <= 3 else f"{len(configs)} experiments"
    return name + (f" · {methods[0]}" if len(methods) == 1 else "")


def baseline_text(summary: pd.DataFrame, measure: str) -> str:
    """The dense accuracy for a panel's title, where all experiments share it."""
    values = dense(summary)[f"{measure}_mean"].unique()
    return f" (dense {100 * values[0]:.2f} %)" if len(values) == 1 else ""


def first_panel(summary: pd.DataFrame) -> pd.DataFrame:
    first: pd.DataFrame = summary[summary.panel == summary.panel.iloc[0]]
    return first
