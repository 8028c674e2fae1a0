"""The forms of a network drawn from bench.csv: accuracy against latency and against bytes, a table, no torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ltx.files import write
from ltx.report import render
from ltx.report.figures import drawing, style
from ltx.report.figures.style import COLOURS, MARKERS, STYLE
from ltx.report.forms import section
from ltx.report.pages import BOOKTABS

AXES = {
    "accuracy_vs_latency": ("one_median", 1000, "Milliseconds at batch 1, one thread (median)"),
    "accuracy_vs_bytes": ("bytes", 1, "Bytes"),
}
COLUMNS = 3  # networks side by side


def draw(folder: Path, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Write pages and figures beside bench.csv; the files."""
    rows = pd.read_csv(folder / "bench.csv")
    parts = [section(rows, notes)]
    write(folder / "bench.md", render.markdown(title, parts).encode())
    write(folder / "bench.tex", (BOOKTABS + render.latex(title, parts)).encode())
    files = [folder / "bench.md", folder / "bench.tex"]
    with drawing(STYLE):
        for name, (column, unit, label) in AXES.items():
            if rows[column].notna().any():
                figure = against(rows.assign(x=unit * rows[column]), label)
                files += style.save(figure, folder / name, ["png", "svg"])
    return files


def against(rows: pd.DataFrame, label: str) -> Figure:
    """The test measure over `x`, a point per form, a panel per network."""
    networks = [(str(name), part) for name, part in rows.groupby("network", sort=False)]
    forms = list(dict.fromkeys(zip(rows.form, rows.runtime, strict=True)))
    handles = [point(place, f"{name} ({runtime})") for place, (name, runtime) in enumerate(forms)]
    notes = ["Points: one network each, on the whole test split, as its own runtime computes it."]
    wide = min(COLUMNS, len(networks))
    tall = -(-len(networks) // wide)
    below = style.below(handles, notes)
    title = f"Test {rows.measure.iloc[0]} of the forms of a network"
    names = [name for name, _ in networks]
    figure, axes = style.sheet(
        title, tall, wide, height=2.3, below=below, names=names, shared=False, along=False
    )
    for panel, (_, part) in zip(axes.flat, networks, strict=False):
        for row in part.itertuples():
            look = point(forms.index((row.form, row.runtime)), "")
            panel.plot([row.x], [row.test], marker=look.get_marker(), color=look.get_color(), linestyle="")
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_ylim(*style.limits(part.test.min(), part.test.max(), least=0.002))
        panel.set_xlabel(label)
    for panel in list(axes.flat)[len(networks) :]:
        panel.set_visible(False)
    axes[0, 0].set_ylabel(f"Test {rows.measure.iloc[0]}")
    style.footer(figure, handles, notes)
    return figure


def point(place: int, label: str) -> Line2D:
    """How the form at a place in the legend is drawn."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
    return Line2D([], [], color=colour, marker=marker, linestyle="", label=label)


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1 else f"{value:,.0f}"
