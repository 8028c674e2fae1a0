"""The summary for reading: markdown beside the figure, a compact table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ltx.report.stats import Matching, matching

Row = Mapping[Any, Any]  # of a summary, by column


def percent(fraction: float) -> str:
    """A density as the papers write it: 100, 51.3, 3.6, 0.58."""
    value = 100 * fraction
    return "100" if value >= 99.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def accuracy(row: Row, measure: str, ranged: bool) -> str:
    """Mean in percent, with its range if there is one to show: `98.12 (97.90..98.30)`."""
    mean, low, high = (100 * row[f"{measure}_{statistic}"] for statistic in ("mean", "min", "max"))
    return f"{mean:.2f} ({low:.2f}..{high:.2f})" if ranged and row["n"] > 1 else f"{mean:.2f}"


def step(row: Row, measure: str, ranged: bool) -> str:
    """Mean number of training steps, with its range if there is one to show."""
    mean, low, high = (f"{row[f'{measure}_{statistic}']:,.0f}" for statistic in ("mean", "min", "max"))
    return f"{mean} ({low}..{high})" if ranged and row["n"] > 1 else mean


SHOWN = {
    "early_stop_test_accuracy": ("Test accuracy at early stop (%)", accuracy),
    "final_test_accuracy": ("Test accuracy at the end of training (%)", accuracy),
    "early_stop_step": ("Early-stop step", step),
}


def places(table: pd.DataFrame) -> list[dict[str, Row]]:
    """The rows of a summary that stand side by side, by line: same level and same density as shown."""
    found: dict[tuple[int, str], dict[str, Row]] = {}
    for row in table.sort_values(["density", "level"], ascending=[False, True]).to_dict("records"):
        found.setdefault((row["level"], percent(row["density"])), {})[row["line"]] = row
    return list(found.values())


def columns(table: pd.DataFrame, measure: str, *, ranged: bool = True) -> dict[str, list[str]]:
    """One column of text per line, headed by its name and n; a cell with another n says its own."""
    here, found = places(table), {}
    for line, rows in table.groupby("line", sort=False):
        usual = rows.n.max()
        found[f"{line}, n = {usual}"] = [cell(place.get(str(line)), measure, usual, ranged) for place in here]
    return found


def cell(row: Row | None, measure: str, usual: int, ranged: bool) -> str:
    """One line at one density; a dash where nothing was trained, a word where all of it diverged."""
    if row is None:
        return "–"
    if row["n"] == 0:
        return "diverged"
    return SHOWN[measure][1](row, measure, ranged) + ("" if row["n"] == usual else f", n = {row['n']}")


def densities(table: pd.DataFrame) -> dict[str, list[str]]:
    """The columns that name the rows: percent of weights remaining, and their number."""
    first = [next(iter(place.values())) for place in places(table)]
    return {
        "% weights": [percent(row["density"]) for row in first],
        "weights": [f"{row['weights_remaining']:,.0f}" for row in first],
    }


def captions(table: pd.DataFrame, tolerance: float = 0.0, notes: Sequence[str] = ()) -> list[str]:
    """What a reader must know beside the numbers: what is averaged, what matches, what was left out."""
    within = f" minus {100 * tolerance:g} points" if tolerance else ""
    return [
        "Mean (min..max) of n networks, n = seeds × draws of a control. Early stop is the step of minimum "
        "validation loss. A difference smaller than the range may be noise.",
        f"Matching: mean test accuracy at early stop ≥ the dense mean{within}.",
        *(describe(line) for line in matching(table, tolerance)),
        *(
            f"Left out as diverged: {row['diverged']} of {row['line']} at {percent(row['density'])} %."
            for row in table[table.diverged > 0].to_dict("records")
        ),
        *notes,
    ]


def describe(line: Matching) -> str:
    """One sentence on the smallest matching network of a line."""
    if line.smallest is None:
        return f"Smallest matching {line.line}: none, no pruned level matches."
    row = line.smallest
    found = (
        f"Smallest matching {line.line}: {percent(row.density)} % "
        f"({row.weights_remaining:,.0f} weights, level {row.level}, n = {row.n})"
    )
    if line.unbroken is None:
        return f"{found}; not every level above it matches, the first pruned one does not."
    if line.unbroken.level == row.level:
        return f"{found}; every level above it matches too."
    return (
        f"{found}; not every level above it matches, only those down to {percent(line.unbroken.density)} %."
    )


def markdown(table: pd.DataFrame, tolerance: float = 0.0, notes: Sequence[str] = ()) -> str:
    """The summary of one config as a markdown page: a table per measure, then the captions."""
    page = [f"# {table.config.iloc[0]}", ""]
    for measure, (title, _) in SHOWN.items():
        body = densities(table) | columns(table, measure)
        rows = [list(body), ["---:"] * len(body), *zip(*body.values(), strict=True)]
        page += [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*page, *(f"- {caption}" for caption in captions(table, tolerance, notes)), ""])


def print_table(table: pd.DataFrame, console: Console, tolerance: float = 0.0) -> None:
    """Print a summary, config by config, with its captions; ranges and steps where they fit."""
    endless = console.options.update(width=9999)
    for config, rows in table.groupby("config", sort=False):
        sheets = [
            sheet(rows, str(config), ranged=True, steps=True),
            sheet(rows, str(config), ranged=False, steps=True),
            sheet(rows, str(config), ranged=False, steps=False),
        ]
        fitting = [s for s in sheets if console.measure(s, options=endless).maximum <= console.width]
        console.print([*fitting, sheets[-1]][0])
        for caption in captions(rows, tolerance, table.attrs.get("notes", {}).get(config, ())):
            console.print(caption, style="dim", highlight=False)


def sheet(table: pd.DataFrame, title: str, *, ranged: bool, steps: bool) -> Table:
    """Every line's accuracy at early stop, with its range or not, and its early-stop steps or not."""
    blocks = {"accuracy": columns(table, "early_stop_test_accuracy", ranged=ranged)}
    if steps:
        blocks["step"] = columns(table, "early_stop_step", ranged=False)
    body = densities(table)
    for head, block in blocks.items():
        body |= {f"{line.replace(', ', chr(10))}\n{head}": texts for line, texts in block.items()}
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in body:
        drawn.add_column(head, justify="right", vertical="bottom", no_wrap=True)
    for texts in zip(*body.values(), strict=True):
        drawn.add_row(*texts)
    return drawn
