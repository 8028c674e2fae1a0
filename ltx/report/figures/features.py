"""Figures of features: the path along lambda, and what it says of each feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltx.report.features import SURE, kept, ranked
from ltx.report.figures import style
from ltx.report.figures.channels import first, of
from ltx.report.figures.style import COLOURS, GREY
from ltx.report.runs import Experiment

SHOWN = 30
"""So many features have room for a name."""


def feature_path(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """The score against the number of features and against lambda, and the number against lambda: a line a seed."""
    if (experiment := first(experiments, "path")) is None:
        return None
    path = experiment.table("path")
    path = path[(path.point > 0) & (path.features > 0)]
    seeds = path.seed.nunique()
    notes = [
        f"A line for each of {seeds} seeds; test data, which choose nothing. The dense network is left out."
    ]
    figure, axes = style.sheet(
        of(experiment, summary),
        1,
        3,
        height=2.2,
        below=style.below([], notes),
        shared=False,
        along=False,
        names=["Test score", "Test score", "Features left"],
    )
    pairs = [("features", "test_measure"), ("lambda", "test_measure"), ("lambda", "features")]
    for panel, (x, y) in zip(axes.flat, pairs, strict=True):
        for _, rows in path.groupby("seed"):
            panel.plot(rows[x], rows[y], color=COLOURS[0], alpha=max(0.25, 1 / seeds), linewidth=1)
        panel.set_xscale("log" if x == "lambda" else "linear")
        panel.set_xlabel({"features": "Features left", "lambda": "λ"}[x])
    axes[0, 0].invert_xaxis()
    style.footer(figure, [], notes)
    return figure


def feature_importance(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """The lambda at which features leave: a picture where they are pixels, else bars with names, the last first."""
    if (experiment := first(experiments, "importance")) is None:
        return None
    importance = experiment.table("importance")
    places = importance.feature.str.fullmatch(r"\d+,\d+").all()
    notes = [f"Mean over {importance.seed.nunique()} seeds of the λ at which a feature left for good."]
    height = 2.6 if places else 0.5 + 0.16 * min(SHOWN, importance.feature.nunique())
    figure, axes = style.sheet(
        of(experiment, summary), 1, 1, height=height, below=style.below([], notes), right=3.4
    )
    (picture if places else bars)(axes[0, 0], ranked(importance))
    style.footer(figure, [], notes)
    return figure


def picture(panel: Axes, found: pd.DataFrame) -> None:
    """Pixels where they lie, the darker the longer they stay."""
    rows, columns = (found.feature.str.split(",").str[i].astype(int) for i in (0, 1))
    image = np.full((rows.max() + 1, columns.max() + 1), np.nan)
    image[rows, columns] = np.log10(found["lambda"])
    drawn = panel.imshow(image, cmap="Greys")
    panel.grid(False)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.figure.colorbar(drawn, ax=panel, label="log λ at which a pixel leaves")


def bars(panel: Axes, found: pd.DataFrame) -> None:
    """The features that stay longest, with their names, and how far ranks spread over seeds."""
    shown = found[:SHOWN]
    panel.barh(shown.feature, shown["lambda"], color=COLOURS[0], height=0.7)
    panel.set_xscale("log")
    panel.invert_yaxis()
    panel.set_xlabel("λ at which it leaves")
    panel.tick_params(axis="y", labelsize=6.5)
    for y, (rank, spread) in enumerate(zip(shown["rank"], shown.spread.fillna(0), strict=True)):
        text = f"rank {rank:.1f} ± {spread:.1f}"
        panel.annotate(
            text, (1.01, y), xycoords=("axes fraction", "data"), fontsize=6, color=GREY, va="center"
        )


def feature_selection(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """How often folds or halves keep each feature among as many as the first ticket has: bars with names."""
    if (experiment := first(experiments, "selection")) is None:
        return None
    selection, count = experiment.table("selection"), kept(experiment.table("trees"))
    count = count or selection.feature.nunique() // 2
    found = ranked(selection, count).sort_values("share", ascending=False, kind="stable")[:SHOWN]
    notes = [
        f"The fraction of {selection.seed.nunique()} resamples in which a feature is among the last {count}; "
        f"the line is at {SURE}."
    ]
    height = 0.5 + 0.16 * len(found)
    figure, axes = style.sheet(
        of(experiment, summary), 1, 1, height=height, below=style.below([], notes), right=2.4
    )
    panel = axes[0, 0]
    panel.barh(found.feature, found.share, color=COLOURS[0], height=0.7)
    panel.axvline(SURE, color=GREY, linewidth=0.8)
    panel.set_xlim(0, 1)
    panel.invert_yaxis()
    panel.set_xlabel("Selection probability")
    panel.tick_params(axis="y", labelsize=6.5)
    style.footer(figure, [], notes)
    return figure
