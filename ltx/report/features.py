"""Which features a path along a growing lambda keeps longest, and how sure that is: from importance.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ltx.report.runs import read_table


def ranked(importance: pd.DataFrame, k: int | None = None) -> pd.DataFrame:
    """A row per feature, the best mean rank first: `feature`, `rank`, `spread` (standard deviation over seeds).

    `lambda` is the mean one at which it left for good; `share` the fraction of seeds in which it is among the
    last `k`.
    """
    if importance.empty:
        return pd.DataFrame(columns=["feature", "rank", "spread", "lambda", "share"])
    last = importance["rank"] <= (k or len(importance.feature.unique()))
    by = importance.assign(share=last).groupby("feature", sort=False)
    found = by.agg(rank=("rank", "mean"), spread=("rank", "std"), share=("share", "mean"))
    found["lambda"] = by["lambda"].mean()
    return found.sort_values("rank", kind="stable").reset_index()


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
    best = path[(path.point > 0) & (path.features > 0)].dropna(subset=["val_loss"])
    best = best.loc[best.groupby("seed").val_loss.idxmin()]
    if len(best):
        lines.append(
            f"least validation loss at lambda {best['lambda'].min():.4g} to {best['lambda'].max():.4g}, "
            f"with {best.features.min()} to {best.features.max()} features"
        )
    return lines
