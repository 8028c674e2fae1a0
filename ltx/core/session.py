"""What a training is given besides its question: where to count promises, keep its state, and tell of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ltx.core.checks import Checks
from ltx.core.ticket import Round, Tree

Tick = Callable[[int, Tree | None], None]
"""(step, what a Curve holds of it, [R], if it was just measured): called after every step."""


class Checkpoint(Protocol):
    """Where a half-trained round is kept."""

    def load(self) -> Tree | None:
        """What was saved last, if anything."""

    def due(self) -> bool:
        """Whether it is time to save: asked after every step."""

    def save(self, state: Tree) -> None:
        """Keep the state; raises Interrupted if the run was asked to stop."""

    def part(self, r: int) -> Checkpoint:
        """Where one replicate's part is kept, if they are trained one after the other."""


class Never:
    """Keeps nothing: for trainings that are cheap to begin anew."""

    def load(self) -> Tree | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: Tree) -> None:
        """Nothing is kept."""

    def part(self, r: int) -> Never:
        return self


def silent(step: int, measured: Tree | None) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Session:
    """One sitting at one round; by itself it counts promises, keeps nothing and tells nobody."""

    checks: Checks = field(default_factory=Checks)
    checkpoint: Checkpoint = field(default_factory=Never)
    tick: Tick = silent

    def part(self, round: Round, r: int, replicates: int) -> Session:
        """The same for replicate r alone, whose steps are told as a share of the round's."""
        before = r * (round.plan.steps - round.start)

        def tick(step: int, measured: Tree | None) -> None:
            self.tick(round.start + (before + step - round.start) // replicates, measured)

        return Session(self.checks, self.checkpoint.part(r), tick)
