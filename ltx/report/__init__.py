"""Figures and tables of finished, running and interrupted runs, from their csv files alone: no torch here."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ltx.console import Console
from ltx.errors import unknown
from ltx.manifest import enter
from ltx.report import pages
from ltx.report.comparison import CONFIGS, Comparison, compare
from ltx.report.escape import places
from ltx.report.runs import find_runs
from ltx.report.terminal import print_tables

__all__ = ["compare", "draw", "find_runs", "print_tables", "show", "table", "write"]

FORMATS = ("text", "csv", "markdown", "latex")


def draw(paths: Sequence[Path], out: Path | None = None, pdf: bool = False, **how: Any) -> list[Path]:
    """Write the figures and tables of the runs at or below `paths`; the files. `how` is as for `compare`."""
    return write(compare(paths, **how), out, pdf)


def table(paths: Path | Sequence[Path], **how: Any) -> pd.DataFrame:
    """The means of the runs at or below `paths`: one row per line and level, as in `stats.summarize`."""
    found = compare([paths] if isinstance(paths, Path) else paths, **how)
    rows = found.means()
    rows.attrs["notes"] = {page.name: page.notes for page in found.pages}
    return rows


def write(comparison: Comparison, out: Path | None = None, pdf: bool = False) -> list[Path]:
    """Write the figures and tables of a comparison, and return the files.

    One run is drawn into its own folder, several into their common parent, unless `out` says where; several
    configs get a folder each, and what compares them lies beside these. More configs than `CONFIGS` get tables
    of their own but figures only together.
    """
    from ltx.report.figures import (
        draw as figures,  # matplotlib costs a quarter of a second that a table need not pay
    )

    folder = out or Path(os.path.commonpath([run.path.resolve() for run in comparison.runs]))
    kinds = ["png", "svg", *(["pdf"] if pdf else [])]
    few, files = len(comparison.pages) <= CONFIGS, []
    own = places(page.name for page in comparison.pages) if len(comparison.pages) > 1 else {}
    for page in comparison.pages:
        place = folder / own.get(page.name, "")
        drawn = figures.write(place, page, kinds) if few else []  # first: it notes damaged tables
        files += [*pages.write(place, pages.texts(page, comparison)), *drawn]
    if comparison.panelled:
        drawn = figures.write_comparison(folder, comparison, kinds)
        files += [*pages.write(folder, pages.overview(comparison)), *drawn]
    for run in comparison.runs:
        enter(run.path, files)
    return files


def show(paths: Sequence[Path], format: str = "text", only: str | None = None, **how: Any) -> None:
    """Print the tables of the runs at or below `paths`: means, matching and differences, or `only` one of them.

    `how` is as for `compare`. UserError for a format or a part that does not exist.
    """
    if format not in FORMATS:
        raise unknown("--format", format, FORMATS)
    if only is not None and only not in pages.PARTS:
        raise unknown("--only", only, pages.PARTS)
    found, parts = compare(paths, **how), [only] if only else list(pages.PARTS)
    if format == "text":
        print_tables(found, Console(), parts)
    else:
        Console().pour(getattr(pages, format)(found, parts))
