"""Files that a reader or a crash never sees half written."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltx.errors import UserError


def write(path: Path, content: bytes) -> None:
    """Replace a file in one move, so that a reader or a crash sees the old content or the new; raises UserError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # where not even that can be asked, nothing was written
            temporary.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror}; everything finished before is kept, "
            "and the same command continues from there"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if the file is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
