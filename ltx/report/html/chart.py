"""Charts over percent of weights remaining, as numbers that the template draws as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, log

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ltx.report.stats import COMPARED, MOSTLY, Row, censored, ends
from ltx.report.tables import cell, means, panels, percent

WIDTH, HEIGHT = 680, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 664, 12, 272
COLOURS = 8
STEPS = "early_stop_step"
TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # percent


@dataclass(frozen=True)
class Point:
    """A mean with the ends of its bar, in pixels, and what it says when it is pointed at."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line, the number of its colour, and whether it is a control."""

    name: str
    colour: int
    control: bool
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """One panel of one measure; ticks are pixels and their labels."""

    title: str
    lines: Sequence[Line]
    across: Sequence[tuple[float, str]]
    up: Sequence[tuple[float, str]]


def charts(summary: pd.DataFrame) -> list[Chart]:
    """A chart per measure and panel, titled as the tables are; none of a measure without numbers,
    nor of the steps of early stop where nearly all networks are censored.
    """
    drawn = summary[(summary.n > 0) & (summary.density > 0)]
    titles = iter(sheet.title for sheet in means(drawn)) if len(drawn) else iter(())
    found = [
        (measure, chart(next(titles), rows, measure)) for measure in COMPARED for _, rows in panels(drawn)
    ]
    shown = [measure for measure in COMPARED if measure != STEPS or censored(drawn) <= MOSTLY]
    return [each for measure, each in found if each.lines and measure in shown]


def chart(title: str, rows: pd.DataFrame, measure: str) -> Chart:
    """One panel; the vertical axis covers every bar."""
    columns = [f"{measure}_{end}" for end in ("mean", *ends(rows))]
    values = rows[columns].to_numpy(float).ravel()
    values = values[[isfinite(value) for value in values]]
    if not len(values):
        return Chart(title, [], [], [])
    marks = MaxNLocator(5, integer=measure == STEPS).tick_values(values.min(), values.max())
    bottom, top = float(marks[0]), float(marks[-1])
    least = min(float(rows.density.min()) * 100 * 0.9, 50.0)

    by = "series" if rows.series.nunique() > 1 else "line"  # as the figures: colour is the series
    hues = list(rows[by].unique())

    def up(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - bottom) / (top - bottom), 1)

    def across(share: float) -> float:
        return round(LEFT + 10 + (RIGHT - LEFT - 20) * log(100 / share) / log(100 / least), 1)

    first = rows.to_dict("records")[0]
    return Chart(
        title,
        [
            line(part, measure, hues.index(str(part[by].iloc[0])), across, up)
            for _, part in rows.groupby("line", sort=False)
        ],
        [(across(tick), f"{tick:g}") for tick in TICKS if tick >= least],
        [(up(mark), label(first, measure, mark)) for mark in map(float, marks)],
    )


def line(
    rows: pd.DataFrame,
    measure: str,
    place: int,
    across: Callable[[float], float],
    up: Callable[[float], float],
) -> Line:
    """The points of one line from dense to sparse; a mean that is not a number is left out."""
    usual, points = int(rows.n.max()), []
    for row in rows.sort_values("density", ascending=False).to_dict("records"):
        mean, low, high = (float(row[f"{measure}_{end}"]) for end in ("mean", *ends(rows)))
        if not isfinite(mean):
            continue
        low, high = (end if isfinite(end) else mean for end in (low, high))
        text = f"{row['line']}, {percent(row['density'])} % of weights: {cell(row, measure, usual, True)}"
        told = text if "n = " in text else f"{text}, n = {usual}"
        points.append(Point(across(100 * row["density"]), up(mean), up(low), up(high), told))
    name, control = str(rows.line.iloc[0]), rows.role.iloc[0] != "ticket"
    return Line(name, place % COLOURS, bool(control), points)


def label(row: Row, measure: str, value: float) -> str:
    """A value on the axis, written as tables write it."""
    bare: Row = {**row, f"{measure}_mean": value, "censored": 0}
    return cell(bare, measure, row["n"], False)
