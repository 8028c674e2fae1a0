"""manifest.json: what a run says of itself, the SHA-256 of all its files, and of the manifest itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
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


def sound(folder: Path) -> dict[str, Any]:
    """The manifest that a folder has; nothing where there is none, or none that is as it was written."""
    try:
        manifest = read_json(folder / FILE, MANIFEST, folder)
    except Damaged:
        return {}
    return manifest if manifest.get("seal") == seal(manifest) else {}


def sha256(path: Path, root: Path) -> str | None:
    """The SHA-256 of a file's bytes; None if it is missing or no regular file."""
    try:
        about = path.lstat()
        return _sha256(path, root, about.st_mtime_ns, about.st_size, about.st_ino)
    except (FileNotFoundError, Damaged):
        return None


@lru_cache(maxsize=4096)
def _sha256(path: Path, root: Path, *_when: int) -> str:
    """Once for each state of a file: those who watch a sweep ask every second."""
    return hashlib.sha256(read_bytes(path, 64 << 30, root)).hexdigest()


def altered(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The tables and the configuration of a run that are missing or not what its manifest says.

    Of a running one nothing is asked: its tables are written before its manifest.
    """
    if manifest.get("status") == "running":
        return []
    ours = {name: sha for name, sha in manifest.get("files", {}).items() if _derived(name)}
    return [name for name, sha in ours.items() if sha256(folder / name, folder) != sha]


def _derived(name: str) -> bool:
    return "/" not in name and name.endswith((".csv", ".yaml"))


def notes(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The same in words."""
    return [
        f"{folder / name} is missing or not what its checksum says; the command that made the run makes it again"
        for name in altered(folder, manifest)
    ]


def enter(folder: Path, files: Iterable[Path]) -> None:
    """Add what was drawn from a run's tables to its manifest, if it is sound and the run at rest."""
    folder, manifest = folder.resolve(), sound(folder)
    if manifest.get("status", "running") != "running":
        here = [file.parent.resolve() / file.name for file in files]
        mine = [file for file in here if file.is_relative_to(folder)]
        sums = {file.relative_to(folder).as_posix(): sha for file in mine if (sha := sha256(file, folder))}
        if not sums.items() <= manifest.get("files", {}).items():
            write_manifest(folder, manifest | {"files": manifest.get("files", {}) | sums})
