"""Learning curves at a few densities: how fast, and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltx.report.figures import style
from ltx.report.figures.lines import count, title
from ltx.report.figures.style import DASHES
from ltx.report.layers import few
from ltx.report.runs import Experiment
from ltx.report.stats import band, ends
from ltx.report.tables import percent

PAPERS = [1.0, 0.513, 0.211, 0.07, 0.036, 0.012]  # the densities whose curves the papers show
COLOURS = ["#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"]
BANDS = {
    ("min", "max"): "Lines: mean of n networks. Bands: their minimum and maximum. 100 %: the dense networks.",
    ("low", "high"): "Lines: mean over n seeds. Bands: 95 % t-intervals. 100 %: the dense networks.",
}


@dataclass(frozen=True)
class Column:
    """One column of panels: the curves of one line, by density."""

    title: str
    curves: Mapping[float, pd.DataFrame]


def learning_curves(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Test accuracy and validation loss over steps at the densities the papers show; None without curves.

    One experiment shows its tickets beside its first control, several show their tickets beside each other.
    """
    tickets = summary[summary.role == "ticket"]
    if tickets.empty:
        return None
    shown = nearest(tickets.density.tolist(), PAPERS)
    columns = [column for column in side_by_side(experiments, summary, shown) if column.curves]
    if not columns:
        return None
    colours = dict(zip(shown, COLOURS, strict=False))
    present = [density for density in shown if any(density in column.curves for column in columns)]
    handles = [Line2D([], [], color=colours[d], label=f"{percent(d)} % of weights") for d in present]
    notes, interval = [BANDS[ends(summary)], *few(experiments)[1]], ends(summary) == ("low", "high")
    figure, axes = style.sheet(
        *(title(summary), 2, len(columns)),
        height=2.1,
        below=style.below(handles, notes),
        names=[column.title for column in columns],
    )
    for column, (accuracy, loss) in zip(columns, axes.T, strict=True):
        loss.set_xlabel("Training step")
        style.thousands(loss.xaxis)
        for density, rows in column.curves.items():
            against_steps(accuracy, rows, "test_accuracy", colours[density], 100, interval)
            against_steps(loss, rows, "val_loss", colours[density], 1, interval)
    zoom(axes)
    axes[0, 0].set_ylabel("Test accuracy (%)")
    axes[1, 0].set_ylabel("Validation loss")
    style.footer(figure, handles, notes)
    return figure


def nearest(available: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Of the `available` densities those nearest, by ratio, to the `wanted` ones; falling, each once."""
    return sorted({min(available, key=lambda d: abs(np.log(d / target))) for target in wanted}, reverse=True)


def side_by_side(
    experiments: Sequence[Experiment], summary: pd.DataFrame, densities: Sequence[float]
) -> list[Column]:
    """What stands in each column: tickets and their first control, or the tickets of a few experiments."""
    found: list[Column] = []
    for experiment in few(experiments)[0]:
        mine = summary[summary.experiment == experiment.name]
        tickets = mine[mine.role == "ticket"]
        for line, rows in mine.groupby("line", sort=False):
            role = rows.role.iloc[0]
            if role == "ticket" or (len(experiments) == 1 and len(found) < 2):
                head = f"{panelled(rows)}{line}, {count(rows)}"
                found.append(Column(head, at(densities, experiment.table("curves"), role, tickets)))
    return found


def panelled(rows: pd.DataFrame) -> str:
    """The panel that a line stands in elsewhere, for the head of a column."""
    return f"{rows.panel.iloc[0]}: " if rows.panel.iloc[0] else ""


def at(
    densities: Sequence[float], curves: pd.DataFrame, role: str, tickets: pd.DataFrame
) -> dict[float, pd.DataFrame]:
    """The curves of `role` at the levels within 5 % of `densities`, and the dense ones; or nothing."""
    mine = curves[(curves.role == role) | (curves.level == 0)]
    found = {}
    for density in densities:
        off = (tickets.density / density - 1).abs()
        rows = mine[mine.level == tickets.level.iloc[int(off.argmin())]]
        if off.min() < 0.05 and len(rows):
            found[density] = rows
    return found if role in set(mine.role) else {}


def against_steps(
    axes: Axes, rows: pd.DataFrame, measure: str, colour: str, scale: float, interval: bool
) -> None:
    """The mean curve of `rows`, solid for tickets and dashed for controls, with its band."""
    curve, dash = (
        scale * band(rows, "step", measure, interval=interval),
        DASHES[int(rows.role.iloc[0] != "ticket")],
    )
    axes.fill_between(curve.index, curve["low"], curve["high"], color=colour, alpha=0.13, linewidth=0)
    axes.plot(curve.index, curve["mean"], color=colour, linestyle=dash, linewidth=1.2)


def zoom(axes: np.ndarray) -> None:
    """Cut the y axes to where the curves of the first column part from each other."""
    for row, sign, least in zip(axes, (1, -1), (4.0, 0.0), strict=True):
        values = [sign * np.concatenate([line.get_ydata() for line in panel.lines]) for panel in row]
        low = style.floor(np.concatenate(values), values[0], least=least)
        edges = sorted([sign * low, sign * float(np.nanmax(np.concatenate(values)))])
        row[0].set_ylim(style.limits(edges[0], edges[1], least=1e-3))
