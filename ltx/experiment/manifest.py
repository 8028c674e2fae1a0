"""manifest.json: what a run says of itself, the SHA-256 of all its files, and of the manifest itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltx.errors import Damaged
from ltx.files import read_bytes, read_json, write
from ltx.schema import MANIFEST

FILE = "manifest.json"


def seal(manifest: dict[str, Any]) -> str:
    """The SHA-256 of all that a manifest says, but this."""
    said = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with its seal; raises UserError."""
    sealed = manifest | {"seal": seal(manifest)}
    write(folder / FILE, json.dumps(sealed, indent=2).encode(), folder)


def before(folder: Path) -> dict[str, Any]:
    """The manifest that a folder has; nothing where there is none, or none that is as it was written."""
    try:
        manifest = read_json(folder / FILE, MANIFEST, folder)
    except Damaged:
        return {}
    return manifest if manifest.get("seal") == seal(manifest) else {}


def sha256(path: Path, root: Path) -> str | None:
    """The SHA-256 of a file's bytes; None if it is missing or no regular file."""
    try:
        return hashlib.sha256(read_bytes(path, 64 << 30, root)).hexdigest()
    except (FileNotFoundError, Damaged):
        return None


def enter(folder: Path, files: Iterable[Path]) -> None:
    """Add to the folder's manifest what was drawn from its tables; nothing where it has none that is sound."""
    if manifest := before(folder):
        mine = [file for file in files if file.is_relative_to(folder)]
        sums = {str(file.relative_to(folder)): sha for file in mine if (sha := sha256(file, folder))}
        if not sums.items() <= manifest.get("files", {}).items():
            write_manifest(folder, manifest | {"files": manifest.get("files", {}) | sums})
