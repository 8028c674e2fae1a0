"""The four figures of an experiment, drawn from its summary, curves and layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ltx.report import style
from ltx.report.runs import Experiment
from ltx.report.stats import band, dense
from ltx.report.style import COLOURS, DASHES, GREY, LINE, MARKERS, STYLE
from ltx.report.tables import percent

PAPERS = [1.0, 0.513, 0.211, 0.07, 0.036, 0.012]  # the densities whose curves the papers show
CURVES = ["#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"]


def write(
    folder: Path, experiments: Sequence[Experiment], summary: pd.DataFrame, kinds: Sequence[str]
) -> list[Path]:
    """Draw into `folder` every figure of one config for which there are numbers, and return the files."""
    drawn = summary[(summary.n > 0) & (summary.density > 0)]
    with matplotlib.rc_context(STYLE):
        figures = {
            "accuracy_vs_sparsity": accuracy_vs_sparsity(drawn),
            "early_stop_vs_sparsity": early_stop_vs_sparsity(drawn),
            "learning_curves": learning_curves(experiments, drawn),
            "density_per_layer": density_per_layer(experiments, drawn),
        }
        return [
            file
            for name, figure in figures.items()
            if figure is not None
            for file in style.save(figure, folder / name, kinds)
        ]


@dataclass(frozen=True)
class Look:
    """How one line is drawn: by role where there is one experiment, else colour by experiment and dash by role."""

    colour: str
    dash: Any
    marker: str


def looks(summary: pd.DataFrame) -> dict[str, Look]:
    """The look of every line of a summary."""
    lines = summary.drop_duplicates("line")
    roles, experiments = list(lines.role.unique()), list(lines.experiment.unique())
    return {
        row.line: Look(
            COLOURS[
                (experiments.index(row.experiment) if len(experiments) > 1 else roles.index(row.role)) % 7
            ],
            DASHES[roles.index(row.role) % 4],
            MARKERS[place % 7],
        )
        for place, row in enumerate(lines.itertuples())
    }


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
    low = style.floor([*lows.ravel(), *highs.ravel()], tickets, least=0.04)
    if len(cut := summary[(summary[means] < low).any(axis=1)]):
        notes.append(f"The axis is cut at {100 * low:.1f} %: {', '.join(cut.line.unique())} falls below it.")
    figure, axes = style.sheet(
        title(summary), 1, 2, height=2.6, below=style.below(handles, notes, columns=COLUMNS)
    )
    for panel, (measure, name) in zip(axes[0], measures.items(), strict=True):
        against_sparsity(panel, summary, measure, scale=100)
        panel.set_title(f"{name}{baseline_text(summary, measure)}", loc="left")
        style.sparsity_axis(panel, summary.density, apart=0.11)
    axes[0, 0].set_ylim(style.limits(100 * low, 100 * np.nanmax(highs), least=0.1))
    axes[0, 0].set_ylabel("Test accuracy (%)")
    style.footer(figure, handles, notes, columns=COLUMNS)
    return figure


def early_stop_vs_sparsity(summary: pd.DataFrame) -> Figure:
    """The step of minimum validation loss over percent of weights remaining."""
    handles, notes = legend(summary), [BARS]
    figure, axes = style.sheet(
        title(summary), 1, 1, height=2.6, below=style.below(handles, notes, columns=COLUMNS)
    )
    against_sparsity(axes[0, 0], summary, "early_stop_step", scale=1)
    axes[0, 0].set_title("How fast it learns: the step of minimum validation loss", loc="left")
    axes[0, 0].set_ylabel("Early-stop step")
    axes[0, 0].set_ylim(bottom=0)
    style.thousands(axes[0, 0].yaxis)
    style.sparsity_axis(axes[0, 0], summary.density, apart=0.055)
    style.footer(figure, handles, notes, columns=COLUMNS)
    return figure


BARS = "Points: mean of n networks. Bars: their minimum and maximum."
COLUMNS = 2  # of the legend


def title(summary: pd.DataFrame) -> str:
    """The config, and the method if there is only one."""
    methods = summary.method.unique()
    return str(summary.config.iloc[0]) + (f" · {methods[0]}" if len(methods) == 1 else "")


def baseline_text(summary: pd.DataFrame, measure: str) -> str:
    """The dense accuracy for a panel's title, where all experiments share it."""
    values = dense(summary)[f"{measure}_mean"].unique()
    return f" (dense {100 * values[0]:.2f} %)" if len(values) == 1 else ""


