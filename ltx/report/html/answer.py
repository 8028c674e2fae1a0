"""The answer in sentences made from the numbers: what matches, what differs, and of how many networks."""

from ltx.report.comparison import Page
from ltx.report.stats import COMPARED, DENSE, Row, matching
from ltx.report.tables import describe, gaps, name, pair_columns, pair_lines, percent, places


def sentences(page: Page, tolerance: float) -> list[str]:
    """Three sentences: the smallest matching network, how it differs from the dense one, and of how many this is."""
    summary = page.summary
    tickets = [line for line in matching(summary, tolerance) if line.rows[0]["role"] == "ticket"]
    best = min(tickets, key=lambda line: line.smallest["density"] if line.smallest else 2, default=None)
    if best is None:
        return [f"No pruned network has been trained yet. {counted(page)}"]
    row = best.smallest or best.rows[-1]
    found = describe(best)
    if len(tickets) > 1:
        found += f" It is the smallest of {len(tickets)} lines: {name(row)}."
    return [found, *difference(page, row), counted(page)]


def difference(page: Page, row: Row) -> list[str]:
    """How a network differs from the dense one of its own seeds, and whether the interval holds nought."""
    rows = page.differences
    if rows.empty:
        return []
    here = rows[(rows.experiment == row["experiment"]) & (rows.level == row["level"])]
    here = here[(here.against == DENSE) & here.line.eq(row["line"])]
    if here.empty:
        return []
    measure, one = COMPARED[0], here.iloc[0]
    (text,) = (
        texts[0] for texts in pair_columns(pair_lines(here), places(pair_lines(here)), measure).values()
    )
    what = gaps(rows)[0].title.removeprefix("Paired differences in ").partition(" · ")[0]
    told = f"At {percent(row['density'])} %, its paired difference from the dense network in {what} is {text}"
    return [f"{told}, n = {one.n}: {weighed(one, measure)}."]


def weighed(row: Row, measure: str) -> str:
    """What an interval says of a difference."""
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    if not low <= high:  # n = 1
        return "one seed has no interval, so this may be noise"
    if low <= 0 <= high:
        return "the 95 % interval includes zero, so no difference is shown"
    return "the 95 % interval excludes zero"


def counted(page: Page) -> str:
    """How many networks the numbers are of."""
    sound = int((page.summary.n * (page.summary.n > 0)).sum())
    diverged = int(page.summary.diverged.sum())
    seeds = {seed for e in page.experiments for seed in e.levels.seed}
    left = f"; {diverged} that diverged are left out" if diverged else ""
    return f"These numbers are of {sound:,} networks from {len(seeds)} seed{'s' * (len(seeds) != 1)}{left}."
