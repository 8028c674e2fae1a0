"""What the numbers say: means and spreads over replicates, and the smallest ticket that matches."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ltx.report.runs import Experiment

MEASURES = ["early_stop_test_accuracy", "final_test_accuracy", "final_train_accuracy", "early_stop_step"]
SPREAD = ["mean", "min", "max", "std"]  # std is the sample's (n - 1): missing where n = 1


def summarize(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """One row per line and level over the networks that did not diverge.

    A line is a role of an experiment; its name carries the experiment's only where there are several.
    Accuracies and densities are fractions; `n` counts networks (seeds times draws).
    """
    return pd.concat([summary(e, several=len(experiments) > 1) for e in experiments], ignore_index=True)


def summary(experiment: Experiment, *, several: bool) -> pd.DataFrame:
    """The rows of one experiment in `summarize`."""
    rows = experiment.levels.assign(experiment=experiment.name)
    rows["line"] = experiment.name + " " + rows.role if several else rows.role
    sound = rows.diverged == 0
    groups = rows.assign(n=sound, diverged=~sound, **rows[MEASURES].where(sound)).groupby(
        ["config", "experiment", "line", "role", "method", "level"], sort=False
    )
    spread = groups[MEASURES].agg(SPREAD)
    spread.columns = spread.columns.map("_".join)
    counts = groups[["n", "diverged"]].sum().astype(int)
    of = rows[sound].groupby(["line", "level"])[["seed", "draw"]].nunique()
    counts = counts.join(of.rename(columns={"seed": "seeds", "draw": "draws"}))
    table = groups[["density", "weights_remaining"]].mean().join(counts).join(spread).reset_index()
    table[["seeds", "draws"]] = table[["seeds", "draws"]].fillna(0).astype(int)
    roles = {role: place for place, role in enumerate(rows.role.unique())}
    return table.sort_values(["role", "level"], key=lambda c: c.map(roles) if c.name == "role" else c)


def dense(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dense networks (level 0) of a summary, by experiment."""
    return table[(table.role == "ticket") & (table.level == 0)].set_index("experiment")


@dataclass(frozen=True)
class Matching:
    """Where a line matches the dense network: rows of its summary, None where no pruned level does."""

    line: str
    smallest: pd.Series | None  # of all levels that match, the one with the fewest weights
    unbroken: pd.Series | None  # the last before the first level that does not match


def matching(table: pd.DataFrame, tolerance: float = 0.0) -> list[Matching]:
    """Which levels of every line match: mean accuracy at early stop >= the dense mean - `tolerance`."""
    baseline, column = dense(table), "early_stop_test_accuracy_mean"
    found = []
    for (experiment, line), rows in table[table.level > 0].groupby(["experiment", "line"], sort=False):
        rows = rows.sort_values("density", ascending=False, kind="stable")
        gap = rows[column] - baseline[column].get(experiment, float("nan"))
        matches = gap >= -tolerance - 1e-9  # 0.98 - 0.01 is not 0.97 in floating point
        smallest, unbroken = rows[matches], rows[matches.cummin()]
        found.append(
            Matching(
                str(line),
                smallest.iloc[-1] if len(smallest) else None,
                unbroken.iloc[-1] if len(unbroken) else None,
            )
        )
    return found


def band(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean, min and max of `y` over the networks at every `x`."""
    return rows.groupby(x)[y].agg(["mean", "min", "max"])