def against_sparsity(axes: Axes, summary: pd.DataFrame, measure: str, *, scale: float) -> None:
    """Every line of `measure`, means with bars from min to max, and the dense mean as a level to compare with."""
    look = looks(summary)
    for line, rows in summary.groupby("line", sort=False):
        mean, low, high = (scale * rows[f"{measure}_{what}"].to_numpy() for what in ("mean", "min", "max"))
        style = look[str(line)]
        axes.errorbar(
            100 * rows.density.to_numpy(), mean, yerr=np.maximum([mean - low, high - mean], 0), label=line,
            color=style.colour, linestyle=style.dash, marker=style.marker, elinewidth=0.8, capsize=1.5, capthick=0.8,
            zorder=3 if rows.role.iloc[0] == "ticket" else 2.5,
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


def learning_curves(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Test accuracy and validation loss over steps at the densities that the papers show; None without curves.

    One experiment shows its tickets beside its first control, several show their tickets beside each other.
    """
    lines = summary.drop_duplicates("line")
    lines = lines[:2] if len(experiments) == 1 else lines[lines.role == "ticket"][:3]
    tickets = summary[summary.role == "ticket"]
    shown = nearest(tickets.density.unique(), PAPERS)
    curves = {e.name: e.curves for e in experiments}
    columns = [
        (line, chosen)
        for line in lines.itertuples()
        if (
            chosen := curves_at(
                shown, curves[line.experiment], line.role, tickets[tickets.experiment == line.experiment]
            )
        )
    ]
    if not columns:
        return None
    colours = dict(zip(shown, CURVES, strict=False))
    present = {density for _, chosen in columns for density in chosen}
    handles = [
        Line2D([], [], color=colours[d], label=f"{percent(d)} % of weights") for d in shown if d in present
    ]
    notes = [
        "Lines: mean of n networks. Bands: their minimum and maximum. Axes are cut to where the lines part."
    ]
    figure, axes = style.sheet(
        title(summary), 2, len(columns), height=2.1, below=style.below(handles, notes, columns=3)
    )
    for (line, chosen), panels in zip(columns, axes.T, strict=True):
        panels[0].set_title(f"{line.line}, {count(summary[summary.line == line.line])}", loc="left")
        panels[1].set_xlabel("Training step")
        style.thousands(panels[1].xaxis)
        for panel, measure, scale in zip(panels, ("test_accuracy", "val_loss"), (100, 1), strict=True):
            for density, rows in chosen.items():
                against_steps(
                    panel, scale * band(rows, "step", measure), colours[density], dashed=line.role != "ticket"
                )
    zoom(axes)
    axes[0, 0].set_ylabel("Test accuracy (%)")
    axes[1, 0].set_ylabel("Validation loss")
    style.footer(figure, handles, notes, columns=3)
    return figure


def nearest(available: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Of the `available` densities those nearest, by ratio, to the `wanted` ones; falling, each once."""
    return sorted({min(available, key=lambda d: abs(np.log(d / target))) for target in wanted}, reverse=True)


def curves_at(
    densities: Sequence[float], curves: pd.DataFrame, role: str, tickets: pd.DataFrame
) -> dict[float, pd.DataFrame]:
    """The curves of `role` at the levels whose density is within 5 % of `densities`; the dense ones in any case."""
    found = {}
    for density in densities:
        for row in tickets[(tickets.density / density - 1).abs() < 0.05].itertuples():
            here = curves[(curves.level == row.level) & (curves.role == (role if row.level else "ticket"))]
            if len(here):
                found[density] = here
    return found if any(role in set(rows.role) for rows in found.values()) else {}


def against_steps(axes: Axes, curve: pd.DataFrame, colour: str, *, dashed: bool) -> None:
    """One mean curve with its band."""
    axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.13, linewidth=0)
    axes.plot(curve.index, curve["mean"], color=colour, linestyle=DASHES[dashed], linewidth=1.2)


def zoom(axes: np.ndarray) -> None:
    """Cut the y axes of learning curves to where the curves of the first column part from each other."""
    for row, sign, least in zip(axes, (1, -1), (4.0, 0.0), strict=True):
        values = [sign * np.concatenate([line.get_ydata() for line in axis.lines]) for axis in row]
        low = style.floor(np.concatenate(values), values[0], least=least)
        edges = sorted([sign * low, sign * max(np.nanmax(v) for v in values)])
        row[0].set_ylim(style.limits(*edges, least=1e-3))


def density_per_layer(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Percent of each layer's weights remaining in the tickets, level by level; None without layers."""
    tables = {e.name: e.layers[e.layers.role == "ticket"] for e in experiments if len(e.layers)}
    names = list(dict.fromkeys(name for table in tables.values() for name in table.layer))
    if not names:
        return None
    notes = ["Mean over seeds. A layer that is wholly pruned ends."]
    blocks = -(-len(names) // 28)  # legend columns
    right = 0.2 + blocks * (0.55 + 0.07 * max(map(len, names)))
    height = max(2.6, 0.17 * -(-len(names) // blocks))
    figure, axes = style.sheet(
        title(summary), 1, len(tables), height=height, below=style.below([], notes, columns=1), right=right
    )
    colours = COLOURS if len(names) <= len(COLOURS) else viridis(len(names))
    for panel, (experiment, table) in zip(axes[0], tables.items(), strict=True):
        for place, name in enumerate(names):
            density = 100 * layer_density(table[table.layer == name])
            panel.plot(
                density.index, density.where(density > 0), label=name, color=colours[place],
                marker=MARKERS[place % 7], linestyle=DASHES[place % 4],
            )  # fmt: skip
        if len(tables) > 1:
            panel.set_title(experiment, loc="left")
        panel.set_xlabel("Level (times pruned)")
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    style.log_percent(axes[0, 0].yaxis)
    axes[0, 0].set_ylabel("Percent of the layer's weights remaining")
    style.footer(figure, [], notes, columns=1)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="center right", ncols=blocks)
    return figure


def layer_density(rows: pd.DataFrame) -> pd.Series:
    """The density of one layer by level, over all seeds."""
    sums = rows.groupby("level")[["kept", "size"]].sum()
    return sums["kept"] / sums["size"]


def viridis(count: int) -> list[str]:
    """`count` colours in order, for networks with many layers."""
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count))]
