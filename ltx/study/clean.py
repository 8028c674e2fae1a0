"""`ltx clean`: what a finished run's tables do not need, freed once somebody has said so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ltx import manifest
from ltx.errors import Busy
from ltx.experiment.folders import remove
from ltx.report.runs import find_runs

TENSORS = ("weights", ".aside")
"""Folders of tensors, beside those of the levels."""
FIGURES = {".png", ".svg", ".pdf"}


def clean(paths: list[Path], *, figures: bool = False, yes: bool = False) -> Iterator[str]:
    """What is freed of every complete run at or below the paths, or would be: a line each, and the sum.

    Freed are the tensors of all rounds, and `figures`: they can be drawn again. Tables stay, and the manifest says
    that nothing else was kept. Raises UserError if there is no run, Busy if one is being trained.
    """
    total = 0
    for folder in find_runs(paths):
        if (said := manifest.sound(folder)).get("status") != "complete":
            yield f"{folder}: left as it is, for it is not complete"
            continue
        places = [*sorted(folder.glob("level_*")), *(folder / name for name in TENSORS)]
        drawn = [file for file in folder.iterdir() if figures and file.suffix in FIGURES]
        freed = sum(size(path) for path in (*places, *drawn))
        total += freed
        yield f"{folder}: {freed / 1e6:,.1f} MB"
        if yes:
            free(folder, said, places, drawn)
    yield f"{total / 1e6:,.1f} MB {'freed' if yes else 'would be freed: --yes frees them'}"


def size(path: Path) -> int:
    """Bytes of a file, or of all below a folder; a link counts for nothing."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def free(folder: Path, said: dict[str, object], places: list[Path], drawn: list[Path]) -> None:
    """Say first that only tables are kept, then free the rest: whatever happens between is no broken promise."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            gone = {file.relative_to(folder).as_posix() for file in drawn}
            gone |= {f.relative_to(folder).as_posix() for place in places for f in place.rglob("*")}
            files = said["files"]
            assert isinstance(files, dict)
            kept = {name: sha for name, sha in files.items() if name not in gone}
            manifest.write_manifest(folder, {**said, "files": kept, "kept": "tables"})
            for place in places:
                remove(place)
            for file in drawn:
                file.unlink()
    except Timeout as error:
        raise Busy(f"{folder} is in use by another ltx process; wait for it or stop it") from error
