"""Files of tensors that say what they are, under one checksum. Nothing but tensors is ever loaded from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from ltx import __version__
from ltx.core.ticket import Tree, digest
from ltx.errors import Damaged, UserError
from ltx.files import fit, read_bytes, read_start, write

SCHEMA = 2
"""The layout of a run's folder; raised when a reader of the one before would misread it.

1: tickets as bools with their weights; headers of text. 2: tickets as bits, weights by digest, headers as JSON.
"""
LARGEST = 64 << 30
"""Bytes of a file of tensors, at most."""
HEADER = 16 << 20
"""Bytes of its header, at most."""

Header = dict[str, Any]


class Outdated(UserError):
    """A file is sound, but of a layout that this version does not read."""

    def __init__(self, path: Path, version: object) -> None:
        super().__init__(
            f"{path} was written by ltx {version}, in another layout than this version's; "
            "read it with that version, or make the run again"
        )


@dataclass(frozen=True)
class Sealed:
    """What a file holds: tensors, what it says of them, and the SHA-256 of all its bytes."""

    tree: Tree
    header: Header
    sha256: str


def save(path: Path, tree: Tree, header: Mapping[str, Any], root: Path | None = None) -> str:
    """Write tensors with a header (JSON), no folder below `root` being a link; returns the file's SHA-256."""
    tree = {key: tensor.detach().cpu().contiguous() for key, tensor in tree.items()}
    about = json.dumps({"schema": SCHEMA, "ltx": __version__, **header}, sort_keys=True)
    content = to_bytes(tree, {"header": about, "sha256": checksum(about, tree)})
    write(path, content, root)
    return hashlib.sha256(content).hexdigest()


def read(path: Path, root: Path | None = None) -> Sealed:
    """A file that `save` wrote; raises FileNotFoundError, Damaged, or Outdated."""
    content = read_bytes(path, LARGEST, root)
    about, stored = _header(path, content)
    try:
        tree = from_bytes(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(path, "it is no safetensors file") from error
    if stored != checksum(about, tree):
        raise Damaged(path, "it is not what its checksum says")
    return Sealed(tree, json.loads(about), hashlib.sha256(content).hexdigest())


def read_header(path: Path, root: Path | None = None) -> Header:
    """What a file says of itself, unverified; raises FileNotFoundError, Damaged, or Outdated."""
    header: Header = json.loads(_header(path, read_start(path, HEADER, root))[0])
    return header


def _header(path: Path, content: bytes) -> tuple[str, str]:
    """The header as text and the checksum: a safetensors file begins with a length in eight bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    try:
        if length > HEADER:
            raise ValueError("a header of more than 16 MB")
        about = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        fit(about, {str: str})
        if "ltx" in about and "header" not in about:
            raise Outdated(path, about["ltx"])
        fit(header := json.loads(about["header"]), {"schema": int, "ltx": str})
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(path, "it has no header of ltx") from error
    if header.get("schema") != SCHEMA:
        raise Outdated(path, header.get("ltx", "?"))
    return about["header"], about.get("sha256", "")


def checksum(header: str, tree: Tree) -> str:
    """SHA-256 over the header and every bit of the tensors."""
    return hashlib.sha256(f"{header}\n{digest(tree)}".encode()).hexdigest()


def demand_place(path: Path, header: Header, place: Mapping[str, Any]) -> None:
    """Raise Damaged unless a file says that it belongs where it was found."""
    for key, value in place.items():
        if header.get(key) != value:
            raise Damaged(
                path, f"it belongs elsewhere: its {key} is {header.get(key)!r}, here it is {value!r}"
            )
