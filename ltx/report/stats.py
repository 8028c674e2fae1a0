"""What the numbers say: means and spreads over replicates, matching tickets, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ltx.report.layout import Layout, named
from ltx.report.runs import Experiment

Row = Mapping[Any, Any]  # of a summary, by column
MEASURES = ["early_stop_test_accuracy", "final_test_accuracy", "final_train_accuracy", "early_stop_step"]
SPREAD = ["mean", "min", "max", "std"]  # std is the sample's (n - 1): missing where n = 1
COMPARED = ["early_stop_test_accuracy", "final_test_accuracy", "early_stop_step"]
DENSE = "dense"  # what stands for the dense network where it is subtracted
LEVEL = 0.95  # of confidence
SAME = 0.005  # densities that differ by less than this fraction of themselves count as equal


def summarize(experiments: Sequence[Experiment], layout: Layout, *, interval: bool = False) -> pd.DataFrame:
    """One row per line and level over the networks that did not diverge.

    A line is a role of an experiment, named as in `layout.named`. Accuracies and densities are fractions; `n`
    counts networks (seeds times draws), `censored` those of them (`networks`, whatever `n` counts) whose early stop
    is only where training ended. As an `interval`, `low` and `high` are the ends of the 95 % t-interval
    of the mean over seeds instead of `min` and `max`, draws are averaged within their seed first, and `n`
    counts seeds.
    """
    rows = stacked(experiments)
    sound = rows.diverged == 0
    told = {"n": sound, "diverged": ~sound, "networks": sound, "censored": sound & (rows.censored == 1)}
    groups = rows.assign(**told, **rows[MEASURES].where(sound)).groupby(KEY, sort=False)
    counts = groups[list(told)].sum().astype(int)
    of = rows[sound].groupby(KEY)[["seed", "draw"]].nunique()
    counts = counts.join(of.rename(columns={"seed": "seeds", "draw": "draws"}))
    counts[["seeds", "draws"]] = counts[["seeds", "draws"]].fillna(0).astype(int)
    if interval:
        spread = intervals(per_seed(experiments).groupby(KEY, sort=False)[MEASURES])
        counts["n"] = counts.seeds
    else:
        spread = groups[MEASURES].agg(SPREAD)
        spread.columns = spread.columns.map("_".join)
    table = groups[["density", "weights_remaining"]].mean().join(counts).join(spread).reset_index()
    for key in dict.fromkeys(["config", "method", *layout.keys]):
        values = {e.name: e.settings.get(key) for e in experiments}
        table[key] = [values[name] for name in table.experiment]
    found = (
        table[["experiment", "role"]].drop_duplicates().reset_index(drop=True)
    )  # a role in its first place
    place = {(row.experiment, row.role): place for place, row in enumerate(found.itertuples())}
    order = [place[key] for key in zip(table.experiment, table.role, strict=True)]
    table = table.assign(order=order).sort_values(["order", "level"], kind="stable", ignore_index=True)
    return named(table.drop(columns="order"), layout)


KEY = ["experiment", "role", "level"]


def stacked(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """The networks of all experiments below each other."""
    return pd.concat([e.levels.assign(experiment=e.name) for e in experiments], ignore_index=True)


def per_seed(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """The networks that did not diverge, draws of a control averaged within their seed."""
    rows = stacked(experiments)
    measures = ["density", "weights_remaining", *MEASURES]
    return rows[rows.diverged == 0].groupby([*KEY, "seed"], sort=False)[measures].mean().reset_index()


def intervals(groups: "pd.api.typing.DataFrameGroupBy[Any, Any]") -> pd.DataFrame:
    """Mean, sample deviation, and the ends of the 95 % t-interval of the mean; one value alone has no ends."""
    mean, std, n = groups.mean(), groups.std(), groups.count()
    half = std / np.sqrt(n) * stdtrit((n - 1).where(n > 1), (1 + LEVEL) / 2)
    parts = {"mean": mean, "low": mean - half, "high": mean + half, "std": std}
    return pd.DataFrame({f"{m}_{name}": part[m] for m in mean for name, part in parts.items()})


def ends(table: pd.DataFrame) -> tuple[str, str]:
    """What the bars of a summary reach from and to: `min` and `max`, or `low` and `high` of an interval."""
    return ("low", "high") if f"{MEASURES[0]}_low" in table else ("min", "max")


MOSTLY = 0.8
"""Where a larger share of networks is censored, the steps of early stop say how long training was, no more."""


def censored(table: pd.DataFrame) -> float:
    """The share of a summary's networks that were still improving at the last step."""
    return float(table.censored.sum() / max(table.networks.sum(), 1))


