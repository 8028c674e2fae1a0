"""From a file of a stranger's to columns of numbers and of categories; what is wrong is named by row and column."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ltx.errors import Damaged, UserError
from ltx.files import read_bytes

log = logging.getLogger(__name__)

ABSENT = {"", "na", "n/a", "nan", "null", "none", "?"}
"""What stands for a value that is missing, in small letters."""
KINDS = 100
"""Categories that a column may have: each becomes an input."""


def read(path: Path) -> pd.DataFrame:
    """The columns of a .csv or .parquet file, each float64 or text, missing values NaN or None; raises UserError."""
    try:
        content = read_bytes(path.resolve())
    except FileNotFoundError:
        raise UserError(f"dataset.path={path} does not exist") from None
    except Damaged as error:
        raise UserError(f"dataset.path={path} cannot be read: {error}") from error
    if path.suffix.lower() == ".parquet":
        table = parquet(path, content)
    elif path.suffix.lower() == ".csv":
        table = comma_separated(path, content)
    else:
        raise UserError(f"dataset.path={path} is not possible: it must end in .csv or .parquet")
    if table.empty:
        raise UserError(f"dataset.path={path} has no rows")
    if len(twice := sorted(set(table.columns[table.columns.duplicated()]))) > 0:
        raise UserError(f"dataset.path={path} has two columns called {twice[0]}")
    return pd.DataFrame({str(name): column(str(name), table[name]) for name in table.columns})


def parquet(path: Path, content: bytes) -> pd.DataFrame:
    """The table in a Parquet file."""
    try:
        return pd.read_parquet(BytesIO(content))
    except ImportError as error:
        raise UserError(f"dataset.path={path} needs pyarrow: pip install 'ltx[table]'") from error
    except (OSError, ValueError) as error:
        raise UserError(f"dataset.path={path} is no Parquet file: {' '.join(str(error).split())}") from error


def comma_separated(path: Path, content: bytes) -> pd.DataFrame:
    """The table in a CSV file with a line of names, every value as text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"dataset.path={path} is not UTF-8: byte {error.start}, in line {line}") from error
    try:
        rows = [row for row in csv.reader(StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"dataset.path={path} is no table: {error}") from error
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(rows[0]):
            raise UserError(
                f"dataset.path={path}: row {number} has {len(row)} fields where the header has {len(rows[0])}"
            )
    return pd.DataFrame(rows[1:], columns=rows[0] if rows else [], dtype=object)


def column(name: str, values: pd.Series) -> pd.Series:
    """One column as numbers if all that is there are numbers, else as text; raises UserError for a mixture."""
    if pd.api.types.is_bool_dtype(values):
        values = values.map({True: "true", False: "false"})
    if pd.api.types.is_numeric_dtype(values):
        return finite(name, values.astype("float64"))
    text = values.map(lambda value: None if absent(value) else str(value).strip())
    numbers = pd.to_numeric(text, errors="coerce").astype("float64")
    there, numeric = int(text.notna().sum()), int(numbers.notna().sum())
    if numeric == there:
        return finite(name, numbers)
    if 2 * numeric > there:
        row = int(np.flatnonzero(text.notna() & numbers.isna())[0])
        raise UserError(
            f"row {row + 1} of column {name} is {text.iloc[row]!r} where numbers belong: "
            f"mend it, or leave the column out with dataset.drop=[{name}]"
        )
    return text


def absent(value: object) -> bool:
    return value is None or value is pd.NA or value != value or str(value).strip().lower() in ABSENT


def finite(name: str, numbers: pd.Series) -> pd.Series:
    if len(infinite := np.flatnonzero(np.isinf(numbers))):
        raise UserError(f"row {infinite[0] + 1} of column {name} is infinite")
    return numbers


def numbered(features: pd.DataFrame) -> tuple[np.ndarray, list[str], dict[str, tuple[int, ...]]]:
    """Inputs float64 [N, F], their names, and which of them are one feature: a category has a column for each value.

    Says so of each; raises UserError where a column has too many values to be categories.
    """
    parts: list[np.ndarray] = []
    names: list[str] = []
    groups: dict[str, tuple[int, ...]] = {}
    for name in map(str, features):
        if features[name].dtype == np.float64:
            parts.append(features[name].to_numpy()[:, None])
            groups[name] = (len(names),)
            names.append(name)
            continue
        kinds = sorted(set(features[name]))
        if len(kinds) > KINDS:
            raise UserError(
                f"column {name} is text with {len(kinds)} different values, too many to be categories: "
                f"leave it out with dataset.drop=[{name}]"
            )
        log.warning("column %s is text: it becomes an input for each of %s", name, ", ".join(kinds))
        parts.append(np.stack([(features[name] == kind).to_numpy(np.float64) for kind in kinds], 1))
        groups[name] = tuple(range(len(names), len(names) + len(kinds)))
        names += [f"{name}={kind}" for kind in kinds]
    return np.concatenate(parts, 1), names, groups


def counted(missing: Mapping[str, int]) -> str:
    """How many values each column misses, in words."""
    found = [f"{name} ({count})" for name, count in missing.items() if count]
    return ", ".join(found[:10]) + (f" and {len(found) - 10} other columns" if len(found) > 10 else "")
