"""What became of the layers: their densities, how far seeds agree on weights, which units were cut off."""

from collections.abc import Sequence

import pandas as pd

from ltx.report.runs import NETWORK, Experiment, few
from ltx.report.tables import percent

LEVELS = 7  # columns of a table
SUMMED = ["kept", "size", "among", "shared", "expected", "dead_outputs", "dead_inputs"]


def markdown(experiments: Sequence[Experiment]) -> str:
    """The layers of every experiment's tickets as sections of a page; empty if nothing is known of them."""
    shown, notes = few(experiments)
    several = len(experiments) > 1
    page = [line for e in shown if len(e.table("layers")) for line in section(e, several=several)]
    return "\n".join([*page, *(f"- {note}\n" for note in notes if page)])


def section(experiment: Experiment, *, several: bool) -> list[str]:
    """Three tables: a row per layer and one for the network, a column per density."""
    table = layers(experiment)
    levels = spread(sorted(table.level.unique()), LEVELS)
    heads = [percent(network.loc[level]) for network in [whole(table, "density")] for level in levels]
    seeds = table.seeds.max()
    of = f"{experiment.name} tickets" if several else "tickets"
    page = ["", f"## Layers of the {of}, mean of n = {seeds} seeds", ""]
    for title, cell in CELLS.items():
        rows = [
            [str(name), *(cell(row) for row in here.set_index("level").loc[levels].itertuples())]
            for name, here in table.groupby("layer", sort=False)
        ]
        if any(text != NONE for row in rows for text in row[1:]):
            sheet = [["% weights", *heads], ["---", *["---:"] * len(heads)], *rows]
            page += [f"{title}:", "", *(f"| {' | '.join(row)} |" for row in sheet), ""]
    return page


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


NONE = "–"

CELLS = {
    "Weights remaining (%)": lambda row: percent(row.density),
    "Kept by another seed too, of the weights that one seed keeps, and (by chance) (%)": lambda row: (
        NONE if pd.isna(row.overlap) else f"{percent(row.overlap)} ({percent(row.chance)})"
    ),
    "Units cut off: outputs without a weight coming in, inputs without a weight going out": lambda row: (
        NONE if pd.isna(row.dead_outputs) else f"{row.dead_outputs:.4g}, {row.dead_inputs:.4g}"
    ),
}


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
