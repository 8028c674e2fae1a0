"""bench.csv as tables: a network a table, a form a row, each number with its ratio to dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ltx.console import Console
from ltx.report.tables import NONE, Section, Sheet
from ltx.report.terminal import note, print_sheets


def section(rows: pd.DataFrame, notes: Sequence[str] = ()) -> Section:
    """A table per network of bench.csv, then what a reader must know."""
    return [sheet(str(name), part) for name, part in rows.groupby("network", sort=False)], captions(
        rows, notes
    )


def sheet(name: str, rows: pd.DataFrame) -> Sheet:
    measure = f"test {rows.measure.iloc[0]}"
    columns = {
        "form": list(rows.form),
        "runtime": list(rows.runtime),
        measure: texts(rows, "test", lambda value: f"{value:.4f}"),
        "agrees %": texts(rows, "agreement", lambda value: f"{100 * value:.2f}"),
        "off by": texts(rows, "largest_difference", lambda value: f"{value:.0e}"),
        "bytes": texts(rows, "bytes", lambda value: f"{value:,.0f}"),
        "MACs": texts(rows, "macs", lambda value: f"{value:,.0f}"),
        "peak MB": texts(rows, "peak_bytes", lambda value: f"{value / 1e6:.1f}"),
        "1 thread, ms": texts(rows, "one_median", milliseconds),
        "1 thread, p95": texts(rows, "one_p95", milliseconds, alone=True),
        "all threads, ms": texts(rows, "all_median", milliseconds),
        "all threads, p95": texts(rows, "all_p95", milliseconds, alone=True),
        "per second": texts(rows, "per_second", lambda value: f"{value:,.0f}"),
    }
    return Sheet(name, columns, left=2)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def texts(rows: pd.DataFrame, name: str, shown: Callable[[float], str], *, alone: bool = False) -> list[str]:
    """Values as shown, with their ratios to dense where there are such; a dash where nothing was measured."""
    ratios = rows.get(f"{name}_ratio")
    found = []
    for place, value in enumerate(rows[name]):
        ratio = (
            None
            if ratios is None or alone or place == 0 or pd.isna(ratios.iloc[place])
            else ratios.iloc[place]
        )
        found.append(
            NONE if pd.isna(value) else shown(value) + (f" ({ratio:.2f}x)" if ratio is not None else "")
        )
    return found


def captions(rows: pd.DataFrame, notes: Sequence[str]) -> list[str]:
    """How the numbers came to be."""
    threads, batch, calls = (int(rows[name].max()) for name in ("threads", "batch", "calls"))
    return [
        f"The goal's measure is on all {int(rows.examples.max()):,} test examples, as the form's runtime computes it. "
        "It agrees with torch where it names the class that the network, zeros and all, does; off by: the largest "
        "difference of a logit.",
        "(0.50x): the ratio to the dense network in torch. Bytes of what torch computes are those of its safetensors.",
        f"Milliseconds: median and 95th percentile of up to {calls:,} calls at batch 1, with 1 thread and with "
        f"{threads}; per second: examples at batch {batch:,} with {threads}. Forms took turns, each warmed up.",
        "Peak: what a process of its own holds at most, beyond its runtime's package, when it opens the form and "
        "computes one example.",
        *notes,
    ]


def show(folder: Path, console: Console) -> None:
    """Print what bench.csv in a folder holds."""
    sheets, known = section(pd.read_csv(folder / "bench.csv"))
    print_sheets("Forms", sheets, console)
    note(console, [*known, f"tables and figures are in {folder}"])
