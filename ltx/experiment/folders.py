"""Folders of a run: where its rounds lie, by the question that they answer, and what stands in their way."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

from ltx.core import sealed
from ltx.errors import Damaged
from ltx.files import below as parts

ASIDE = ".aside"
"""Where rounds wait that made room for another: a run that grows may ask for them at another level."""


class Index:
    """The places of a run's rounds by their question, as they say themselves; read once, when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _places(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        patterns = "level_*/*/trained.safetensors", f"{ASIDE}/*/trained.*"
        for file in (file for pattern in patterns for file in self.folder.glob(pattern)):
            try:
                question = sealed.read_header(file, self.folder).get("question", "")
            except (FileNotFoundError, Damaged, sealed.Outdated):
                continue
            found.setdefault(str(question), []).append(file.parent)
        return found

    def places(self, question: str) -> list[Path]:
        """Where rounds lie that answer a question."""
        return self._places.get(question, [])

    def set_aside(self, place: Path) -> None:
        """Make room for another round without losing the one that is there."""
        question = str(sealed.read_header(place / "trained.safetensors", self.folder).get("question"))
        aside = self.folder / ASIDE / question
        clear(aside, self.folder)
        remove(aside)
        aside.parent.mkdir(exist_ok=True)
        os.replace(place, aside)
        if "_places" in vars(self):
            self._places.setdefault(question, []).insert(0, aside)


def clear(path: Path, root: Path) -> None:
    """Remove what stands in the way of a folder: links, and files where folders belong. Nothing is followed."""
    for part in parts(path, root):
        if part.is_symlink() or (part != path and part.exists() and not part.is_dir()):
            part.unlink()


def remove(folder: Path) -> None:
    """Remove a folder of ours, if it is there, with all that is in it; a link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
