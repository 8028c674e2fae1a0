"""compare.csv as a page: means over seeds with 95 % intervals, a row a round."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.stats import t

HEADS = {
    "accuracy": "accuracy %",
    "ensemble": "ensemble %",
    "disagreement": "disagree with each other %",
    "dense_disagreement": "disagree with dense %",
    "dense_l2": "distance from dense",
    "solution_disagreement": "disagree with the pruned solution %",
    "solution_l2": "distance from it",
    "solution_barrier": "barrier to it, points",
    "other_disagreement": "disagree with the other run %",
}
FRACTIONS = tuple(name for name in HEADS if not name.endswith("l2"))
ALONE = ("ensemble", "disagreement", "other_disagreement")
"""What is one number for all seeds, or of pairs that share networks: no interval over seeds."""
NOTE = """
Means over n seeds, ± half a 95 % t-interval over them; pairs of networks share networks, so disagreement has none.
An ensemble averages the probabilities of all seeds. The pruned solution is what a ticket's mask was cut from: the
weights that the level before ended with, under the mask. A barrier is the highest test error on the straight line
between two networks above the mean of its ends (Evci et al. 2022, section 4).
"""


def summarized(path: Path) -> str:
    """The page of a compare.csv, as Markdown."""
    rows = pd.read_csv(path)
    shown = [name for name in HEADS if rows[name].notna().any()]
    heads = ["% weights", "network", "n", *(HEADS[name] for name in shown)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (_, role, draw), part in rows.groupby(["level", "role", "draw"], sort=False):
        name = {("ticket", True): "dense"}.get((str(role), bool(part.level.iloc[0] == 0)), str(role))
        n = int(part.accuracy.notna().sum())
        cells = [f"{100 * part.density.mean():.2f}", name + f" {draw}" * bool(draw), str(n)]
        lines.append(f"| {' | '.join([*cells, *(cell(part[key], key) for key in shown)])} |")
    return "\n".join(lines) + "\n" + NOTE


def cell(values: pd.Series, name: str) -> str:
    """A mean with its interval; one number where all are the same by definition."""
    values = values.dropna() * (100 if name in FRACTIONS else 1)
    if values.empty:
        return ""
    if name in ALONE or len(values) < 2:
        return f"{values.mean():.2f}"
    return f"{values.mean():.2f} ± {t.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5:.2f}"
