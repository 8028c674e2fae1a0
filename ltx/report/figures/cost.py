"""What tickets cost to find and to train, beside what they are worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ltx.report.costs import SPENT, with_costs
from ltx.report.figures import style
from ltx.report.figures.lines import bars, first_panel, legend, looks, readable, title
from ltx.report.runs import Experiment
from ltx.report.stats import ends
from ltx.report.tables import percent

LABELLED = 4  # lines of which every point has room for its density


def accuracy_vs_cost(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Test accuracy at the end of training over the total training cost, in dense trainings."""
    rows = with_costs(experiments, summary)
    rows = rows[rows.times_dense > 0]
    if rows.empty:
        return None
    shown, left_out = readable(first_panel(summary))
    rows = rows[rows.experiment.isin(shown.experiment) & rows.role.isin(shown.role)]
    head = "At the end of training"
    if summary.panel.nunique() > 1:
        head = f"{shown.panel.iloc[0]}: at the end of training"
        left_out = [*left_out, "Shown: the first panel; the tables have all."]
    handles, look, (low_end, high_end) = legend(shown), looks(shown), ends(shown)
    notes = [f"{bars(summary)} Labels: percent of weights remaining.", SPENT, *left_out]
    for handle in handles[:-1]:
        handle.set_linestyle("")
    figure, axes = style.sheet(
        title(summary), 1, 1, height=2.8, below=style.below(handles, notes), names=[head]
    )
    panel, measure = axes[0, 0], "final_test_accuracy"
    for line, here in rows.groupby("line", sort=False):
        one, here = look[str(line)], here[here.level > 0]
        mean, low, high = (100 * here[f"{measure}_{what}"].to_numpy() for what in ("mean", low_end, high_end))
        panel.errorbar(
            here.times_dense, mean, yerr=np.nan_to_num(np.maximum([mean - low, high - mean], 0)),
            color=one.colour, linestyle="", marker=one.marker, elinewidth=0.8, capsize=1.5,
        )  # fmt: skip
        for place, (x, y, density) in enumerate(zip(here.times_dense, mean, here.density, strict=True)):
            if len(look) <= LABELLED or place in (0, len(here) - 1):
                panel.annotate(
                    percent(density), (x, y), (3, 3), textcoords="offset points", fontsize=7, color=one.colour
                )
    dense = rows[rows.level == 0].drop_duplicates("experiment")
    for level in (100 * dense[f"{measure}_mean"]).unique():
        panel.axhline(level, color=style.GREY, linewidth=0.9, linestyle=":", zorder=1.5)
    panel.axvline(1, color=style.GREY, linewidth=0.9, linestyle=":", zorder=1.5)
    panel.set_xscale("log")
    narrow = rows.times_dense.max() < 4 * rows.times_dense.min()
    panel.xaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1, 2, 3, 5, 7)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("Total cost, in trainings of the dense network")
    panel.set_ylabel("Test accuracy (%)")
    style.footer(figure, handles, notes)
    return figure
