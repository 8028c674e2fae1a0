"""Accuracy and learning speed over percent of weights remaining: the papers' figures 1 and 4."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from ltx.report.figures import style
from ltx.report.figures.lines import (
    HOLLOW,
    NAMED,
    against_sparsity,
    bars,
    baseline_text,
    count,
    cut,
    highest,
    legend,
    looks,
    readable,
    title,
    visible,
)
from ltx.report.stats import MOSTLY, censored

ROWS = 6  # of panels in a figure of one config
PANELS = 12  # in a figure of all configs
FIGURES = 2  # of all configs
ALIKE = 5e-4  # means that no figure tells apart
MEASURES = {
    "early_stop_test_accuracy": "At early stop",
    "final_test_accuracy": "At the end of training",
}


def accuracy_vs_sparsity(summary: pd.DataFrame, general: Sequence[str] = ()) -> Figure:
    """Test accuracy at early stop and at the end of training over percent of weights remaining.

    One panel has both where they are the same: networks that were still improving stop early at the end.
    """
    measures = one_or_two(summary)
    summary, notes = readable(summary)
    notes += [*no_steps(summary), *general]
    panels = list(summary.panel.unique())
    if len(panels) > ROWS:
        notes.append(f"Shown: the first {ROWS} of {len(panels)} panels; the tables have all.")
    rows = [summary[summary.panel == panel] for panel in panels[:ROWS]]
    shown = pd.concat(rows)
    low, below = visible(shown, list(measures))
    handles, notes = legend(shown), [bars(summary), *notes, *cut(low, below)]
    names = [
        f"{panel}: {name[0].lower()}{name[1:]}{base}" if panel else f"{name}{base}"
        for panel, here in zip(panels, rows, strict=False)
        for measure, name in measures.items()
        for base in [baseline_text(here, measure)]
    ]
    figure, axes = style.sheet(
        *(title(summary), len(rows), len(measures)),
        height=2.6 if len(rows) == 1 else 1.9,
        below=style.below(handles, notes),
        names=names,
    )
    look, limits = looks(shown), style.limits(100 * low, 100 * highest(shown, list(measures)), least=0.1)
    for place, (here, row) in enumerate(zip(rows, axes, strict=True), start=1):
        for panel, measure in zip(row, measures, strict=True):
            against_sparsity(panel, here, measure, look, scale=100)
            style.sparsity_axis(
                panel,
                shown.density.tolist(),
                apart=0.11 if len(measures) == 2 else 0.055,
                bare=len(rows) == 1,
            )
            panel.set_xlabel(panel.get_xlabel() if place == len(rows) else "")
        row[0].set_ylim(limits)
        row[0].set_ylabel("Test accuracy (%)")
    style.footer(figure, handles, notes)
    return figure


def one_or_two(summary: pd.DataFrame) -> dict[str, str]:
    """The accuracies that a figure shows, with the names of their panels."""
    early, final = (summary[f"{measure}_mean"] for measure in MEASURES)
    if censored(summary) > MOSTLY or (early - final).abs().max() < ALIKE:
        return {"early_stop_test_accuracy": "At early stop, here the end of training"}
    return MEASURES


def no_steps(summary: pd.DataFrame) -> list[str]:
    """Why there is no figure of early-stop steps, where there is none."""
    if (share := censored(summary)) <= MOSTLY:
        return []
    return [
        f"No figure of early-stop steps: {100 * share:.0f} % of the networks were still improving at the last step. "
        "Raise recipe.steps."
    ]


def early_stop_vs_sparsity(summary: pd.DataFrame, general: Sequence[str] = ()) -> Figure | None:
    """The step of minimum validation loss over percent of weights remaining; None where nearly all are censored."""
    if censored(summary) > MOSTLY:
        return None
    general = [*([HOLLOW] if summary.censored.any() else []), *general]
    summary, notes = readable(summary)
    notes += general
    panels = list(summary.panel.unique())
    if len(panels) > 1:
        return grid(
            f"{title(summary)}: the step of minimum validation loss",
            *(summary, panels[:PANELS], "early_stop_step", few_columns(len(panels))),
            [*notes, *beyond(panels)],
        )
    handles, notes = legend(summary), [bars(summary), *notes]
    names = ["How fast it learns: the step of minimum validation loss"]
    figure, axes = style.sheet(
        title(summary), 1, 1, height=2.6, below=style.below(handles, notes), names=names
    )
    against_sparsity(axes[0, 0], summary, "early_stop_step", looks(summary), scale=1)
    axes[0, 0].set_ylabel("Early-stop step")
    axes[0, 0].set_ylim(bottom=0)
    style.thousands(axes[0, 0].yaxis)
    style.sparsity_axis(axes[0, 0], summary.density.tolist(), apart=0.055)
    style.footer(figure, handles, notes)
    return figure


def beyond(panels: Sequence[str]) -> list[str]:
    """A note on the panels that a figure has no room for."""
    more = len(panels) > PANELS
    return [f"Shown: the first {PANELS} of {len(panels)} panels; the tables have all."] if more else []


def comparison(
    summary: pd.DataFrame, by: Sequence[str], keys: Sequence[str], notes: Sequence[str]
) -> list[Figure]:
    """Test accuracy at early stop of everything compared, `PANELS` panels a figure.

    A panel per value of `keys`, lines by `by`. The config is the column if a few have the same panels.
    """
    summary, left_out = readable(summary)
    groups = dict(list(summary.groupby("config", sort=False)))
    rest = [key for key in keys if key != "config"]
    alike = {str(rows[rest].drop_duplicates().astype(str).to_numpy().tolist()) for rows in groups.values()}
    panels, columns = list(summary.panel.unique()), few_columns(summary.panel.nunique())
    if len(alike) == 1 and 1 < len(groups) <= 3:
        columns = len(groups)
        panels = [p for row in zip(*(g.panel.unique() for g in groups.values()), strict=True) for p in row]
    what = ", by ".join(["Test accuracy at early stop", *([" and ".join(by)] if by else [])])
    left_out += [f"Panels: {', '.join(keys)}."] if keys else []
    if len(panels) > FIGURES * PANELS:
        left_out.append(f"Shown: the first {FIGURES * PANELS} of {len(panels)} panels; the tables have all.")
        panels = panels[: FIGURES * PANELS]
    figures = []
    for start in range(0, len(panels), PANELS):
        of = f" ({start // PANELS + 1} of {-(-len(panels) // PANELS)})" if len(panels) > PANELS else ""
        shown = panels[start : start + PANELS]
        all_notes = [*left_out, *notes]
        figures.append(grid(what + of, summary, shown, "early_stop_test_accuracy", columns, all_notes))
    return figures


def few_columns(panels: int) -> int:
    """How many panels stand side by side."""
    return min(panels, 2 if panels in (2, 4) else 3)


def grid(
    heading: str,
    summary: pd.DataFrame,
    panels: Sequence[str],
    measure: str,
    columns: int,
    notes: Sequence[str],
) -> Figure:
    """One measure in many panels, row by row; panels of one config share their y axis."""
    look, scale = looks(summary), 1 if measure == "early_stop_step" else 100
    shown = summary[summary.panel.isin(panels)]
    handles, notes = legend(summary, shown), [bars(summary), *notes]
    configs, limits = {panel: here.config.iloc[0] for panel, here in shown.groupby("panel")}, {}
    fallen: dict[str, None] = {}
    for config in dict.fromkeys(configs.values()):
        here = summary[summary.config == config]
        low, below = (0.0, []) if scale == 1 else visible(here, [measure])
        limits[config] = style.limits(scale * low, scale * highest(here, [measure]), least=0.1)
        fallen |= dict.fromkeys(line for line in below if line in set(shown.line))
    if fallen:
        names = ", ".join(fallen) if len(fallen) <= NAMED else f"{len(fallen)} lines"
        notes.append(f"Axes are cut: {names} {'falls' if len(fallen) == 1 else 'fall'} below them.")
    counts = {panel: count(shown[shown.panel == panel]) for panel in panels}
    several = len(set(counts.values())) > 1  # then the legend's n is no panel's own
    rows = -(-len(panels) // columns)
    figure, axes = style.sheet(
        *(heading, rows, columns),
        height=1.75,
        below=style.below(handles, notes),
        names=[f"{panel}, {n}" for panel, n in counts.items()] if several else panels,
        shared=False,
    )
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_visible(False)
            continue
        here = shown[shown.panel == panels[place]]
        against_sparsity(axis, here, measure, look, scale=scale)
        style.sparsity_axis(axis, shown.density.tolist(), apart=0.11 if columns < 3 else 0.17, bare=False)
        last = place + columns >= len(panels)
        axis.tick_params(labelbottom=last)
        axis.set_xlabel(axis.get_xlabel() if last else "")
        axis.set_ylim(limits[configs[panels[place]]])
        if scale == 1:
            axis.set_ylim(bottom=0)
            style.thousands(axis.yaxis)
        if place % columns == 0:
            axis.set_ylabel("Early-stop step" if scale == 1 else "Test accuracy (%)")
    style.footer(figure, handles, notes)
    return figure
