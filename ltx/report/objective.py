"""What a search for hyper-parameters is told of a run: one number, from validation data alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ltx.errors import demand
from ltx.knobs import Knobs, Rule, knob, one_of, within

if TYPE_CHECKING:
    import pandas as pd

WORST = {
    "early_stop_val_accuracy": 0.0,
    "early_stop_val_loss": inf,
    "final_val_accuracy": 0.0,
    "final_val_loss": inf,
    "matching_density": 1.0,
}
"""The measures, each with the value of a network that diverged."""


@dataclass(frozen=True)
class Objective(Knobs):
    """The measure on validation data that a run returns: the mean over the seeds of its tickets."""

    prefix = "objective."

    measure: str = knob(
        "early_stop_val_accuracy",
        one_of(WORST),
        "early_stop_val_accuracy | early_stop_val_loss | final_val_accuracy | final_val_loss, of one level; "
        "matching_density: the smallest density whose accuracy at early stop matches the dense network's",
    )
    level: int | None = knob(
        None,
        Rule("it must be 0 (the dense network) or more", lambda level: level >= 0),
        "the level that is measured, else the last; of no meaning for matching_density",
    )
    tolerance: float = knob(0.0, within(0, 1), "the accuracy that a matching ticket may lack, as a fraction")

    def __post_init__(self) -> None:
        super().__post_init__()
        density = self.measure == "matching_density"
        demand(
            self.level is None or not density,
            "objective.level",
            self.level,
            "matching_density is found among all levels",
        )
        demand(
            density or self.tolerance == 0,
            "objective.tolerance",
            self.tolerance,
            "only objective.measure=matching_density has one",
        )


def objective(folder: Path, wanted: Objective) -> float:
    """The value of a run's objective, from its tables; test data are never read.

    A network that diverged counts as the worst there is: accuracy 0, loss inf, a matching density of 1. So a
    search is steered away and is never handed a NaN. Raises UserError if the run lacks the level.
    """
    if wanted.measure == "matching_density":
        return matching_density(folder, wanted.tolerance)
    values = measured(folder, wanted.measure).groupby("level").mean()
    level = values.index.max() if wanted.level is None else wanted.level
    there = f"the run in {folder} has levels {', '.join(map(str, values.index))}"
    demand(level in values.index, "objective.level", level, there)
    return float(values[level])


def matching_density(folder: Path, tolerance: float) -> float:
    """The smallest density whose accuracy is >= the dense network's - `tolerance`; 1 if no ticket matches.

    Means over the seeds. Where a dense network diverged there is nothing to match: 1.
    """
    tickets = read(folder, "levels").set_index("level")
    if tickets.diverged[[0]].any():
        return WORST["matching_density"]
    accuracy = measured(folder, "early_stop_val_accuracy").groupby("level").mean()
    # 0.98 - 0.01 is not 0.97 in floating point
    matches = accuracy[accuracy >= accuracy[0] - tolerance - 1e-9]
    return float(tickets.density[matches.index].groupby("level").mean().min())


def measured(folder: Path, measure: str) -> pd.Series:
    """A measure of every ticket, by level and seed; the worst value where training diverged."""
    levels = read(folder, "levels").set_index(["level", "seed"])
    curves = read(folder, "curves").set_index(["level", "seed"])
    curves = curves[curves.index.isin(levels.index[levels.diverged == 0])]
    moment, column = measure.split("_val_")
    if moment == "early_stop":  # the first of the least losses, as in ltx.core.ticket.Curve
        curves = curves.sort_values(["val_loss", "step"])
    else:
        curves = curves.sort_values("step", ascending=False)
    values = curves.groupby(["level", "seed"])[f"val_{column}"].first()
    return values.reindex(levels.index, fill_value=WORST[measure])


def read(folder: Path, table: str) -> pd.DataFrame:
    """The rows of the tickets in a run's table, without what was measured on test data."""
    from ltx.report.runs import read_table

    rows = read_table(folder / f"{table}.csv", every=True)
    return rows[rows.role == "ticket"].drop(columns=[column for column in rows.columns if "test" in column])
