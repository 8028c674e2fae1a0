"""Networks and data sets from the user's own code: by import path, or offered by an installed package."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any

from ltx.errors import UserError


def offered(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in an entry point group, by name and not yet imported."""
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def load(key: str, entry: EntryPoint) -> Any:
    """The object at an entry point; its module may lie in the working directory, as with `python -m`."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return entry.load()
    except Exception as error:  # whatever the user's module raises
        raise UserError(f"{key}={entry.value} cannot be imported: {told(error)}") from error


def load_path(key: str, path: str) -> Any:
    """The object at `package.module:name`; raises UserError, for a module of Python's own too."""
    house = path.partition(":")[0].partition(".")[0]
    if house in sys.stdlib_module_names:
        raise UserError(
            f"{key}={path} is not possible: {house} is a module of Python's own; call yours otherwise"
        )
    return load(key, EntryPoint("path", path, "ltx"))


def load_kind(key: str, entry: EntryPoint, base: type) -> type:
    """The class at an entry point, which must be one of ours extended."""
    kind = load(key, entry)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(
            f"{key}={entry.name} ({entry.value}) must be a subclass of {base.__module__}.{base.__name__}"
        )
    return kind


def told(error: BaseException) -> str:
    """An error that somebody else's code raised, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
