"""Tables as files: csv for programs, markdown for reading, LaTeX for papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ltx.files import write as replace
from ltx.report import costs, escape, layers, render, tables
from ltx.report.comparison import Comparison, Page
from ltx.report.tables import Section

BOOKTABS = "% needs \\usepackage{booktabs}\n"
PARTS = ("means", "matching", "differences")


def write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files by name; their paths."""
    for name, text in texts.items():
        replace(folder / name, text.encode())
    return [folder / name for name in texts]


def texts(page: Page, comparison: Comparison) -> dict[str, str]:
    """The tables of a page, as files by name."""
    only, parts = comparison.of(page), sections(page, PARTS, comparison.tolerance)
    more = [*layers.sections(page.experiments), *costs.sections(page.experiments, page.summary)]
    files = {
        "accuracy_vs_sparsity.csv": csv(only),
        "accuracy_vs_sparsity.md": render.markdown(page.name, [*parts, *more]),
        "accuracy_vs_sparsity.tex": BOOKTABS + render.latex(page.name, parts),
    }
    return files | ({"differences.csv": csv(only, ["differences"])} if len(page.differences) else {})


def overview(comparison: Comparison) -> dict[str, str]:
    """The smallest matching network of every line of every page, as files by name."""
    pages, tolerance = comparison.pages, comparison.tolerance
    parts = {page.name: sections(page, ["matching"], tolerance) for page in pages}
    return {
        "comparison.csv": csv(comparison, ["matching"]),
        "comparison.md": "\n".join(render.markdown(name, part) for name, part in parts.items()),
        "comparison.tex": BOOKTABS + "\n".join(render.latex(name, part) for name, part in parts.items()),
    }


def text(table: pd.DataFrame) -> str:
    """A table as the text of a csv file."""
    safe = table.rename(columns=escape.cell)
    for column in safe.columns[[kind.kind == "O" for kind in safe.dtypes]]:
        safe[column] = safe[column].map(escape.cell)
    return safe.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def csv(comparison: Comparison, parts: Sequence[str] = PARTS) -> str:
    """The first of the parts of all pages, in one table."""
    return text(getattr(comparison, parts[0])())


def markdown(comparison: Comparison, parts: Sequence[str] = PARTS) -> str:
    """The tables of all pages in markdown."""
    tolerance = comparison.tolerance
    return "\n".join(
        render.markdown(page.name, sections(page, parts, tolerance)) for page in comparison.pages
    )


def latex(comparison: Comparison, parts: Sequence[str] = PARTS) -> str:
    """The tables of all pages, to `\\input` into a paper that loads booktabs."""
    tolerance = comparison.tolerance
    found = [render.latex(page.name, sections(page, parts, tolerance)) for page in comparison.pages]
    return BOOKTABS + "\n".join(found)


def sections(page: Page, parts: Sequence[str], tolerance: float) -> list[Section]:
    """The parts of one page: tables, and what a reader must know beside them."""
    found: list[Section] = []
    summary = page.summary
    if "means" in parts:
        found.append((tables.means(summary), tables.captions(summary, tolerance, page.notes)))
    if "matching" in parts and (len(page.experiments) > 1 or "means" not in parts):
        improving = tables.still_improving(summary)
        known = [tables.match_rule(tolerance), tables.averaged(summary), *improving, *page.notes]
        found.append((tables.smallest(summary, tolerance), known if "means" not in parts else []))
    if "differences" in parts and len(page.differences):
        found.append((tables.gaps(page.differences), [tables.PAIRED]))
    return found
