"""What was made after training, verified: `ltx connect`'s answers and tables, and the plan of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltx.config.registry import GROUPS
from ltx.core import sealed
from ltx.errors import Damaged
from ltx.experiment.growth import growing
from ltx.experiment.packing import mask_digest
from ltx.experiment.status import PLAN, Sweep
from ltx.files import read_bytes
from ltx.manifest import FILE as MANIFEST
from ltx.methods.base import Method
from ltx.report.runs import read_run
from ltx.study import connect
from ltx.study.findings import Findings, held
from ltx.study.reopen import open_ticket


def connections(found: Findings, folder: Path, said: dict[str, Any]) -> None:
    """Each answer of connect is about this run's mask and lies in its place; its tables are what answers make."""
    for out in (folder / "connect", folder / "connect" / "recalibrated"):
        for path in sorted(out.glob("level_*.safetensors")):
            with held(found, "every answer of connect belongs where it lies", path):
                answer(folder, path, said)
        for name, content in connect.tables(out, str(said.get("tag"))).items():
            found.hold(
                "connect's tables are what its answers make of them",
                (out / name).is_file() and read_bytes(out / name, root=folder) == content,
                out / name,
                "it is missing or other",
                "`ltx connect` makes it again",
            )


def answer(folder: Path, path: Path, said: dict[str, Any]) -> None:
    """Raise Damaged unless an answer is whole, of this run, of its name and about its level's mask."""
    file = sealed.read(path, folder)
    sealed.demand_place(
        path, file.header, {"kind": "connection", "tag": said.get("tag"), "seeds": said.get("seeds")}
    )
    level, k = file.header["level"], file.header["k"]
    if path.stem != connect.named(level, k):
        raise Damaged(path, f"it says level {level}, step {k}")
    mask = mask_digest(open_ticket(folder, level)[0].mask)
    sealed.demand_place(path, file.header, {"mask": mask})


def sweep(file: Path) -> Findings:
    """Every job of a sweep's plan has its run, complete, and the run's settings are those that the job names."""
    found = Findings(file.parent)
    with held(found, "the plan can be read", file):
        for job in Sweep.read(file).jobs:
            state = job.state()
            found.hold(
                "every job of the plan has a complete run",
                state.name == "complete",
                job.folder,
                f"it is {state.name}{f': {state.reason}' if state.reason else ''}",
                f"the plan is {' '.join(job.overrides)}",
            )
            if state.name == "complete":
                settings(found, file, job.folder, job.overrides)
    return found


def settings(found: Findings, file: Path, folder: Path, overrides: list[str]) -> None:
    """A run's settings are those that a plan's words name; lists, and what a run may have more of, are passed over."""
    run = read_run(folder)
    known = {**run.settings, "seed": str(run.levels.seed.min())}
    more = {f"method.{knob.name}" for knob in growing(GROUPS["method"].get(known["method"], Method))}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key in known.keys() - more and not set(value) & set("[{'\"\\$"):
            found.hold(
                "every run is what its job asks for",
                same(known[key], value),
                file,
                f"the plan has {word}",
                f"{folder} has {key}={known[key]}",
            )


def same(one: str, other: str) -> bool:
    """Whether two values as they are typed are one: 1e-3 is 0.001."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def plans(path: Path) -> list[Path]:
    """The plans of sweeps at or below a path."""
    return sorted(file for file in path.rglob(PLAN) if file.is_file())


def planned(file: Path) -> list[Path]:
    """The folders that a plan's jobs have filled; none if it cannot be read."""
    try:
        return [job.folder for job in Sweep.read(file).jobs if (job.folder / MANIFEST).exists()]
    except Damaged:
        return []
