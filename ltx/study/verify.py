"""`ltx verify`: what a run promises, checked again from its files, without training and without its own code.

From the files alone: the manifest's seal, every checksum, that each file belongs where it lies, nested masks,
pruned weights at zero. Where the data are at hand the method is driven again as a resumed run drives it, and every
ticket, control and table must come out as it is stored. Not found: a forgery of files, headers and manifest
together, but for the accuracies that `--data` measures again.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from ltx import manifest
from ltx.config.identity import Composed
from ltx.config.registry import GROUPS
from ltx.config.run import Run
from ltx.core import sealed
from ltx.core.ticket import below, digest
from ltx.data.download import Downloaded
from ltx.errors import Damaged, InvariantError, UserError
from ltx.experiment.growth import Growth, there
from ltx.experiment.lanes import Lanes
from ltx.experiment.loop import play
from ltx.experiment.store import Another
from ltx.files import read_bytes, read_json, read_yaml
from ltx.report.runs import COLUMNS, WORDS, demand_possible, find_runs
from ltx.schema import MANIFEST
from ltx.study import derived
from ltx.study.findings import Findings, held
from ltx.study.reopen import at_home, load_task, open_file, reopen, unpacked_mask
from ltx.study.replay import Missing, Replay, Witness

ASIDE = ("status.json", "log.txt", ".lock", "manifest.json")
"""Files of a run that its manifest does not name."""


def verify(paths: list[Path], *, data: bool = False) -> list[Findings]:
    """Check every run and every sweep at or below the paths; `data`: measure losses and accuracies again.

    Raises UserError if there is none.
    """
    plans = [file for path in paths for file in derived.plans(path)]
    runs = [verify_run(folder, data=data) for folder in find_verifiable(paths, plans)]
    return runs + [derived.sweep(file) for file in plans]


def find_verifiable(paths: list[Path], plans: list[Path]) -> list[Path]:
    """Runs, also such as have lost their tables, and those of the plans."""
    bare = [path for path in paths if (path / manifest.FILE).exists()]
    bare += [folder for file in plans for folder in derived.planned(file)]
    rest = [path for path in paths if path not in bare]
    with suppress(UserError) if plans else nullcontext():  # a sweep's own folder has no run in it
        bare += find_runs(rest) if rest else []
    return sorted({folder.resolve(): folder for folder in reversed(bare)}.values())


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
    numbers(found, folder)
    if said.get("kept") == "tables":
        found.unchecked.append("rounds, tickets, controls, and tables by their rounds: only tables were kept")
        return found
    rounds(found, folder, said)
    derived.connections(found, folder, said)
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


def numbers(found: Findings, folder: Path) -> None:
    """Every number of the tables is one that can be, whatever their checksums say."""
    for path in sorted(folder / name for name in COLUMNS if (folder / name).exists()):
        with held(found, "every number is one that can be", path):
            table = pd.read_csv(BytesIO(read_bytes(path, root=folder)), dtype=WORDS)
            for name in table.select_dtypes("number"):
                demand_possible(path, table[name])


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
        play(growth, task, run.recipe.plan(len(task.data.train)), replay, Lanes(task))  # type: ignore[arg-type]
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
    if (weights := run.model.weights) and not Path(weights).expanduser().is_file():
        return f"the weights that it began with are not at hand: there is no model.weights={weights}"
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
