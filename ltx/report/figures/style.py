"""How every figure looks: colours, sizes, the sparsity axis, and files that are the same bytes every time."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from ltx.errors import plain
from ltx.files import write
from ltx.report.figures import matplotlib as matplotlib
from ltx.report.tables import percent

# Okabe and Ito: told apart with every common colour blindness, and in print by marker and dash as well.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5))]
GREY = "#555555"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titley": 1.0,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.8,
    "savefig.dpi": 160,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ltx",  # ids in the file do not change from one drawing to the next
    "pdf.fonttype": 42,
}
WIDTH, LEFT, RIGHT, TOP, GAP = 7.2, 0.75, 0.12, 0.55, 0.3  # inches: a page's text width, and margins
OWN_AXIS = 0.5  # inches between panels that have y axes of their own
LINE = 0.17  # inches per line of text below the panels


def sheet(
    title: str,
    rows: int,
    columns: int,
    *,
    height: float,
    below: float,
    right: float = RIGHT,
    names: Sequence[str] = (),
    shared: bool = True,
    along: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` panels, with `below` and `right` inches around, `names` on top of them.

    Panels are `height` inches tall; those of a row have one y axis if it is `shared`, all
    one x axis if they go `along` it. All places are fixed:
    matplotlib finds them no faster than it draws.
    """
    gap = GAP if shared else OWN_AXIS
    wide = (WIDTH - LEFT - right - (columns - 1) * gap) / columns
    names = [fill(name, int(14 * wide)) for name in names]
    heads = LINE * max((name.count("\n") for name in names), default=0)
    top = TOP + heads
    between = GAP if len(names) <= columns else GAP + heads + 0.12
    tall = top + rows * height + (rows - 1) * between + below
    figure = Figure(figsize=(WIDTH, tall))
    axes = figure.subplots(
        *(rows, columns),
        sharex=along,
        sharey="row" if shared else False,
        squeeze=False,
        gridspec_kw={
            "left": LEFT / WIDTH,
            "right": 1 - right / WIDTH,
            "top": 1 - top / tall,
            "bottom": below / tall,
            "wspace": gap / wide,
            "hspace": between / height,
        },
    )
    for panel, name in zip(axes.flat, names, strict=False):
        panel.set_title(name, loc="left")
    for panel in axes.flat:
        panel.xaxis.set_label_coords(0.5, -0.23 / height)
        panel.yaxis.set_label_coords(-0.54 / wide, 0.5)
    figure.text(LEFT / WIDTH, 1 - 0.08 / tall, title, va="top", weight="bold", fontsize=10)
    return figure, axes


def legend_columns(handles: Sequence[Line2D]) -> int:
    """How many columns of legend fit below the panels."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    return max(1, min(3, 108 // (longest + 12)))


def below(handles: Sequence[Line2D], notes: Sequence[str]) -> float:
    """Inches that an axis label and `footer` need."""
    lines = wrapped(notes).count("\n") + 1 if notes else 0
    return 0.56 + LINE * (-(-len(handles) // legend_columns(handles)) + lines)


def wrapped(notes: Sequence[str]) -> str:
    """Notes in the width of a figure, each on a line of its own or more."""
    return "\n".join(fill(note, 102) for note in notes)


def footer(figure: Figure, handles: Sequence[Line2D], notes: Sequence[str]) -> None:
    """The legend and below it the notes, under the panels."""
    left, tall = LEFT / WIDTH, figure.get_figheight()
    figure.text(left, 0.06 / tall, wrapped(notes), va="bottom", color=GREY, fontsize=8, linespacing=1.35)
    top = below(handles, notes) - 0.44
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, top / tall), ncols=legend_columns(handles),
        borderaxespad=0, borderpad=0, labelspacing=0.3, handlelength=2.8, columnspacing=1.6,
    )  # fmt: skip


def viridis(count: int) -> list[str]:
    """`count` colours in order, where there are too many to tell one by one."""
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count))]


def sparsity_axis(axes: Axes, densities: Sequence[float], *, apart: float, bare: bool = True) -> None:
    """Percent of weights remaining, logarithmic and falling to the right, ticks at measured densities.

    Labelled ticks are at least `apart` of the axis from each other; the others are short and `bare`, or left out:
    ticks take longer to draw than anything else.
    """
    places = (100 * np.unique(densities)[::-1]).tolist()
    axes.set_xscale("log")
    axes.set_xlim(places[0] * 1.1, places[-1] / 1.1)
    chosen = spread_out(places, apart * np.log10(1.21 * places[0] / places[-1]))
    axes.xaxis.set_major_locator(FixedLocator(chosen))
    axes.xaxis.set_major_formatter(FixedFormatter([percent(place / 100) for place in chosen]))
    axes.xaxis.set_minor_locator(FixedLocator(places if bare else []))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Percent of weights remaining")


def spread_out(places: Sequence[float], apart: float) -> list[float]:
    """Of falling `places` those at least `apart` (in powers of ten), always with the first and the last."""
    chosen = [places[0]]
    for place in places[1:]:
        if np.log10(chosen[-1] / place) >= apart:
            chosen.append(place)
    if chosen[-1] != places[-1]:
        crowded = len(chosen) > 1 and np.log10(chosen[-1] / places[-1]) < apart
        chosen = [*chosen[: -1 if crowded else None], places[-1]]
    return chosen


def floor(values: np.ndarray, focus: np.ndarray, *, least: float) -> float:
    """Where an axis may start so that `focus` stays legible although some of `values` collapse.

    Not further below the top than `least`, or eight times the distance from the top to the median of `focus`.
    """
    top = np.nanmax(values)
    return float(max(np.nanmin(values), top - max(least, 8 * (top - np.nanmedian(focus)))))


def limits(low: float, high: float, *, least: float) -> tuple[float, float]:
    """Axis limits with a little air around `low` and `high`, `least` or more."""
    air = max(0.05 * (high - low), least)
    return low - air, high + air


def thousands(axis: Axis) -> None:
    """Steps written as 5,000."""
    room = 6 if axis is axis.axes.yaxis else int(2.2 * WIDTH * axis.axes.get_position().width)
    axis.set_major_locator(MaxNLocator(room, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def log_percent(axis: Axis) -> None:
    """A logarithmic axis of percent, written 100, 50, 20, 10."""
    axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, path: Path, kinds: Sequence[str]) -> list[Path]:
    """Write the figure in every kind of file, without the time of drawing."""
    for text in figure.findobj(Text):  # a name that no font has a sign for is written out
        text.set_text("\n".join(map(plain, text.get_text().split("\n"))))
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    files = [path.with_suffix(f".{kind}") for kind in kinds]
    for file, kind in zip(files, kinds, strict=True):
        drawn = BytesIO()
        figure.savefig(drawn, format=kind, metadata=undated[kind])
        write(file, drawn.getvalue())
    return files
