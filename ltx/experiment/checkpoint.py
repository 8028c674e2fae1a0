"""The half-trained state of a round: what a kill does not cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltx.core import sealed
from ltx.core.ticket import Tree
from ltx.errors import Damaged, Interrupted

CHECKPOINT_SECONDS = 60.0
"""A kill costs at most this much training, unless a run says otherwise."""


@dataclass
class Checkpoint:
    """One round's, or one replicate's of it: saved every so often, and when the run is asked to stop.

    It counts only where `place` is what its header says: run, level, role, draw, start, replicates, question.
    """

    path: Path
    place: Mapping[str, Any]
    stop: Callable[[], bool]
    every: float = CHECKPOINT_SECONDS
    root: Path | None = None
    saved: float = field(default_factory=time.monotonic)

    def load(self) -> Tree | None:
        """What was saved last; None if there is nothing, or nothing that belongs here."""
        try:
            found = sealed.read(self.path, self.root)
            sealed.demand_place(self.path, found.header, self._header())
        except (FileNotFoundError, Damaged, sealed.Outdated):
            return None
        return found.tree

    def part(self, r: int) -> Checkpoint:
        """The same for one replicate of what is kept here."""
        return self.of(range(r, r + 1))

    def of(self, rows: range) -> Checkpoint:
        """The same for some replicates of what is kept here."""
        first = self.place.get("replicates", [0])[0]
        mine = [first + rows.start, first + rows.stop]
        path = self.path.with_name(f"state_{mine[0]}_{mine[1]}.safetensors")
        return Checkpoint(path, {**self.place, "replicates": mine}, self.stop, self.every, self.root)

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.stop() or time.monotonic() - self.saved > self.every

    def save(self, state: Tree) -> None:
        """Keep the state; raises Interrupted if the run was asked to stop."""
        sealed.save(self.path, state, self._header(), self.root)
        self.saved = time.monotonic()
        if self.stop():
            raise Interrupted

    def _header(self) -> dict[str, Any]:
        return {"replicates": None, **self.place, "kind": "checkpoint"}
