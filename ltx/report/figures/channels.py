"""Tickets of whole channels: when their masks stood still, what they keep, and how the scales lay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ltx.report.figures import style
from ltx.report.figures.lines import title
from ltx.report.figures.style import COLOURS, DASHES, GREY, MARKERS
from ltx.report.runs import Experiment
from ltx.report.stats import band

SEEDS = 3  # how many a figure of single seeds shows


def first(experiments: Sequence[Experiment], table: str) -> Experiment | None:
    """The first experiment that has a table: of single seeds one figure shows one experiment."""
    return next((e for e in experiments if len(e.table(table))), None)


def of(experiment: Experiment, summary: pd.DataFrame) -> str:
    """The title of a figure of one experiment."""
    return f"{summary.config.iloc[0]} · {experiment.name}"


def mask_distance(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Distances between the masks of any two epochs of a search: You et al. 2020, Figure 4."""
    if (experiment := first(experiments, "distances")) is None:
        return None
    distances, draws = experiment.table("distances"), experiment.table("draws")
    ratios, seeds = list(distances.ratio.unique()), list(distances.seed.unique()[:SEEDS])
    notes = ["Dashed: the epoch at which the ticket was drawn. Fraction of channels in which masks differ."]
    wide = (style.WIDTH - style.LEFT - 0.9 - (len(seeds) - 1) * style.GAP) / len(seeds)
    figure, axes = style.sheet(
        *(of(experiment, summary), len(ratios), len(seeds)),
        height=min(wide, 2.6),
        below=style.below([], notes),
        right=0.9,
        names=[f"Seed {seed}" for seed in seeds],
    )
    last, top = int(distances.epoch.max()), distances.distance.max()
    for (p, ratio), (s, seed) in pairs(ratios, seeds):
        panel = axes[p, s]
        here = distances[(distances.ratio == ratio) & (distances.seed == seed)]
        square = np.full((last, last), np.nan)
        square[here.epoch - 1, here.earlier - 1] = square[here.earlier - 1, here.epoch - 1] = here.distance
        np.fill_diagonal(square[: here.epoch.max(), : here.epoch.max()], 0)
        edges = (0.5, last + 0.5)
        shown = panel.imshow(
            square, cmap="viridis_r", vmin=0, vmax=top, origin="lower", extent=(*edges, *edges), aspect="auto"
        )
        drawn = draws[(draws.ratio == ratio) & (draws.seed == seed) & (draws.emerged == 1)]
        for epoch in drawn.epoch:
            panel.axvline(epoch, color="#D55E00", linewidth=1.1, linestyle=DASHES[1])
            panel.axhline(epoch, color="#D55E00", linewidth=1.1, linestyle=DASHES[1])
        panel.grid(visible=False)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_ylabel(f"{100 * ratio:g} % pruned: epoch" if s == 0 else "")
    for panel in axes[-1]:
        panel.set_xlabel("Epoch")
    place = axes[0, -1].get_position(), axes[-1, -1].get_position()
    bar = figure.add_axes((place[0].x1 + 0.02, place[1].y0, 0.018, place[0].y1 - place[1].y0))
    figure.colorbar(shown, cax=bar, label="Mask distance")
    bar.invert_yaxis()
    style.footer(figure, [], notes)
    return figure


def pairs(rows: Sequence[Any], columns: Sequence[Any]) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Every pair of a row and a column, each with its place."""
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def ratios(experiment: Experiment) -> pd.DataFrame:
    """The fraction of channels pruned from each network, with what else names it."""
    sums = experiment.table("channels").groupby(["role", "draw", "level", "seed"])[["kept", "channels"]].sum()
    return (1 - sums.kept / sums.channels).round(2).rename("ratio").reset_index()


def accuracy_vs_drawing_epoch(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Test accuracy of retrained tickets over the epoch they were drawn at: You et al. 2020, Figure 3."""
    tables = []
    for experiment in experiments:
        if len(experiment.table("channels")) and len(experiment.table("costs")):
            named = experiment.levels.merge(ratios(experiment)).merge(experiment.table("costs"), on=NAMED)
            tables.append(named[named.role == "ticket"].assign(experiment=experiment.name))
    rows = pd.concat(tables) if tables else pd.DataFrame()
    if rows.empty or rows.groupby(["experiment", "ratio"])["level"].nunique().max() < 3:
        return None
    handles, notes = [], ["Points: mean over seeds. Bars: their minimum and maximum. Star: the best epoch."]
    lines = list(rows.groupby(["experiment", "ratio"], sort=False))
    for place, ((name, _), here) in enumerate(lines):
        label = f"{100 * here.ratio.iloc[0]:g} % pruned, n = {here.seed.nunique()}"
        handles.append(
            Line2D(
                [], [], color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)],
                label=f"{name}: {label}" if len(experiments) > 1 else label,
            )
        )  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle="--", label="dense network"))
    figure, axes = style.sheet(title(summary), 1, 1, height=2.6, below=style.below(handles, notes))
    panel = axes[0, 0]
    for handle, (_, here) in zip(handles, lines, strict=False):
        curve = 100 * band(here, "search_epochs", "final_test_accuracy")
        mean = curve["mean"]
        panel.errorbar(
            curve.index, mean, yerr=[mean - curve["low"], curve["high"] - mean], color=handle.get_color(),
            marker=handle.get_marker(), elinewidth=0.8, capsize=1.5,
        )  # fmt: skip
        panel.plot([mean.idxmax()], [mean.max()], marker="*", markersize=11, color=handle.get_color())
    dense = summary[(summary.role == "ticket") & (summary.level == 0)].final_test_accuracy_mean
    for level in 100 * dense.unique():
        panel.axhline(level, color=GREY, linewidth=0.9, linestyle="--", zorder=1.5)
    panel.set_xlabel("Epoch the ticket was drawn at")
    panel.set_ylabel("Retrained test accuracy (%)")
    style.footer(figure, handles, notes)
    return figure


