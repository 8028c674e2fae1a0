"""What became of the layers: their densities, how far seeds agree on weights, which units were cut off."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ltx.report.runs import NETWORK, Experiment
from ltx.report.tables import NONE, Section, Sheet, percent

BESIDE = 3
"""Experiments that have panels or tables of their own beside each other."""

LEVELS = 7  # columns of a table
SUMMED = ["kept", "size", "among", "shared", "expected", "dead_outputs", "dead_inputs"]


def sections(experiments: Sequence[Experiment]) -> list[Section]:
    """The layers of every experiment's tickets; nothing if nothing is known of them."""
    shown, notes = few(experiments)
    found = [
        sheet for e in shown if len(e.table("layers")) for sheet in sheets(e, several=len(experiments) > 1)
    ]
    return [(found, notes)] if found else []


def sheets(experiment: Experiment, *, several: bool) -> list[Sheet]:
    """Up to three tables: a row per layer and one for the network, a column per density."""
    table = layers(experiment)
    levels = spread(sorted(table.level.unique()), LEVELS)
    heads = [percent(whole(table, "density").loc[level]) for level in levels]
    of = f"{experiment.name} tickets" if several else "tickets"
    groups = [
        (str(name), here.set_index("level").loc[levels]) for name, here in table.groupby("layer", sort=False)
    ]
    found = []
    for title, cell in CELLS.items():
        texts = [[cell(row) for row in here.itertuples()] for _, here in groups]
        by_level = zip(*texts, strict=True)
        columns = {"% weights": [name for name, _ in groups], **dict(zip(heads, by_level, strict=False))}
        if any(text != NONE for row in texts for text in row):
            found.append(
                Sheet(f"Layers of the {of}: {title}, mean of n = {table.seeds.max()} seeds", columns, left=1)
            )
    return found


def layers(experiment: Experiment) -> pd.DataFrame:
    """One row per layer and level of the tickets, and per level of the network: means over seeds.

    Overlap and chance are weighted by the weights kept, so that those of the network are what random masks
    with the tickets' own layer counts would be measured against.
    """
    key = [*NETWORK, "run", "layer"]
    rows = experiment.table("layers").merge(experiment.table("masks"), how="left", on=key)
    rows = rows[rows.role == "ticket"]
    rows = rows.assign(
        among=rows.kept.where(rows.overlap.notna()),
        shared=rows.kept * rows.overlap,
        expected=rows.kept * rows.chance,
    )
    every = pd.concat([rows, rows.assign(layer="network")])
    groups = every.groupby(["layer", "level"], sort=False)
    sums = groups[SUMMED].sum(min_count=1).astype(float)
    seeds = groups.seed.nunique()
    return pd.DataFrame(
        {
            "seeds": seeds,
            "density": sums.kept / sums["size"],
            "overlap": sums.shared / sums.among,
            "chance": sums.expected / sums.among,
            "dead_outputs": sums.dead_outputs / seeds,
            "dead_inputs": sums.dead_inputs / seeds,
        }
    ).reset_index()


def whole(table: pd.DataFrame, measure: str) -> pd.Series:
    """A measure of the network, by level."""
    return table[table.layer == "network"].set_index("level")[measure]


def amount(value: float) -> str:
    """A mean number of things: 5.3, 12."""
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


CELLS: dict[str, Callable[[Any], str]] = {
    "weights remaining (%)": lambda row: percent(row.density),
    "kept by another seed too, of the weights that one seed keeps, and (by chance) (%)": lambda row: (
        NONE if pd.isna(row.overlap) else f"{percent(row.overlap)} ({percent(row.chance)})"
    ),
    "units cut off (outputs without a weight coming in, inputs without a weight going out)": lambda row: (
        NONE if pd.isna(row.dead_outputs) else f"{amount(row.dead_outputs)}, {amount(row.dead_inputs)}"
    ),
}


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def few(experiments: Sequence[Experiment]) -> tuple[Sequence[Experiment], list[str]]:
    """The experiments that stand beside each other where each needs room of its own, and a note on the others."""
    if len(experiments) <= BESIDE:
        return experiments, []
    return experiments[:BESIDE], [f"Shown: the first {BESIDE} of {len(experiments)} lines of tickets."]
