"""Tables for reading: pages of markdown and LaTeX beside the figures, and the same in the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ltx.report.stats import LEVEL, SAME, Matching, Row, censored, ends, matching

NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """One table of texts: a heading, columns by their heads."""

    title: str
    columns: Mapping[str, Sequence[str]]
    left: int = 0  # so many columns of words come first

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*self.columns.values(), strict=True))


Section = tuple[Sequence[Sheet], Sequence[str]]
"""Tables, and what a reader must know beside them."""


def percent(fraction: float) -> str:
    """A density as the papers write it: 100, 51.3, 3.6, 0.58."""
    value = 100 * fraction
    return "100" if value >= 99.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def accuracy(row: Row, measure: str, ranged: bool) -> str:
    """Mean in percent, with its spread if there is one to show: `98.12 (97.90..98.30)`, as an interval ± half."""
    if f"{measure}_high" in row:
        mean, high = (100 * row[f"{measure}_{statistic}"] for statistic in ("mean", "high"))
        return f"{mean:.2f} ± {high - mean:.2f}" if ranged and row["n"] > 1 else f"{mean:.2f}"
    mean, low, high = (100 * row[f"{measure}_{statistic}"] for statistic in ("mean", "min", "max"))
    return f"{mean:.2f} ({low:.2f}..{high:.2f})" if ranged and row["n"] > 1 else f"{mean:.2f}"


def step(row: Row, measure: str, ranged: bool) -> str:
    """Mean number of training steps, with its spread if there is one to show; `≥` where it is only a bound."""
    least = "≥ " if row["censored"] else ""
    if f"{measure}_high" in row:
        mean, high = (row[f"{measure}_{statistic}"] for statistic in ("mean", "high"))
        return (
            f"{least}{mean:,.0f} ± {high - mean:,.0f}" if ranged and row["n"] > 1 else f"{least}{mean:,.0f}"
        )
    mean, low, high = (f"{row[f'{measure}_{statistic}']:,.0f}" for statistic in ("mean", "min", "max"))
    return f"{least}{mean} ({low}..{high})" if ranged and row["n"] > 1 else f"{least}{mean}"


SHOWN = {
    "early_stop_test_accuracy": ("Test accuracy at early stop (%)", accuracy),
    "final_test_accuracy": ("Test accuracy at the end of training (%)", accuracy),
    "early_stop_step": ("Early-stop step", step),
}
COMPARED = {
    "early_stop_test_accuracy": ("test accuracy at early stop (points)", 100, "+.2f"),
    "final_test_accuracy": ("test accuracy at the end of training (points)", 100, "+.2f"),
    "early_stop_step": ("early-stop step", 1, "+,.0f"),
}


def places(table: pd.DataFrame) -> list[dict[str, Row]]:
    """The rows of a summary that stand side by side, by line: same level and same density as shown."""
    found: dict[tuple[int, str], dict[str, Row]] = {}
    for row in table.sort_values(["density", "level"], ascending=[False, True]).to_dict("records"):
        found.setdefault((row["level"], percent(row["density"])), {})[row["line"]] = row
    return list(found.values())


def columns(
    table: pd.DataFrame, here: Sequence[Mapping[str, Row]], measure: str, *, ranged: bool = True
) -> dict[str, list[str]]:
    """One column of text per line at `places`, headed by its name and n; a cell with another n says its own."""
    found = {}
    for line, rows in table.groupby("line", sort=False):
        usual = rows.n.max()
        found[f"{line}, n = {usual}"] = [cell(place.get(str(line)), measure, usual, ranged) for place in here]
    return found


def cell(row: Row | None, measure: str, usual: int, ranged: bool) -> str:
    """One line at one density; a dash where nothing was trained, a word where all of it diverged."""
    if row is None:
        return NONE
    if row["n"] == 0:
        return "diverged"
    return SHOWN[measure][1](row, measure, ranged) + ("" if row["n"] == usual else f", n = {row['n']}")


def densities(here: Sequence[Mapping[str, Row]]) -> dict[str, list[str]]:
    """The columns that name the rows: percent of weights remaining, and their number."""
    first = [next(iter(place.values())) for place in here]
    return {
        "% weights": [percent(row["density"]) for row in first],
        "weights": [f"{row['weights_remaining']:,.0f}" for row in first],
    }


def panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The parts of a table that stand in panels of their own, with ` · name` for a heading."""
    if table.empty or table.panel.nunique() == 1:
        return [("", table)] if len(table) else []
    return [(f" · {panel}", rows) for panel, rows in table.groupby("panel", sort=False)]


def means(summary: pd.DataFrame) -> list[Sheet]:
    """A table per measure and panel: densities below each other, lines side by side."""
    parts = [(panel, rows, places(rows)) for panel, rows in panels(summary)]
    return [
        Sheet(f"{title}{panel}", densities(here) | columns(rows, here, measure))
        for measure, (title, _) in SHOWN.items()
        for panel, rows, here in parts
    ]


def gaps(differences: pd.DataFrame) -> list[Sheet]:
    """A table per measure and panel of paired differences: pairs side by side."""
    parts = [(panel, rows, places(rows)) for panel, rows in panels(pair_lines(differences))]
    return [
        Sheet(f"Paired differences in {title}{panel}", densities(here) | pair_columns(rows, here, measure))
        for measure, (title, _, _) in COMPARED.items()
        for panel, rows, here in parts
    ]