NAMED = ["role", "draw", "level", "seed", "run"]


def channels_per_layer(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """How many channels of each layer the tickets keep."""
    found = {
        e.name: e.table("channels").merge(ratios(e))
        for e in experiments
        if len(e.table("channels")) and (e.table("channels").role == "ticket").any()
    }
    if not found:
        return None
    shown = dict(list(found.items())[:3])
    levels = sorted({ratio for table in shown.values() for ratio in table.ratio.unique()})
    handles = [Line2D([], [], color=GREY, drawstyle="steps-mid", label="all channels")] + [
        Line2D([], [], color=COLOURS[p % len(COLOURS)], marker=MARKERS[p % len(MARKERS)],
               label=f"{100 * ratio:g} % pruned")
        for p, ratio in enumerate(levels)
    ]  # fmt: skip
    notes = ["Mean over seeds; bands: minimum and maximum. Layers that share channels count as one."]
    figure, axes = style.sheet(
        *(title(summary), 1, len(shown)),
        height=2.6,
        below=style.below(handles, notes),
        names=list(shown) if len(found) > 1 else ["Channels of the tickets"],
    )
    for panel, table in zip(axes[0], shown.values(), strict=True):
        table = table[table.role == "ticket"]
        order = {name: place for place, name in enumerate(dict.fromkeys(table.group), start=1)}
        table = table.assign(place=table.group.map(order))
        whole = table.groupby("place").channels.first()
        panel.plot(whole.index, whole, color=GREY, drawstyle="steps-mid", linewidth=1)
        for handle, ratio in zip(handles[1:], levels, strict=True):
            curve = band(table[table.ratio == ratio], "place", "kept")
            colour = handle.get_color()
            panel.fill_between(
                curve.index, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0
            )
            panel.plot(curve.index, curve["mean"], color=colour, marker=handle.get_marker(), linewidth=1.2)
        panel.xaxis.set_major_locator(MaxNLocator(13, integer=True))
        panel.set_xlabel("Layer, from the images on")
    axes[0, 0].set_ylabel("Channels")
    axes[0, 0].set_ylim(bottom=0)
    style.footer(figure, handles, notes)
    return figure


def gammas(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """How BatchNorm's scales are spread before the search and after: Liu et al. 2017, Figure 4."""
    if (experiment := first(experiments, "gammas")) is None:
        return None
    table = experiment.table("gammas")
    handles = [
        Line2D([], [], color=colour, label=f"{when} the search")
        for when, colour in zip(("before", "after"), (GREY, COLOURS[0]), strict=True)
    ]
    notes = [f"All channels of {table.seed.nunique()} seeds."]
    figure, axes = style.sheet(of(experiment, summary), 1, 1, height=2.4, below=style.below(handles, notes))
    panel = axes[0, 0]
    for handle, when in zip(handles, ("before", "after"), strict=True):
        bins = table[table.when == when].assign(bin=lambda rows: rows.groupby("seed").cumcount())
        mean = bins.groupby("bin")[["low", "high", "channels"]].mean()
        edges = [*mean.low, mean.high.iloc[-1]]
        panel.stairs(mean.channels, edges, color=handle.get_color(), linewidth=1.2, fill=when == "after",
                     alpha=0.35 if when == "after" else 1)  # fmt: skip
    panel.set_yscale("symlog", linthresh=10)
    panel.set_xlabel("|γ|")
    panel.set_ylabel("Channels, mean over seeds")
    panel.set_xlim(left=0)
    style.footer(figure, handles, notes)
    return figure
