"""A run's folder: atomic, locked, checksummed. Nothing but tensors is ever loaded from it."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from ltx import __version__
from ltx.core.goal import Goal
from ltx.core.task import Task
from ltx.core.ticket import OWN, Curve, Round, Ticket, Trained, Tree, below, digest, unmeasured
from ltx.errors import Busy, Damaged, Interrupted, UserError
from ltx.experiment import cost, overlap, sizes
from ltx.files import fit, read_bytes, read_json, write
from ltx.schema import MANIFEST

CHECKPOINT_SECONDS = 60.0
"""A kill costs at most this much training, unless a run says otherwise."""
REFRESH_SECONDS = 5.0
"""How far the tables of a running run may lag behind its finished rounds."""

FOUND = (
    "config method role draw level seed density weights_remaining early_stop_step early_stop_val_loss".split()
)
SPENT = "steps seconds diverged".split()
LARGEST_TREE = 64 << 30
"""Bytes of a file of tensors: more is not read."""

LAYERS = "role draw level seed layer kind size kept".split()
MASKS = [*"role draw level seed layer".split(), *overlap.COLUMNS]
COSTS = [*"role draw level seed".split(), *cost.COLUMNS]
SIZE = [*"role draw level seed".split(), *sizes.COLUMNS]
CHANNELS = "role draw level seed group channels kept".split()


def read(path: Path, device: torch.device | str = "cpu") -> tuple[Tree, dict[str, str]] | None:
    """Tensors and header of a file that `save` wrote; None if it is missing, cut short or altered."""
    try:
        content = read_bytes(path, LARGEST_TREE)
        tree, header = from_bytes(content), metadata(content)
    except (FileNotFoundError, Damaged, SafetensorError, ValueError):
        return None
    if header.get("sha256") != digest(tree):
        return None
    return {key: tensor.to(device) for key, tensor in tree.items()}, header


def metadata(content: bytes) -> dict[str, str]:
    """The header of a safetensors file: its length in eight bytes, then JSON. Raises ValueError."""
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    fit(about, {str: str})
    return about


def save(path: Path, tree: Tree, **header: object) -> None:
    """Write tensors with a header that says what they are and carries their checksum."""
    tree = {key: tensor.detach().cpu().contiguous() for key, tensor in tree.items()}
    about = {"ltx": __version__, **{key: str(value) for key, value in header.items()}}
    write(path, to_bytes(tree, about | {"sha256": digest(tree)}))


class Store:
    """The folder of one run, held by one process at a time."""

    def __init__(
        self,
        folder: Path,
        task: Task,
        config: str,
        method: str,
        stop: Any = None,
        every: float = CHECKPOINT_SECONDS,  # between two checkpoints within a round
        patience: float = 0.0,  # seconds to wait for another process that holds the folder
    ) -> None:
        self.folder, self.task, self.config, self.method = folder, task, config, method
        self.stop, self.every, self.patience = stop or (lambda: False), every, patience
        self.manifest: dict[str, Any] = {}
        self.columns = {
            "levels": levels_columns(task.goal),
            "curves": curves_columns(task.goal),
            "layers": LAYERS,
            "masks": MASKS,
            "costs": COSTS,
            "size": SIZE,
            "channels": CHANNELS,
        }
        self.rows: dict[str, list[tuple]] = {name: [] for name in self.columns}
        self.ledger, self.sizes = cost.Ledger(task), sizes.Sizes(task)
        self.lock = FileLock(folder / ".lock")
        self.damaged: list[str] = []
        self.trained_now = 0
        self.published = -REFRESH_SECONDS

    def __enter__(self) -> Store:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=self.patience)
        except Timeout:
            raise Busy(f"{self.folder} is in use by another ltx process; wait for it or stop it") from None
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder}: {error.strerror}; choose another out=DIR"
            ) from error
        with suppress(Damaged):  # it is only written again
            self.manifest = read_json(self.folder / "manifest.json", MANIFEST)
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    # -- rounds -----------------------------------------------------------------------------------------------

    def load(self, round: Round) -> Trained | None:
        """The outcome of a round that was trained before from the same ticket; None if it must be trained."""
        folder = self._folder(round)
        ticket, trained = read(folder / "ticket.safetensors"), read(folder / "trained.safetensors")
        if ticket is None or trained is None:
            if (folder / "trained.safetensors").exists():
                self.damaged.append(str(folder))
            return None
        if ticket[1].get("ticket") != identity(round.ticket):
            return None
        return unflatten(trained[0], round.ticket.mask, self.task.device)

    def save(self, round: Round, trained: Trained) -> Trained:
        folder = self._folder(round)
        about = {
            "config": self.config,
            "method": self.method,
            "role": round.role,
            "draw": round.draw,
            "level": round.level,
            "start": round.start,
            "seeds": json.dumps(self.task.seeds),
            "ticket": identity(round.ticket),
        }
        if trainer := self.manifest.get("commit"):
            about["commit"] = trainer
        ticket = {f"mask/{name}": alive for name, alive in round.ticket.mask.items()}
        ticket |= {f"weights/{name}": tensor for name, tensor in round.ticket.weights.items()}
        save(folder / "ticket.safetensors", ticket, **about)
        outcome = flatten(trained)
        if any(not torch.equal(alive, trained.mask[name]) for name, alive in round.ticket.mask.items()):
            outcome |= {f"mask/{name}": alive for name, alive in trained.mask.items()}
        save(folder / "trained.safetensors", outcome, **about)
        shutil.rmtree(folder / "progress", ignore_errors=True)
        self.trained_now += 1
        return trained

    def checkpoint(self, round: Round) -> Progress:
        path = self._folder(round) / "progress" / "state.safetensors"
        return Progress(path, identity(round.ticket), self.stop, self.every)

    def _folder(self, round: Round) -> Path:
        return self.folder / f"level_{round.level:02d}" / round.name

    # -- tables -----------------------------------------------------------------------------------------------

    def record(self, round: Round, trained: Trained) -> None:
        """Note a round's rows; they reach the disk with `publish`."""
        alive, kept = self.task.alive(round.ticket).tolist(), round.ticket.kept()
        curve = trained.curve
        best, last, measured = curve.early_stop(), curve.last(), curve.measured()
        described = overlap.described(round.ticket.mask, ~trained.diverged)
        costs, small = self.ledger.rows(round, trained), self.sizes.rows(trained)
        further = [curve.further[f"test_{name}"] for name in self.task.goal.further]
        tree = curve.tree()
        values = [tree[key] for key in measured_keys(self.task.goal)]
        for r, seed in enumerate(self.task.seeds):
            key, at = (round.role, round.draw, round.level, seed), int(best[r])
            outcome = (
                alive[r] / self.task.layers.total,
                alive[r],
                int(curve.step[at]),
                number(curve.val_loss[r, at]),
                number(curve.test_measure[r, at]),
                number(curve.test_measure[r, last[r]]),
                number(trained.train_measure[r]),
                int(trained.steps[r]),
                round_seconds(trained.seconds / self.task.replicates),
                int(trained.diverged[r]),
                *(number(value[r, e]) for value in further for e in (at, last[r])),
            )
            self.rows["levels"].append((self.config, self.method, *key, *outcome))
            for e, step in enumerate(curve.step.tolist()):
                if not measured[r, e]:
                    continue
                self.rows["curves"].append((*key, step, *(number(value[r, e]) for value in values)))
            for layer, size in self.task.layers.sizes.items():
                count = int(kept[layer][r]) if layer in kept else size
                self.rows["layers"].append((*key, layer, self.task.layers.kinds[layer], size, count))
            for layer, facts in described.items():
                self.rows["masks"].append((*key, layer, *facts[r]))
            self.rows["costs"].append((*key, *costs[r]))
            self.rows["size"].append((*key, *small[r]))
            for group, stay in round.channels.items():
                self.rows["channels"].append((*key, group, stay.shape[1], int(stay[r].sum())))

    def refresh(self, **facts: object) -> None:
        """Publish now and then, so that others can see how far a run is; not after every short round."""
        if time.monotonic() - self.published > REFRESH_SECONDS:
            self.publish("running", **facts)

    def note(self, tables: dict[str, tuple[list[str], list[tuple]]]) -> None:
        """Add rows to tables of a method's own, as columns and rows by name."""
        for name, (columns, rows) in tables.items():
            self.columns[name] = columns
            self.rows.setdefault(name, []).extend(rows)

    def publish(self, status: str, **facts: object) -> None:
        """Write tables and manifest as they stand."""
        self.published = time.monotonic()
        for name, columns in self.columns.items():
            if self.rows[name]:
                write(self.folder / f"{name}.csv", table(columns, self.rows[name]))
        headers = {f: header(f) for f in sorted(self.folder.glob("level_*/*/*.safetensors"))}
        self.manifest |= {"status": status, "updated": now(), **facts}
        # `commit` is the code that publishes; whoever continues or redraws a run did not train all of it.
        self.manifest["trained_by"] = list(
            dict.fromkeys(h["commit"] for h in headers.values() if "commit" in h)
        )
        self.manifest["files"] = {
            str(f.relative_to(self.folder)): h.get("sha256", "") for f, h in headers.items()
        }
        write(self.folder / "manifest.json", json.dumps(self.manifest, indent=2).encode())


