"""What tickets cost to find and to train, as a table."""

from collections.abc import Sequence

import pandas as pd

from ltx.report.runs import Experiment
from ltx.report.tables import NONE, Section, Sheet, accuracy, percent

KEY = ["experiment", "role", "level"]
SPENT = "Costs count multiply-accumulates of training (search and retraining, forward and backward)."
ENERGY = {"total_cpu_joules": "total J, CPU", "total_gpu_joules": "total J, GPU"}
METERED = "Joules are those of whole CPU packages and GPUs, by the machine's own counters."
UNITS = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


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


def sections(experiments: Sequence[Experiment], summary: pd.DataFrame) -> list[Section]:
    """The costs of every line and level; nothing if nothing is known of them."""
    rows = with_costs(experiments, summary)
    if rows.empty:
        return []
    energy = {c: name for c, name in ENERGY.items() if c in rows and rows[c].notna().any()}
    of = rows.to_dict("records")
    columns = {
        "line": [f"{row['line']}, n = {row['n']}" for row in of],
        "% weights": [percent(row["density"]) for row in of],
        "test accuracy (%)": [accuracy(row, "final_test_accuracy", True) for row in of],
        **{head: [human(row[column]) for row in of] for column, head in EPOCHS.items()},
        **{head: [human(row[column]) for row in of] for column, head in MACS.items()},
        "× dense": [f"{row['times_dense']:.2f}" for row in of],
        "total s": [human(row["total_seconds"]) for row in of],
        **{head: [NONE if pd.isna(row[c]) else human(row[c]) for row in of] for c, head in energy.items()},
    }
    notes = [f"{SPENT} Accuracy is that at the end of training.", *([METERED] if energy else [])]
    return [([Sheet("Training cost per network, mean over seeds", columns, left=1)], notes)]


EPOCHS = {"search_epochs": "search epochs", "epochs": "epochs", "total_epochs": "total epochs"}
MACS = {"search_macs": "search MACs", "macs": "MACs", "total_macs": "total MACs"}


def human(value: float) -> str:
    """A large number with three digits and its unit: 26.2 G."""
    for size, unit in UNITS.items():
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
