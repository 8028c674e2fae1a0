"""`ltx verify`: what a run promises, checked again from its files, without training and without its own code.

From the files alone: the manifest's seal, every checksum, that each file belongs where it lies, nested masks,
pruned weights at zero. Where the data are at hand the method is driven again as a resumed run drives it, and every
ticket, control and table must come out as it is stored. Not found: a forgery of files, headers and manifest
together, but for the accuracies that `--data` measures again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ltx import manifest
from ltx.config.identity import Composed
from ltx.config.registry import GROUPS
from ltx.config.run import Run
from ltx.core import sealed
from ltx.core.checks import Checks
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree, below, digest
from ltx.data.download import Downloaded
from ltx.engine.evaluate import evaluate, own_outputs
from ltx.errors import Damaged, InvariantError, UserError
from ltx.experiment import tables
from ltx.experiment.growth import Growth, there
from ltx.experiment.journal import MethodTables
from ltx.experiment.loop import play
from ltx.experiment.store import Another, Store
from ltx.files import read_bytes, read_json, read_yaml
from ltx.report.runs import find_runs
from ltx.schema import MANIFEST
from ltx.study.reopen import at_home, load_task, open_file, reopen, unpacked_mask

ASIDE = ("status.json", "log.txt", ".lock", "manifest.json")
"""Files of a run that its manifest does not name."""
CLOSE = 2e-3
"""How far an accuracy measured again may lie from the stored one: another machine adds in another order."""


@dataclass
class Findings:
    """What was checked of a run, how often, what was broken, and what could not be checked."""

    run: Path
    held: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def hold(self, promise: str, kept: bool, file: Path, found: str, right: str) -> None:
        """Count a promise, or say in full what broke it."""
        if kept:
            self.held[promise] += 1
        else:
            self.broken.append(f"{promise}: {file}: {found}; {right}")

    def lines(self) -> Iterator[str]:
        """A line a promise, the first broken one in full, and what was not checked."""
        yield f"{self.run}"
        yield from (f"  {count:6d} × {promise}" for promise, count in self.held.items())
        yield from (f"  not checked: {what}" for what in self.unchecked)
        if self.broken:
            more = f" (and {len(self.broken) - 1} more)" if len(self.broken) > 1 else ""
            yield f"  BROKEN: {self.broken[0]}{more}"
        else:
            yield "  all promises hold"

    def told(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "run": str(self.run),
            "held": dict(self.held),
            "broken": self.broken,
            "unchecked": self.unchecked,
        }


def verify(paths: list[Path], *, data: bool = False) -> list[Findings]:
    """Check every run at or below the paths; `data`: measure accuracies again. Raises UserError if there is none."""
    return [verify_run(folder, data=data) for folder in find_verifiable(paths)]


def find_verifiable(paths: list[Path]) -> list[Path]:
    """Runs, also such as have lost their tables."""
    bare = {path for path in paths if (path / manifest.FILE).exists()}
    rest = [path for path in paths if path not in bare]
    return sorted({*bare, *(find_runs(rest) if rest else [])})


def verify_run(folder: Path, *, data: bool = False) -> Findings:
    """Everything about one run."""
    found = Findings(folder)
    try:
        said = read_json(folder / manifest.FILE, MANIFEST, folder)
    except Damaged as error:
        found.broken.append(f"the manifest can be read: {error}")
        return found
    if said.get("schema") != sealed.SCHEMA:
        version = said.get("versions", {}).get("ltx", "?")
        raise UserError(
            f"{folder} was written by ltx {version}, in an older layout: it has no seal to verify"
        )
    mine = manifest.seal(said)
    found.hold(
        "the manifest is as it was written",
        said.get("seal") == mine,
        folder / manifest.FILE,
        f"its seal is {said.get('seal')}",
        f"its content has {mine}",
    )
    inventory(found, folder, said)
    rounds(found, folder, said)
    if not found.broken:
        chain(found, folder, said, data=data)
    return found


def inventory(found: Findings, folder: Path, said: dict[str, Any]) -> None:
    """Every file that the manifest names is there as it was written, and no other is."""
    files = said.get("files", {})
    for name, sha in files.items():
        now = manifest.sha256(folder / name, folder)
        told = "it is missing, or no regular file" if now is None else f"its SHA-256 is {now}"
        found.hold("every file has its checksum", now == sha, folder / name, told, f"the manifest has {sha}")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        known = name in files or name in ASIDE or name.startswith("tracking/") or path.name == ".lock"
        found.hold(
            "nothing else is there", known, path, "it is in no manifest", "it does not belong to the run"
        )
    over = said.get("status") == "complete"
    left = [name for name in ("status.json",) if over and (folder / name).exists()]
    found.hold(
        "a complete run says nothing more",
        not left,
        folder / "status.json",
        "it is there",
        "it should not be",
    )


def rounds(found: Findings, folder: Path, said: dict[str, Any]) -> None:
    """Each file of a round says that it belongs where it lies; masks are nested, what is pruned is zero."""
    weights = sorted((folder / "weights").glob("*.safetensors"))
    for path in weights:
        with held(found, "weights are those of their name", path):
            file = sealed.read(path, folder)
            sealed.demand_place(path, file.header, {"kind": "weights", "weights": path.stem})
            if digest(file.tree) != path.stem:
                raise Damaged(path, "its weights have another digest")
    for path in sorted(folder.glob("level_*/*/*.safetensors")):
        right = {"tag": said.get("tag"), "seeds": said.get("seeds")}
        with held(found, "every round's file belongs where it lies", path):
            header = sealed.read_header(path, folder)
            sealed.demand_place(path, header, right)
            if not at_home(folder, path):
                raise Damaged(
                    path, f"it says level {header.get('level')}, {header.get('role')}, {header.get('kind')}"
                )
    for place in sorted({path.parent for path in folder.glob("level_*/*/trained.safetensors")}):
        with held(found, "pruned weights are zero in the trained ones", place / "trained.safetensors"):
            pruned_zero(folder, place)


def pruned_zero(folder: Path, place: Path) -> None:
    """Raise Damaged unless trained weights are zero where their mask is."""
    level, name = int(place.parts[-2][6:]), place.name
    ticket, header = open_file(folder, level, name, "ticket")
    trained, _ = open_file(folder, level, name, "trained")
    own = {key: bits for key, bits in trained.items() if key.startswith("mask/")}
    mask, final = unpacked_mask(own or ticket, header["layers"]), below(trained, "final/")
    sound = ~trained["diverged"]
    for layer, alive in mask.items():
        if ((final[layer] != 0) & ~alive)[sound].any():
            raise Damaged(place / "trained.safetensors", f"{layer} has pruned weights that are not zero")


class held:
    """Counts a promise when its block ends, and notes what broke it."""

    def __init__(self, found: Findings, promise: str, path: Path) -> None:
        self.found, self.promise, self.path = found, promise, path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if error is None:
            self.found.held[self.promise] += 1
            return False
        if isinstance(
            error, UserError | KeyError | ValueError | FileNotFoundError | AttributeError | TypeError
        ):
            self.found.broken.append(f"{self.promise}: {error or self.path}")
            return True
        return False


# -- the method, driven again ---------------------------------------------------------------------------------


def chain(found: Findings, folder: Path, said: dict[str, Any], *, data: bool) -> None:
    """Drive the method as resuming does: each ticket and control must be the stored one, each table come out."""
    try:
        run = reopen(folder, "cpu")
    except UserError as error:
        found.unchecked.append(f"tickets, controls and tables: {error}")
        return
    if why := unavailable(run):
        found.unchecked.append(f"tickets, controls and tables: {why}")
        return
    task = load_task(run, said)
    identity(found, folder, said, run)
    witness = Witness(folder, task, said["tag"], {})
    replay = Replay(witness, said, found if data else None)
    growth = Growth.of(run, there(folder, said["tag"]))
    try:
        play(growth, task, run.recipe.plan(len(task.data.train)), replay)  # type: ignore[arg-type]
    except Missing as gone:
        over = said.get("status") == "complete"
        found.hold(
            "a complete run has all its rounds", not over, gone.place, "it is not there", "it was asked for"
        )
    except (Damaged, Another, InvariantError, sealed.Outdated, FileNotFoundError) as error:
        told = error if str(error) else "a stored ticket is not the one that the method asks for here"
        found.broken.append(f"the method asks for the stored tickets and controls: {told}")
        return
    found.held["the method asks for the stored tickets and controls"] += len(witness.files)
    found.held.update(replay.checks.passed)
    compare_tables(found, folder, said, replay)


def unavailable(run: Run) -> str:
    """Why the method cannot be driven here; nothing if it can."""
    if isinstance(run.dataset, Downloaded) and not run.dataset.intact():
        return f"the data are not at hand (`ltx data fetch {run.dataset.name}` brings them)"
    return ""


def identity(found: Findings, folder: Path, said: dict[str, Any], run: Run) -> None:
    """The run's tag follows from its configuration and data."""
    config = read_yaml(folder / "config.yaml")
    choices = {group: str(config[group]["name"]) for group in GROUPS}
    tag = Composed(run, str(said.get("config")), choices).tag(said["fingerprint"])
    found.hold(
        "the run's tag is that of its configuration and data",
        tag == said.get("tag"),
        folder / "config.yaml",
        f"it makes {tag}",
        f"the manifest has {said.get('tag')}",
    )