class Progress:
    """The half-trained state of one round, saved every so often and when the run is asked to stop."""

    def __init__(self, path: Path, ticket: str, stop: Any, every: float = CHECKPOINT_SECONDS) -> None:
        self.path, self.ticket, self.stop, self.every = path, ticket, stop, every
        self.saved = time.monotonic()

    def load(self) -> Tree | None:
        found = read(self.path)
        return found[0] if found and found[1].get("ticket") == self.ticket else None

    def part(self, r: int) -> Progress:
        """The same for one replicate of the round."""
        return Progress(self.path.with_name(f"state_{r}.safetensors"), self.ticket, self.stop, self.every)

    def due(self) -> bool:
        return self.stop() or time.monotonic() - self.saved > self.every

    def save(self, state: Tree) -> None:
        save(self.path, state, ticket=self.ticket)
        self.saved = time.monotonic()
        if self.stop():
            raise Interrupted


def identity(ticket: Ticket) -> str:
    """What makes two tickets the same: every weight and every bit of the mask."""
    return digest(ticket.weights | {f"mask/{name}": alive for name, alive in ticket.mask.items()})


def flatten(trained: Trained) -> Tree:
    """A Trained as one flat tree of tensors."""
    return {
        **{f"final/{name}": tensor for name, tensor in trained.final.items()},
        **{f"at/{step}/{name}": t for step, tree in trained.at.items() for name, t in tree.items()},
        **{f"curve/{key}": value for key, value in trained.curve.tree().items()},
        **{f"memo/{name}": tensor for name, tensor in trained.memo.items()},
        **{f"optimizer/{key}": tensor for key, tensor in trained.optimizer.items()},
        "train_measure": trained.train_measure,
        "diverged": trained.diverged,
        "steps": trained.steps,
        "seconds": torch.tensor(trained.seconds, dtype=torch.float64),
        "joules": trained.joules,
    }


