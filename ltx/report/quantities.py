"""What published claims speak of, each defined once: a value per seed from the rows of an experiment's networks.

Every function takes the networks (rows of levels.csv) of the seeds that are asked about, and what the claim says
besides; it returns one number for each seed, or, where only means can be compared, one number for them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

NEAR = 0.03  # how far, as a fraction, a level's density may lie from the one that a claim names


class Absent(Exception):
    """The experiment has no such networks; says which are missing."""


@dataclass(frozen=True)
class Networks:
    """The networks of an experiment that a claim may speak of."""

    levels: pd.DataFrame
    measure: str = "accuracy"
    compared: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows of compare.csv, where there are any

    def of(self, role: str, at: float | None = None, level: int | None = None) -> pd.DataFrame:
        """The networks of a role, of a level or the one nearest to a density; a row a seed, draws averaged."""
        rows = self.levels[(self.levels.role == role) & (self.levels.level > 0)]
        if at == 1 or role == "dense":
            rows = self.levels[(self.levels.role == "ticket") & (self.levels.level == 0)]
        elif level is not None:
            rows = rows[rows.level == level]
        if rows.empty:
            raise Absent(f"no {role}" + f" of level {level}" * (level is not None))
        if at is not None:
            there = rows.density.unique()
            nearest = min(there, key=lambda density: abs(density - at))
            if abs(nearest - at) > NEAR * at:
                raise Absent(
                    f"no {role} at {100 * at:.3g} % of weights, the nearest has {100 * nearest:.3g} %"
                )
            rows = rows[rows.density == nearest]
        return rows.groupby("seed").mean(numeric_only=True)

    def dense(self) -> pd.DataFrame:
        """The dense networks, a row a seed."""
        return self.of("dense")

    def beside(self, role: str, at: float) -> pd.DataFrame:
        """The same networks as `ltx compare` set them beside each other, a row a seed."""
        if self.compared.empty:
            raise Absent("no compare.csv: `ltx compare` writes it")
        return Networks(self.compared).of(role, at)

    def accuracy(self, rows: pd.DataFrame, when: str) -> pd.Series:
        """The measure on test data, `when` is early_stop or final."""
        return rows[f"{when}_test_{self.measure}"]


Quantity = Callable[..., "pd.Series | float"]


def early_stop_step(networks: Networks, at: float, role: str = "ticket") -> pd.Series:
    """The step of least validation loss."""
    return networks.of(role, at).early_stop_step


def sooner_than_dense(networks: Networks, at: float) -> float:
    """How much sooner tickets stop early than dense networks: one less the ratio of mean steps."""
    mine, theirs = networks.of("ticket", at).early_stop_step, networks.dense().early_stop_step
    return 1 - mine.mean() / theirs.mean()


def times_faster_than(networks: Networks, at: float, control: str = "reinit") -> float:
    """The ratio of mean early-stop steps, the control's to the tickets'."""
    return networks.of(control, at).early_stop_step.mean() / networks.of("ticket", at).early_stop_step.mean()


def gain_over_dense(
    networks: Networks, at: float, role: str = "ticket", when: str = "early_stop"
) -> pd.Series:
    """Test accuracy of tickets, or of a control, less that of the dense network of the same seed."""
    return networks.accuracy(networks.of(role, at), when) - networks.accuracy(networks.dense(), when)


def gain_over(networks: Networks, at: float, control: str = "reinit", when: str = "early_stop") -> pd.Series:
    """Test accuracy of tickets less that of a control of the same seed."""
    mine, theirs = networks.of("ticket", at), networks.of(control, at)
    return networks.accuracy(mine, when) - networks.accuracy(theirs, when)


def largest_gain(networks: Networks, when: str = "final") -> float:
    """The greatest gain of mean test accuracy over the dense mean at any level: a maximum of noisy numbers."""
    rows = networks.levels[(networks.levels.role == "ticket") & (networks.levels.level > 0)]
    if rows.empty:
        raise Absent("no ticket")
    means = networks.accuracy(rows.groupby("level").mean(numeric_only=True), when)
    return float(means.max() - networks.accuracy(networks.dense(), when).mean())


def smallest_matching_density(networks: Networks, when: str = "early_stop") -> float:
    """The least density whose mean test accuracy is at least the dense mean (the paper's rule)."""
    return _last(networks, lambda rows: networks.accuracy(rows, when), lambda value, dense: value >= dense)


def smallest_density_as_fast(networks: Networks) -> float:
    """The least density whose mean early-stop step is at most the dense mean."""
    return _last(networks, lambda rows: rows.early_stop_step, lambda value, dense: value <= dense)


def _last(
    networks: Networks,
    value: Callable[[pd.DataFrame], pd.Series],
    holds: Callable[[float, float], bool],
) -> float:
    tickets = networks.levels[networks.levels.role == "ticket"]
    dense = value(networks.dense()).mean()
    levels = tickets.groupby("density", as_index=False).mean(numeric_only=True)
    found = zip(levels.density, value(levels), strict=True)
    return min(float(density) for density, mean in found if holds(mean, dense))


def accuracy(networks: Networks, at: float = 1, role: str = "ticket", when: str = "final") -> pd.Series:
    """Test accuracy."""
    return networks.accuracy(networks.of(role, at), when)


def accuracy_of_level(networks: Networks, level: int, role: str = "ticket", when: str = "final") -> pd.Series:
    """Test accuracy at a level: of methods whose claims name channels or features, and no density of weights."""
    return networks.accuracy(networks.of(role, level=level), when)


def error(networks: Networks, at: float = 1, role: str = "ticket", when: str = "final") -> pd.Series:
    """One less the test accuracy."""
    return 1 - networks.accuracy(networks.of(role, at), when)


def ensemble_gain(networks: Networks, at: float, role: str = "ticket") -> pd.Series:
    """Test accuracy of the ensemble of all seeds less that of each of them."""
    rows = networks.beside(role, at)
    return rows.ensemble - rows.accuracy


def disagreement(networks: Networks, at: float, role: str = "ticket") -> pd.Series:
    """The share of test examples that a network classifies otherwise than those of the other seeds."""
    return networks.beside(role, at).disagreement


def solution_disagreement(networks: Networks, at: float, role: str = "ticket") -> pd.Series:
    """The share of test examples classified otherwise than by what the mask was cut from."""
    return networks.beside(role, at).solution_disagreement


def least_train_accuracy(networks: Networks, down_to: float) -> pd.Series:
    """The least training accuracy at the end of any ticket with at least so many weights."""
    rows = networks.levels[(networks.levels.role == "ticket") & (networks.levels.density >= down_to)]
    return rows.groupby("seed")[f"final_train_{networks.measure}"].min()


QUANTITIES: dict[str, Quantity] = {
    quantity.__name__: quantity
    for quantity in (
        early_stop_step,
        sooner_than_dense,
        times_faster_than,
        gain_over_dense,
        gain_over,
        largest_gain,
        smallest_matching_density,
        smallest_density_as_fast,
        accuracy,
        accuracy_of_level,
        error,
        ensemble_gain,
        disagreement,
        solution_disagreement,
        least_train_accuracy,
    )
}
