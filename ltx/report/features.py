"""Which features a path along a growing lambda keeps longest, and how sure that is: from importance.csv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from scipy.stats import t

from ltx.report.runs import read_table

SURE = 0.9
"""A feature that so many resamples keep is no accident: the largest threshold of Meinshausen & Bühlmann 2010."""


def ranked(importance: pd.DataFrame, k: int | None = None) -> pd.DataFrame:
    """A row per feature, the best mean rank first: `feature`, `rank`, `spread` (standard deviation over seeds).

    `low` and `high` are the ends of the mean rank's 95 % t-interval over seeds, NaN of one; `lambda` is the mean
    one at which it left for good; `share` the fraction of seeds in which it is among the last `k`.
    """
    if importance.empty:
        return pd.DataFrame(columns=["feature", "rank", "spread", "low", "high", "lambda", "share"])
    last = importance["rank"] <= (k or len(importance.feature.unique()))
    by = importance.assign(share=last).groupby("feature", sort=False)
    found = by.agg(rank=("rank", "mean"), spread=("rank", "std"), n=("rank", "size"), share=("share", "mean"))
    half = t.ppf(0.975, (found.n - 1).clip(lower=1)) * found.spread / found.n**0.5
    found["low"], found["high"] = found["rank"] - half, found["rank"] + half
    found["lambda"] = by["lambda"].mean()
    return found.drop(columns="n").sort_values("rank", kind="stable").reset_index()


def kept(trees: pd.DataFrame) -> int | None:
    """How many features the first ticket has, by trees.csv; None where no trees were asked."""
    tickets = trees[trees.level == 1]
    return int(tickets.features.max()) if len(tickets) else None


def leaving(importance: pd.DataFrame, selection: pd.DataFrame, count: int | None) -> pd.DataFrame:
    """A row per feature, the first that leaves first: `ranked` and, of resamples, the probability to be kept.

    `probability` is the fraction of folds or halves in which it is among the last `count`.
    """
    found = ranked(importance, count).iloc[::-1].reset_index(drop=True)
    if selection.empty:
        return found
    often = ranked(selection, count)[["feature", "share"]].rename(columns={"share": "probability"})
    return found.merge(often, on="feature", how="left")


def told(folder: Path, most: int = 10) -> list[str]:
    """What a run's path says in a few lines: which features, which lambda, how sure; nothing without a path."""
    importance, path = read_table(folder / "importance.csv"), read_table(folder / "path.csv")
    if importance.empty or path.empty:
        return []
    found, seeds = ranked(importance, most), importance.seed.nunique()
    lines = [f"features that stay longest, of {len(found)}, by mean rank over {seeds} seeds:"]
    shown = found[:most]
    rows = zip(shown.feature, shown["rank"], shown.spread.fillna(0), shown.share, strict=True)
    lines += [
        f"  {rank:5.1f} ± {spread:4.1f}  {name}  (among the last {most} in {100 * share:.0f} % of seeds)"
        for name, rank, spread, share in rows
    ]
    lost = path[path.val_loss.isna()].groupby("seed")["lambda"].min()
    lines += [
        f"seed {seed}'s loss was no number any more at lambda {at:.4g}: scale the inputs, or lower method.path_lr"
        for seed, at in lost.items()
    ]
    return [*lines, *lambdas(path), *resampled(folder), *trees_say(folder)]


def lambdas(path: pd.DataFrame) -> Iterator[str]:
    """Where along the path the validation loss is least."""
    best = path[(path.point > 0) & (path.features > 0)].dropna(subset=["val_loss"])
    best = best.loc[best.groupby("seed").val_loss.idxmin()]
    if len(best):
        yield (
            f"least validation loss at lambda {best['lambda'].min():.4g} to {best['lambda'].max():.4g}, "
            f"with {best.features.min()} to {best.features.max()} features"
        )


def resampled(folder: Path) -> Iterator[str]:
    """How often folds or halves kept what was chosen, and at which lambda."""
    selection, path = read_table(folder / "selection.csv"), read_table(folder / "resampled.csv")
    count = kept(read_table(folder / "trees.csv"))
    if selection.empty or path.empty or count is None:
        return
    found = ranked(selection, count).sort_values("share", ascending=False, kind="stable")[:count]
    at = path[(path.features <= count) & (path.features > 0)].groupby("seed")["lambda"].min()
    yield (
        f"{count} features were chosen on {selection.seed.nunique()} resamples, at lambda {at.min():.4g} to "
        f"{at.max():.4g}; {int((found.share >= SURE).sum())} of them are kept by at least {100 * SURE:.0f} % of these"
    )


def trees_say(folder: Path) -> Iterator[str]:
    """What trees make of the features, beside all of them."""
    trees = read_table(folder / "trees.csv", every=True)
    if trees.empty:
        return
    measure = next(str(column) for column in trees if str(column).startswith("test_"))
    for _, rows in trees.groupby("level"):
        level = int(rows.level.iloc[0])
        which = f"the {rows.features.max()} features of level {level}" if level else "all features"
        spread = "" if len(rows) < 2 else f" ± {rows[measure].std():.3f}"
        yield f"trees on {which}: {measure.replace('_', ' ')} {rows[measure].mean():.3f}{spread}, n {len(rows)}"
