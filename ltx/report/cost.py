"""What tickets cost to find and to train, beside what they are worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ltx.report import style
from ltx.report.lines import bars, first_panel, legend, looks, readable, title
from ltx.report.runs import Experiment
from ltx.report.stats import ends
from ltx.report.tables import accuracy, percent

KEY = ["experiment", "role", "level"]
LABELLED = 4  # lines of which every point has room for its density
SPENT = "Costs count multiply-accumulates of training (search and retraining, forward and backward)."


def with_costs(experiments: Sequence[Experiment], summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary whose costs are known, with their means, and total over dense: `times_dense`."""
    costs = pd.concat([e.table("costs").assign(experiment=e.name) for e in experiments], ignore_index=True)
    if costs.empty:
        return summary.iloc[:0].assign(times_dense=[])
    measures = [column for column in costs if column not in (*KEY, "draw", "seed", "run")]
    means = costs.groupby(KEY, sort=False)[measures].mean().reset_index()
    found = summary.merge(means, on=KEY)
    dense = means[(means.role == "ticket") & (means.level == 0)].set_index("experiment").macs
    return found.assign(times_dense=found.total_macs / found.experiment.map(dense))


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


HEAD = [
    *("line", "% weights", "test accuracy (%)", "search epochs", "epochs", "total epochs"),
    *("search MACs", "MACs", "total MACs", "× dense", "total s"),
]
ENERGY = {"total_cpu_joules": "total J, CPU", "total_gpu_joules": "total J, GPU"}
METERED = "Joules are those of whole CPU packages and GPUs, by the machine's own counters."


def markdown(experiments: Sequence[Experiment], summary: pd.DataFrame) -> str:
    """The costs of every line and level as a section of a page; empty if nothing is known of them."""
    rows = with_costs(experiments, summary)
    if rows.empty:
        return ""
    energy = {c: name for c, name in ENERGY.items() if c in rows and rows[c].notna().any()}
    cells = [
        [
            f"{row['line']}, n = {row['n']}",
            percent(row["density"]),
            accuracy(row, "final_test_accuracy", True),
            *(f"{row[part + 'epochs']:.4g}" for part in ("search_", "", "total_")),
            *(f"{row[part + 'macs']:.3g}" for part in ("search_", "", "total_")),
            f"{row['times_dense']:.2f}",
            f"{row['total_seconds']:.4g}",
            *("" if pd.isna(row[column]) else f"{row[column]:.4g}" for column in energy),
        ]
        for row in rows.to_dict("records")
    ]
    head = [*HEAD, *energy.values()]
    sheet = [head, ["---", *["---:"] * (len(head) - 1)], *cells]
    page = ["", "## Training cost per network, mean over seeds", ""]
    page += [f"| {' | '.join(row)} |" for row in sheet]
    notes = [f"- {SPENT} Accuracy is that at the end of training.", *([f"- {METERED}"] if energy else [])]
    return "\n".join([*page, "", *notes, ""])