def compare_tables(found: Findings, folder: Path, said: dict[str, Any], replay: Replay) -> None:
    """Every table is, byte for byte, what the rounds make of it."""
    for name, table in replay.tables.all.items():
        if not (content := b"".join(table.pending)):
            continue
        path = folder / f"{name}.csv"
        stored = read_bytes(path, root=folder) if path.exists() else b""
        pairs = zip(stored.splitlines(), content.splitlines(), strict=False)
        n, (old, new) = next(((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1]), (0, (b"", b"")))
        found.hold(
            "every table is what its rounds make of it",
            stored == content,
            path,
            f"line {n} is {old.decode(errors='replace')}" if n else "it has more or fewer lines",
            f"it should be {new.decode()}" if n else "than its rounds make",
        )


class Missing(Exception):
    """A round that the method asks for is not there."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"{place} is missing")
        self.place = place


class Witness(Store):
    """A run's rounds, read and never written."""

    def load(self, round: Round) -> Trained | None:
        """The round in its place; None if it is not there. Raises Damaged or Another."""
        place = self.place(round)
        return self._read(place, round) if (place / "trained.safetensors").exists() else None

    def keep(self, weights: Tree) -> str:
        """The weights' digest, if they are kept as they are; raises FileNotFoundError or Damaged."""
        sha = self.digest(weights)
        self.kept(sha)
        return sha