def dense(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dense networks (level 0) of a summary, by experiment."""
    return table[(table.role == "ticket") & (table.level == 0)].set_index("experiment")


@dataclass(frozen=True)
class Matching:
    """Where a line matches the dense network: rows of its summary, None where no pruned level does."""

    line: str
    smallest: Row | None  # of all levels that match, the one with the fewest weights
    unbroken: Row | None  # the last before the first level that does not match
    rows: Sequence[Row]  # the pruned levels, falling
    dense: float  # the mean accuracy to match


def matching(table: pd.DataFrame, tolerance: float = 0.0) -> list[Matching]:
    """Which levels of every line match: mean accuracy at early stop >= the dense mean - `tolerance`."""
    column = "early_stop_test_accuracy_mean"
    baseline = dense(table)[column].to_dict()
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in table[table.level > 0].to_dict("records"):
        lines.setdefault((row["experiment"], row["line"]), []).append(row)
    found = []
    for (experiment, line), rows in lines.items():
        rows.sort(key=lambda row: -row["density"])
        whole = baseline.get(experiment, float("nan"))
        # 0.98 - 0.01 is not 0.97 in floating point
        matches = [row[column] - whole >= -tolerance - 1e-9 for row in rows]
        unbroken = rows[: matches.index(False) if False in matches else None]
        best = [row for row, matched in zip(rows, matches, strict=True) if matched]
        found.append(
            Matching(line, best[-1] if best else None, unbroken[-1] if unbroken else None, rows, whole)
        )
    return found


def matching_table(table: pd.DataFrame, keys: Sequence[str], tolerance: float = 0.0) -> pd.DataFrame:
    """`matching` as one row per line: its `keys`, the dense accuracy, and the smallest level that matches."""
    facts = ["level", "density", "weights_remaining", "n", "early_stop_test_accuracy_mean"]
    heads = ["level", "density", "weights_remaining", "n", "accuracy"]
    rows = []
    for line in matching(table, tolerance):
        first = line.rows[0]
        row = {key: first[key] for key in dict.fromkeys(["config", "experiment", "line", "role", *keys])}
        row |= {"tolerance": tolerance, "dense_accuracy": line.dense}
        for head, fact in zip(heads, facts, strict=True):
            row[f"smallest_{head}"] = None if line.smallest is None else line.smallest[fact]
        row["unbroken_density"] = None if line.unbroken is None else line.unbroken["density"]
        rows.append(row)
    return pd.DataFrame(rows)


def differences(
    experiments: Sequence[Experiment], summary: pd.DataFrame, against: str | None = None
) -> pd.DataFrame:
    """Paired differences, a line minus another of its panel, one row per pair and level.

    Over the seeds that both have at the same level and density (`SAME`), draws of a control averaged within
    their seed: the mean difference, its 95 % t-interval and `n` seeds. Every panel's first tickets are
    subtracted from its other tickets, and controls from their own tickets, and from pruned tickets the dense
    networks that they come from; with `against`, the line of that name from every other line of its panel.
    """
    lines = summary.drop_duplicates(["experiment", "role"])[list(Line._fields)]
    chosen = pairs([Line(*map(str, row)) for row in lines.to_numpy()], against)
    tables = dict(list(per_seed(experiments).groupby(["experiment", "role"])))
    tables |= {(name, DENSE): beside(rows) for (name, role), rows in tables.items() if role == "ticket"}
    found = []
    for one, other in chosen:
        if one[:2] not in tables or other[:2] not in tables:  # all of it diverged
            continue
        shared = tables[one[:2]].merge(tables[other[:2]], on=["level", "seed"], suffixes=("", "_other"))
        shared = shared[np.isclose(shared.density, shared.density_other, rtol=SAME, atol=0)]
        gaps = shared[COMPARED] - shared[[f"{m}_other" for m in COMPARED]].to_numpy()
        names = one._asdict() | {"against": other.line}
        found.append(shared[["level", "seed", "density", "weights_remaining"]].join(gaps).assign(**names))
    found = [rows for rows in found if len(rows)]
    if not found:
        return pd.DataFrame()
    groups = pd.concat(found).groupby(["experiment", "panel", "line", "against", "level"], sort=False)
    table = groups[["density", "weights_remaining"]].mean().assign(n=groups.seed.nunique())
    return table.join(intervals(groups[COMPARED])).reset_index()


def beside(tickets: pd.DataFrame) -> pd.DataFrame:
    """The dense networks as if they were trained anew beside every pruned level: the same for each seed."""
    dense = tickets[tickets.level == 0][["seed", *COMPARED]]
    return tickets[tickets.level > 0].drop(columns=COMPARED).merge(dense, on="seed")


class Line(NamedTuple):
    """A role of an experiment, and how it is called where."""

    experiment: str
    role: str
    panel: str
    line: str


def pairs(lines: Sequence[Line], against: str | None) -> list[tuple[Line, Line]]:
    """Which line is compared with which: the second is subtracted from the first."""
    first: dict[str, Line] = {}
    if against is not None:
        names = {against, f"{against} ticket"}
        for line in lines:
            if line.line in names:
                first.setdefault(line.panel, line)
        return [(line, first[line.panel]) for line in lines if line.panel in first and line.line not in names]
    found = []
    for ticket in (line for line in lines if line.role == "ticket"):
        if first.setdefault(ticket.panel, ticket) is not ticket:
            found.append((ticket, first[ticket.panel]))
        of_it = [line for line in lines if line.experiment == ticket.experiment and line is not ticket]
        found += [(ticket, other) for other in (*of_it, ticket._replace(role=DENSE, line=DENSE))]
    return found


def band(rows: pd.DataFrame, x: str, y: str, *, interval: bool = False) -> pd.DataFrame:
    """Mean, low and high end of `y` at every `x`: minimum and maximum of the networks, or the 95 % t-interval
    over seeds."""
    if not interval:
        return rows.groupby(x)[y].agg(["mean", "min", "max"]).set_axis(["mean", "low", "high"], axis=1)
    table = intervals(rows.groupby([x, "seed"])[[y]].mean().groupby(x))
    return pd.DataFrame({end: table[f"{y}_{end}"] for end in ("mean", "low", "high")})
