"""Barriers between copies of a network as a table (Frankle et al. 2020)."""

from collections.abc import Sequence

import pandas as pd

from ltx.report.tables import Section, Sheet, percent

STABLE = 0.02  # of error: a network whose barrier is lower is stable (Frankle et al. 2020, section 3)
CAPTIONS = (
    "From the weights of step k two copies are trained with other data order and augmentation. The "
    "barrier is the highest error at 30 evenly spaced points of the straight line between them minus "
    "the mean error of its ends, in points of error (Frankle et al. 2020).",
    "Mean (min..max) of n pairs of copies, one pair per seed. "
    f"Stable: the mean barrier of test error is below {100 * STABLE:g} points.",
    "Disagreement: test examples that the two copies classify differently.",
)


def section(barriers: pd.DataFrame, notes: Sequence[str] = ()) -> Section:
    """One row per level and k of barriers.csv, then what a reader must know."""
    rows = [rows for _, rows in barriers.groupby(["level", "k"])]
    columns = {
        "% weights": [percent(row.density.mean()) for row in rows],
        "k": [f"{row.k.iloc[0]:,}" for row in rows],
        "n": [str(len(row)) for row in rows],
        "test barrier": [ranged(100 * row.test_barrier) for row in rows],
        "train barrier": [ranged(100 * row.train_barrier) for row in rows],
        "stable": ["yes" if row.test_barrier.mean() < STABLE else "no" for row in rows],
        "L2 distance": [ranged(row.l2) for row in rows],
        "disagreement (%)": [ranged(100 * row.disagreement) for row in rows],
    }
    return [Sheet("Barriers", columns)], [*CAPTIONS, *notes]


def ranged(values: pd.Series) -> str:
    """Mean with its range if there is one to show."""
    mean = f"{values.mean():.2f}"
    return f"{mean} ({values.min():.2f}..{values.max():.2f})" if len(values) > 1 else mean