class Replay:
    """A journal that reads: what is missing ends it, and nothing is trained or written."""

    def __init__(self, store: Witness, said: dict[str, Any], measured: Findings | None) -> None:
        self.store, self.task, self.measured = store, store.task, measured
        self.checks, self.ended = Checks(), ""
        self.tables = tables.Tables(store.folder, tables.columns(self.task.goal))
        self.record = tables.Record(self.task, said["config"], said["method"])

    def has(self, round: Round) -> bool:
        """Whether the round is there."""
        return self.store.load(round) is not None

    def settle(
        self, round: Round, train: object, lost: torch.Tensor, told: MethodTables | None = None
    ) -> Trained:
        """The round's outcome and its rows; raises Missing."""
        if (trained := self.store.load(round)) is None:
            raise Missing(self.store.place(round))
        self.tables.add(self.record.rows(round, replace(trained, diverged=trained.diverged | lost)))
        if told:
            self.tables.note(told(self.task, round, trained))
        if self.measured:
            measure_again(self.measured, self.task, round, trained, self.store.place(round))
        return trained


@dataclass(frozen=True)
class Saved:
    """R networks of saved weights, each computed by PyTorch's own modules."""

    task: Task
    weights: Tree

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return own_outputs(self.task, self.weights, inputs)


def measure_again(found: Findings, task: Task, round: Round, trained: Trained, place: Path) -> None:
    """The final test and validation measures, from the saved weights and the data."""
    last, rows = trained.curve.last(), torch.arange(task.replicates)
    for split in ("val", "test"):
        measured = evaluate(task.goal, Saved(task, trained.final), task.data, getattr(task.data, split))
        now, was = measured[task.goal.measure], getattr(trained.curve, f"{split}_measure")[rows, last]
        apart = float((now - was)[~trained.diverged].abs().max()) if (~trained.diverged).any() else 0.0
        exact = "to the bit" if apart == 0 else f"within {CLOSE:g}"
        found.hold(
            f"the {split} {task.goal.measure} at the end is that of the saved weights, {exact}",
            apart <= CLOSE,
            place / "trained.safetensors",
            f"its curve ends at {was.tolist()}",
            f"its weights make {now.tolist()}",
        )


def report(findings: list[Findings], *, as_json: bool) -> str:
    """What was found, for people or for a program."""
    if as_json:
        return json.dumps([found.told() for found in findings], indent=1)
    return "\n".join(line for found in findings for line in found.lines())
