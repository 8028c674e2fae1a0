"""The rounds of a run, each in its own place: atomic, locked, and known by what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ltx.core import sealed
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree, digest
from ltx.errors import Busy, Damaged, UserError
from ltx.experiment.checkpoint import CHECKPOINT_SECONDS, Checkpoint
from ltx.experiment.folders import ASIDE, Index, clear, remove
from ltx.experiment.packing import bits, flatten, identity, layer_table, mask_digest, unflatten
from ltx.files import left_over


class Another(Exception):
    """A sound round of this run, but not the one that was asked for here."""


class Store:
    """The folder of one run, held by one process at a time.

    A round counts in its own place only, and only if its files say that they were made from what is asked: the
    run's tag, role, draw, level, start, seeds, and the question (see `question`).
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        tag: str,
        about: Mapping[str, Any],  # what every ticket's file says of the run besides
        stop: Callable[[], bool] | None = None,
        every: float = CHECKPOINT_SECONDS,  # between two checkpoints within a round
        patience: float = 0.0,  # seconds to wait for another process that holds the folder
    ) -> None:
        self.folder, self.task, self.tag, self.about = folder, task, tag, about
        self.stop, self.every, self.patience = stop or (lambda: False), every, patience
        self.lock = FileLock(folder / ".lock")
        self.damaged: dict[str, str] = {}  # why, by the folder of the round
        self.files: dict[str, str] = {}  # SHA-256 of every sound file, by its path within the folder
        self.commits: dict[str, None] = {}  # that trained the rounds
        self.trained_now = 0
        self._known: list[tuple[Tree, str]] = []  # digests of trees that are asked for again and again
        self.index = Index(folder)

    # -- the folder -------------------------------------------------------------------------------------------

    def __enter__(self) -> Store:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.folder / ".lock"
            if lock.is_dir() and not lock.is_symlink():
                lock.rmdir()
            self.lock.acquire(timeout=self.patience)
            self.inode = lock.stat().st_ino
            for file in left_over(self.folder):
                file.unlink(missing_ok=True)
        except Timeout:
            raise Busy(f"{self.folder} is in use by another ltx process; wait for it or stop it") from None
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder}: {error.strerror}; choose another out=DIR"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def demand_lock(self) -> None:
        """Raise Busy if the lock was deleted and another process may hold the folder."""
        lock = self.folder / ".lock"
        if not lock.exists():  # deleted by hand: whoever makes it anew holds the folder
            self.lock = FileLock(lock)
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                raise Busy(f"{lock} was deleted, and another process has the folder now") from None
            self.inode = lock.stat().st_ino
        elif lock.stat().st_ino != self.inode:
            raise Busy(f"{lock} was deleted, and another process has the folder now; this one writes no more")

    # -- what a round is --------------------------------------------------------------------------------------

    def header(self, round: Round) -> dict[str, Any]:
        """Where a round belongs, and the question that it answers: the same in all its files."""
        return {
            "tag": self.tag,
            "role": round.role,
            "draw": round.draw,
            "level": round.level,
            "start": list(round.starts) or round.start,
            "seeds": list(self.task.seeds),
            "ticket": identity(self.digest(round.ticket.weights), round.ticket.mask),
            "question": self.question(round),
        }

    def question(self, round: Round) -> str:
        """All that decides what comes of a round: two of one question have the same outcome, at any level."""
        asked = {
            "tag": self.tag,
            "role": round.role,
            "draw": round.draw,
            "start": list(round.starts) or round.start,
            "keep": round.keep,
            "of": round.of,
            "patience": round.patience,
            "warm": digest(round.warm),
            "seeds": self.task.seeds,
            "ticket": identity(self.digest(round.ticket.weights), round.ticket.mask),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def digest(self, tree: Tree) -> str:
        """The tree's digest, found once: rewind weights are those of every level."""
        for known, sha in self._known:
            if known is tree:
                return sha
        self._known = [(tree, digest(tree)), *self._known[:3]]
        return self._known[0][1]

    def place(self, round: Round) -> Path:
        return self.folder / f"level_{round.level:02d}" / round.name

    # -- loading ----------------------------------------------------------------------------------------------

    def load(self, round: Round) -> Trained | None:
        """The outcome of a round that was trained before from the same question; None if it must be trained."""
        place = self.place(round)
        try:
            trained = self._read(place, round)
        except FileNotFoundError as missing:
            if any((place / file).exists() for file in ("ticket.safetensors", "trained.safetensors")):
                self.damaged.setdefault(self._name(place), f"{missing.filename} is missing")
        except Damaged as error:
            self.damaged.setdefault(self._name(place), str(error))
        except Another:
            self.index.set_aside(place)
        else:
            remove(place / "progress")
            return trained
        return self._found_elsewhere(round)

    def _read(self, place: Path, round: Round) -> Trained:
        """The round in a place; raises FileNotFoundError, Damaged, Another or Outdated."""
        ticket, trained = (
            sealed.read(place / f"{kind}.safetensors", self.folder) for kind in ("ticket", "trained")
        )
        mine = self.header(round)
        varying = ("question", "ticket")
        fixed = {key: value for key, value in mine.items() if key not in varying}
        for kind, file in {"ticket": ticket, "trained": trained}.items():
            sealed.demand_place(place / f"{kind}.safetensors", file.header, {**fixed, "kind": kind})
        of_one = {key: ticket.header.get(key) for key in varying}
        sealed.demand_place(place / "trained.safetensors", trained.header, of_one)
        if ticket.header["question"] != mine["question"]:
            raise Another
        if digest(ticket.tree) != mask_digest(round.ticket.mask):
            raise Damaged(place / "ticket.safetensors", "its mask is another than its header says")
        self.keep(round.ticket.weights)
        outcome = self._unflatten(place / "trained.safetensors", trained, round)
        for kind, file in {"ticket": ticket, "trained": trained}.items():
            self.files[f"{self._name(place)}/{kind}.safetensors"] = file.sha256
        if commit := trained.header.get("commit"):
            self.commits[commit] = None
        return outcome

    def _unflatten(self, path: Path, file: sealed.Sealed, round: Round) -> Trained:
        try:
            at = {int(step): self.kept(sha) for step, sha in file.header["at"].items()}
            trained = unflatten(file.tree, at, round.ticket.mask, self.task.device)
            trained = replace(trained, engine=str(file.header["engine"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(path, f"it lacks {error}") from error
        shapes = {name: tensor.shape for name, tensor in round.ticket.weights.items()}
        if {name: tensor.shape for name, tensor in trained.final.items()} != shapes:
            raise Damaged(path, "its weights are of another network")
        return trained

    def _found_elsewhere(self, round: Round) -> Trained | None:
        """The same question's outcome from another level's place, moved to its own."""
        for place in self.index.places(self.question(round)):
            try:
                level = sealed.read_header(place / "trained.safetensors", self.folder)["level"]
                trained = self._read(place, replace(round, level=level))
            except (FileNotFoundError, Damaged, Another, sealed.Outdated, KeyError):
                continue
            self._write(round, trained)
            self.damaged.pop(self._name(self.place(round)), None)
            return trained
        return None

    # -- saving -----------------------------------------------------------------------------------------------

    def save(self, round: Round, trained: Trained) -> None:
        """Keep a round that was trained just now."""
        if commit := self.about.get("commit"):
            self.commits[commit] = None
        self._write(round, trained)
        self.trained_now += 1

    def _write(self, round: Round, trained: Trained) -> None:
        self.demand_lock()
        place, header = self.place(round), self.header(round)
        clear(place, self.folder)
        at = {str(step): self.keep(tree) for step, tree in trained.at.items()}
        trainer = {
            "engine": trained.engine,
            "commit": self.about.get("commit"),
            "threads": self.about.get("threads"),
        }
        mine = {
            **self.about,
            "weights": self.keep(round.ticket.weights),
            "layers": layer_table(self.task, round.ticket),
            "density": self.task.density(round.ticket).tolist(),
            "of": list(round.of),
        }
        self._save(place / "ticket.safetensors", bits(round.ticket.mask), mine | header | {"kind": "ticket"})
        self._save(
            place / "trained.safetensors",
            flatten(trained, round.ticket.mask),
            {**trainer, **header, "kind": "trained", "at": at},
        )
        remove(place / "progress")

    def _save(self, path: Path, tree: Tree, header: Mapping[str, Any]) -> None:
        clear(path, self.folder)
        if path.is_dir():
            remove(path)
        self.files[self._name(path)] = sealed.save(path, tree, header, self.folder)

    def checkpoint(self, round: Round) -> Checkpoint:
        """Where the round is kept while it is half trained."""
        folder = self.place(round) / "progress"
        clear(folder, self.folder)
        return Checkpoint(
            folder / "state.safetensors", self.header(round), self.stop, self.every, self.folder
        )

    # -- weights, each set once -------------------------------------------------------------------------------

    def keep(self, weights: Tree) -> str:
        """Keep weights under their digest, once for all rounds that begin with them or pass through them."""
        sha = self.digest(weights)
        path = self.folder / "weights" / f"{sha}.safetensors"
        if self._name(path) not in self.files:
            try:
                self.kept(sha)
            except FileNotFoundError:
                self._save(path, weights, {"kind": "weights", "tag": self.tag, "weights": sha})
            except Damaged as error:
                self.damaged.setdefault(self._name(path), str(error))
                self._save(path, weights, {"kind": "weights", "tag": self.tag, "weights": sha})
        return sha

    def kept(self, sha: str) -> Tree:
        """Weights by their digest; raises FileNotFoundError or Damaged."""
        path = self.folder / "weights" / f"{sha}.safetensors"
        found = sealed.read(path, self.folder)
        sealed.demand_place(path, found.header, {"kind": "weights", "weights": sha})
        if digest(found.tree) != sha:
            raise Damaged(path, "its weights are others than its name says")
        self.files[self._name(path)] = found.sha256
        return {name: tensor.to(self.task.device) for name, tensor in found.tree.items()}

    # -- tidying ----------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Remove what no round of the complete run needs: rounds set aside, weights that nothing begins with."""
        remove(self.folder / ASIDE)
        for file in (self.folder / "weights").glob("*.safetensors"):
            if self._name(file) not in self.files:
                file.unlink()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
