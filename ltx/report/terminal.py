"""The tables in the terminal: as much as fits."""

from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ltx.console import Console
from ltx.errors import plain
from ltx.report.comparison import Comparison, Page
from ltx.report.tables import (
    PAIRED,
    Sheet,
    captions,
    columns,
    densities,
    gaps,
    match_rule,
    panels,
    places,
    smallest,
    still_improving,
)

Columns = Mapping[str, Sequence[str]]


def print_tables(comparison: Comparison, console: Console, parts: Sequence[str]) -> None:
    """Print some parts (means, matching, differences) of every page, with what must be known beside them."""
    for page in comparison.pages:
        if "means" in parts:
            print_means(page, console, comparison.tolerance)
        if "matching" in parts and (parts == ["matching"] or len(page.experiments) > 1):
            print_sheets(page.name, smallest(page.summary, comparison.tolerance), console)
            known = [match_rule(comparison.tolerance), *still_improving(page.summary)]
            note(console, known if "means" not in parts else [])
        if "differences" in parts and len(page.differences):
            first = gaps(page.differences)
            shown = first if parts == ["differences"] else first[: len(panels(page.differences))]
            print_sheets(page.name, shown, console)
            note(console, [PAIRED])


def print_means(page: Page, console: Console, tolerance: float = 0.0) -> None:
    """Print the means of a page with their captions; spreads and steps where they fit."""
    for panel, rows in panels(page.summary):
        title, first = f"{page.name}{panel}", densities(places(rows))
        variants = [block(rows, ranged=ranged, steps=steps) for ranged, steps in VARIANTS]
        fitting = [cells for cells in variants if fits(drawn(title, first, cells), console)]
        print_table(title, first, [*fitting, block(rows, ranged=True, steps=False)][0], console)
    note(console, captions(page.summary, tolerance, page.notes))


VARIANTS = ((True, True), (False, True), (False, False))  # with spreads, with early-stop steps


def block(table: pd.DataFrame, *, ranged: bool, steps: bool) -> dict[str, Sequence[str]]:
    """Every line's accuracy at early stop, with its spread or not, and its early-stop steps or not."""
    here = places(table)
    blocks = {"accuracy": columns(table, here, "early_stop_test_accuracy", ranged=ranged)}
    if steps:
        blocks["step"] = columns(table, here, "early_stop_step", ranged=False)
    return {f"{line}, {head}": texts for head, part in blocks.items() for line, texts in part.items()}


def print_sheets(title: str, sheets: Sequence[Sheet], console: Console) -> None:
    for sheet in sheets:
        names = list(sheet.columns)
        keys = max(sheet.left, sum(name in ("% weights", "weights") for name in names[:2]))
        first = {name: sheet.columns[name] for name in names[:keys]}
        rest = {name: sheet.columns[name] for name in names[keys:]}
        print_table(f"{title}: {sheet.title}", first, rest, console, left=sheet.left)


def print_table(title: str, first: Columns, rest: Columns, console: Console, *, left: int = 0) -> None:
    """Print columns beside those that name the rows; as many at a time as the terminal is wide enough for."""
    names = list(rest)
    while names:
        count = len(names)
        while count > 1 and not fits(drawn(title, first, part(rest, names[:count]), left), console):
            count -= 1
        console.print(drawn(title, first, part(rest, names[:count]), left))
        names = names[count:]


def part(columns: Columns, names: Sequence[str]) -> Columns:
    return {name: columns[name] for name in names}


def fits(table: Table, console: Console) -> bool:
    """Whether the terminal is wide enough for a table."""
    return console.measure(table, options=console.options.update(width=9999)).maximum <= console.width


def drawn(title: str, first: Columns, rest: Columns, left: int = 0) -> Table:
    """Columns of text under their heads, the words of a line's name below each other."""
    table = Table(title=Text(plain(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate([*first, *rest]):
        name, _, more = head.partition(", ")
        stacked = [
            plain(line)
            for part in (name.replace(" ", "\n"), more.replace(", ", "\n"))
            for line in part.split("\n")
            if part
        ]
        shown = "\n".join(stacked) if head in rest else plain(head)
        table.add_column(
            Text(shown), justify="left" if place < left else "right", vertical="bottom", no_wrap=True
        )
    for texts in zip(*first.values(), *rest.values(), strict=True):
        table.add_row(*(Text(plain(text)) for text in texts))
    return table


def note(console: Console, lines: Sequence[str]) -> None:
    """What must be known beside a table, wrapped between words."""
    for line in lines:
        console.print(Text(plain(line), "dim"), highlight=False)
