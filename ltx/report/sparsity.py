"""Accuracy and learning speed over percent of weights remaining: the papers' figures 1 and 4."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltx.report import style
from ltx.report.stats import dense
from ltx.report.style import COLOURS, DASHES, GREY, MARKERS

BARS = "Points: mean of n networks. Bars: their minimum and maximum."


@dataclass(frozen=True)
class Look:
    """How one line is drawn: colour and dash by role; with several experiments, colour by experiment."""

    colour: str
    dash: Any
    marker: str


def looks(summary: pd.DataFrame) -> dict[str, Look]:
    """The look of every line of a summary."""
    lines = summary.drop_duplicates("line")
    roles, names = list(lines.role.unique()), list(lines.experiment.unique())
    found = {}
    for place, (line, name, role) in enumerate(zip(lines.line, lines.experiment, lines.role, strict=True)):
        hue = names.index(name) if len(names) > 1 else roles.index(role)
        found[str(line)] = Look(
            COLOURS[hue % len(COLOURS)],
            DASHES[roles.index(role) % len(DASHES)],
            MARKERS[place % len(MARKERS)],
        )
    return found


def accuracy_vs_sparsity(summary: pd.DataFrame) -> Figure:
    """Test accuracy at early stop and at the end of training over percent of weights remaining."""
    measures = {
        "early_stop_test_accuracy": "At early stop",
        "final_test_accuracy": "At the end of training",
    }
    handles, notes = legend(summary), [BARS]
    means = [f"{measure}_mean" for measure in measures]
    tickets = summary.loc[summary.role == "ticket", means].to_numpy()
    lows = summary[[f"{measure}_min" for measure in measures]].to_numpy()
    highs = summary[[f"{measure}_max" for measure in measures]].to_numpy()
    low = style.floor(np.append(lows, highs), tickets, least=0.04)
    if len(cut := summary[(summary[means] < low).any(axis=1)]):
        below = cut.line.unique()
        fall = f"{', '.join(below)} falls" if len(below) < 4 else f"{len(below)} lines fall"
        notes.append(f"The axis is cut at {100 * low:.1f} %: {fall} below it.")
    names = [f"{name}{baseline_text(summary, measure)}" for measure, name in measures.items()]
    figure, axes = style.sheet(
        title(summary), 1, 2, height=2.6, below=style.below(handles, notes), names=names
    )
    for panel, measure in zip(axes[0], measures, strict=True):
        against_sparsity(panel, summary, measure, scale=100)
        style.sparsity_axis(panel, summary.density.tolist(), apart=0.11)
    axes[0, 0].set_ylim(style.limits(100 * low, 100 * np.nanmax(highs), least=0.1))
    axes[0, 0].set_ylabel("Test accuracy (%)")
    style.footer(figure, handles, notes)
    return figure


def early_stop_vs_sparsity(summary: pd.DataFrame) -> Figure:
    """The step of minimum validation loss over percent of weights remaining."""
    handles, notes = legend(summary), [BARS]
    names = ["How fast it learns: the step of minimum validation loss"]
    figure, axes = style.sheet(
        title(summary), 1, 1, height=2.6, below=style.below(handles, notes), names=names
    )
    against_sparsity(axes[0, 0], summary, "early_stop_step", scale=1)
    axes[0, 0].set_ylabel("Early-stop step")
    axes[0, 0].set_ylim(bottom=0)
    style.thousands(axes[0, 0].yaxis)
    style.sparsity_axis(axes[0, 0], summary.density.tolist(), apart=0.055)
    style.footer(figure, handles, notes)
    return figure


def title(summary: pd.DataFrame) -> str:
    """The config, and the method if there is only one."""
    methods = summary.method.unique()
    return str(summary.config.iloc[0]) + (f" · {methods[0]}" if len(methods) == 1 else "")


def baseline_text(summary: pd.DataFrame, measure: str) -> str:
    """The dense accuracy for a panel's title, where all experiments share it."""
    values = dense(summary)[f"{measure}_mean"].unique()
    return f" (dense {100 * values[0]:.2f} %)" if len(values) == 1 else ""


def against_sparsity(axes: Axes, summary: pd.DataFrame, measure: str, *, scale: float) -> None:
    """Every line of `measure` as means with bars from min to max, and the dense mean as a dotted level."""
    look = looks(summary)
    for line, rows in summary.groupby("line", sort=False):
        mean, low, high = (scale * rows[f"{measure}_{what}"].to_numpy() for what in ("mean", "min", "max"))
        style = look[str(line)]
        axes.errorbar(
            100 * rows.density.to_numpy(), mean, yerr=np.maximum([mean - low, high - mean], 0), label=line,
            color=style.colour, linestyle=style.dash, marker=style.marker,
            elinewidth=0.8, capsize=1.5, capthick=0.8, zorder=3 if rows.role.iloc[0] == "ticket" else 2.5,
        )  # fmt: skip
    baselines = dense(summary).drop_duplicates(f"{measure}_mean")
    for _, row in baselines.iterrows():
        colour = look[row.line].colour if len(baselines) > 1 else GREY
        axes.axhline(scale * row[f"{measure}_mean"], color=colour, linewidth=0.9, linestyle=":", zorder=1.5)


def legend(summary: pd.DataFrame) -> list[Line2D]:
    """One entry per line, naming its n, and one for the dense level."""
    entries = [
        Line2D(
            [], [], color=look.colour, linestyle=look.dash, marker=look.marker, label=f"{line}, {count(rows)}"
        )
        for (line, look), (_, rows) in zip(
            looks(summary).items(), summary.groupby("line", sort=False), strict=True
        )
    ]
    return [*entries, Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="dense network")]


def count(rows: pd.DataFrame) -> str:
    """How many networks stand behind the points of one line: `n = 15 (5 seeds × 3 draws)`."""
    low, high = rows.n.min(), rows.n.max()
    of = f" ({rows.seeds.max()} seeds × {rows.draws.max()} draws)" if rows.draws.max() > 1 else ""
    return f"n = {high}{of}" if low == high else f"n = {low} to {high}{of}"