def unflatten(tree: Tree, mask: Tree, device: torch.device) -> Trained:
    """The Trained that `flatten` took apart, weights on the device and measurements on the CPU.

    `mask` is the ticket's: the file has another only if training has changed it.
    """
    at: dict[int, Tree] = {}
    for key, tensor in below(tree, "at/").items():
        step, name = key.split("/", 1)
        at.setdefault(int(step), {})[name] = tensor.to(device)
    return Trained(
        final={name: tensor.to(device) for name, tensor in below(tree, "final/").items()},
        mask={name: alive.to(device) for name, alive in below(tree, "mask/").items()} or mask,
        optimizer={key: tensor.to(device) for key, tensor in below(tree, "optimizer/").items()},
        at=at,
        curve=Curve.of(below(tree, "curve/")),
        train_measure=tree["train_measure"],
        diverged=tree["diverged"],
        steps=tree["steps"],
        seconds=float(tree["seconds"]),
        joules=tree.get("joules", unmeasured()),  # runs from before energy was measured have none
        memo=below(tree, "memo/"),
    )


def levels_columns(goal: Goal) -> list[str]:
    """Of levels.csv: the goal names what was measured; its further measures come last."""
    measure, moments = goal.measure, ("early_stop", "final")
    own = [f"early_stop_test_{measure}", f"final_test_{measure}", f"final_train_{measure}"]
    further = [f"{moment}_test_{name}" for name in goal.further for moment in moments]
    return [*FOUND, *own, *SPENT, *further]


def curves_columns(goal: Goal) -> list[str]:
    """Of curves.csv, in a curve's own order."""
    return ["role", "draw", "level", "seed", "step", *map(goal.column, measured_keys(goal))]


def measured_keys(goal: Goal) -> list[str]:
    """What a curve holds besides its steps, in the order of curves.csv."""
    return [*OWN[1:], *(f"{split}_{name}" for split in ("val", "test") for name in goal.further)]


def number(value: torch.Tensor) -> float:
    """A float32 in its shortest decimal form that reads back to the same bits."""
    return float(str(value.numpy().astype("float32")))


def round_seconds(seconds: float) -> float:
    return float(f"{seconds:.3f}")


def table(columns: Iterable[str], rows: Iterable[tuple]) -> bytes:
    """CSV text; a NaN is an empty cell."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if cell != cell else cell for cell in row] for row in rows])
    return text.getvalue().encode()


def header(path: Path) -> dict[str, str]:
    """What a file says about itself; nothing if it is damaged: its round will be trained again."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know about where numbers came from; nothing that names the machine or its user."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "versions": {"ltx": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "commit": commit(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """The git commit of the code, with a + if it was changed since; None outside a checkout."""
    here = Path(__file__).parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if not (here.parent / ".git").exists():
            return None
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "ltx") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