def pair_lines(differences: pd.DataFrame) -> pd.DataFrame:
    """The differences with each pair as a line: `imp ticket − oneshot ticket`, `imp ticket − reinit`."""
    if differences.empty:
        return differences
    names = []
    for line, against in zip(differences.line, differences.against, strict=True):
        series, _, role = against.rpartition(" ")
        names.append(f"{line} − {role if line.rpartition(' ')[0] == series else against}")
    return differences.assign(line=names)


def pair_columns(
    table: pd.DataFrame, here: Sequence[Mapping[str, Row]], measure: str
) -> dict[str, list[str]]:
    """One column of text per pair, headed by what is subtracted from what and n."""
    found = {}
    _, scale, form = COMPARED[measure]
    for line, rows in table.groupby("line", sort=False):
        usual, cells = rows.n.max(), []
        for row in (place.get(str(line)) for place in here):
            if row is None:
                cells.append(NONE)
                continue
            mean, low, high = (
                signed(scale * row[f"{measure}_{what}"], form) for what in ("mean", "low", "high")
            )
            text = f"{mean} ({low}..{high})" if row["n"] > 1 else mean
            cells.append(text + ("" if row["n"] == usual else f", n = {row['n']}"))
        found[f"{line}, n = {usual}"] = cells
    return found


def smallest(summary: pd.DataFrame, tolerance: float = 0.0) -> list[Sheet]:
    """A table of the smallest matching network of every line, one for each panel."""
    found = []
    for panel, rows in panels(summary):
        lines = matching(rows, tolerance)
        best = [line.smallest for line in lines]
        found.append(
            Sheet(
                f"Smallest matching{panel}",
                {
                    "line": [line.line for line in lines],
                    "n": [
                        str(max(row["n"] for row in ([b] if b else line.rows)))
                        for line, b in zip(lines, best, strict=True)
                    ],
                    "dense (%)": [f"{100 * line.dense:.2f}" for line in lines],
                    "% weights": [percent(b["density"]) if b else NONE for b in best],
                    "weights": [f"{b['weights_remaining']:,.0f}" if b else NONE for b in best],
                    "level": [str(b["level"]) if b else NONE for b in best],
                    "accuracy (%)": [
                        accuracy(b, "early_stop_test_accuracy", True) if b else NONE for b in best
                    ],
                    "every level matches down to": [
                        percent(line.unbroken["density"]) if line.unbroken else NONE for line in lines
                    ],
                },
                left=1,
            )
        )
    return [sheet for sheet in found if sheet.rows]


def signed(value: float, form: str) -> str:
    """A number with its sign; nought has none."""
    text = format(value, form)
    return text if set(text) & set("123456789") else text[1:]


def averaged(table: pd.DataFrame) -> str:
    """What a mean and its spread are."""
    if ends(table) == ("low", "high"):
        return (
            f"Mean ± half of its {100 * LEVEL:g} % t-interval over n seeds; draws of a control are averaged within "
            "their seed first; n = 1 has no interval. Early stop is the step of minimum validation loss."
        )
    return (
        "Mean (min..max) of n networks, n = seeds × draws of a control. Early stop is the step of minimum "
        "validation loss. A difference smaller than the range may be noise."
    )


def still_improving(table: pd.DataFrame) -> list[str]:
    """A note on the networks whose early stop is only where training ended; none where there are none."""
    if not (count := int(table.censored.sum())):
        return []
    return [
        f"Censored: {count} of {table.networks.sum()} networks ({100 * censored(table):.0f} %) were still improving "
        "at the last step, and stop early there or later (≥): raise recipe.steps."
    ]


def match_rule(tolerance: float) -> str:
    """What matching means here."""
    within = f" minus {100 * tolerance:g} points" if tolerance else ""
    return f"Matching: mean test accuracy at early stop ≥ the dense mean{within}."


PAIRED = (
    f"Paired differences: the first line minus the second, mean ({100 * LEVEL:g} % t-interval) over n shared seeds, "
    f"at equal level and equal density (within {100 * SAME:g} %) only; draws of a control are averaged within their "
    "seed first; n = 1 has no interval. Each interval is for one level; they are not corrected for their number."
)


def captions(table: pd.DataFrame, tolerance: float = 0.0, notes: Sequence[str] = ()) -> list[str]:
    """What a reader must know beside the numbers: what is averaged, what matches, what was left out."""
    several = table.experiment.nunique() > 1  # then a table tells which match
    return [
        averaged(table),
        *still_improving(table),
        match_rule(tolerance),
        *([] if several else map(describe, matching(table, tolerance))),
        *(
            f"Left out as diverged: {row['diverged']} of {name(row)} at {percent(row['density'])} %."
            for row in table[table.diverged > 0].to_dict("records")
        ),
        *notes,
    ]


def name(row: Row) -> str:
    """A line with the panel it stands in."""
    return f"{row['line']} ({row['panel']})" if row["panel"] else row["line"]


def describe(line: Matching) -> str:
    """One sentence on the smallest matching network of a line."""
    if line.smallest is None:
        return f"Smallest matching {line.line}: none, no pruned level matches."
    row, unbroken = line.smallest, line.unbroken
    found = (
        f"Smallest matching {line.line}: {percent(row['density'])} % "
        f"({row['weights_remaining']:,.0f} weights, level {row['level']}, n = {row['n']})"
    )
    if unbroken is None:
        return f"{found}; not every level above it matches, the first pruned one does not."
    if unbroken["level"] == row["level"]:
        return f"{found}; every level above it matches too."
    return f"{found}; not every level above it matches, only those down to {percent(unbroken['density'])} %."
