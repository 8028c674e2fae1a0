"""What a method is: a generator that asks for tickets to be trained and is told what became of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from ltx.core.goal import Goal
from ltx.core.recipe import Plan, Recipe
from ltx.core.task import Layers, Task
from ltx.core.ticket import Round, Ticket, Trained
from ltx.data.base import Data
from ltx.knobs import Knobs
from ltx.pruning.controls import LAYERWISE

Search = Generator[Round, Trained, None]
Rows = tuple[list[str], list[tuple[Any, ...]]]
"""The columns of a table, and rows of it."""


@dataclass(frozen=True)
class Method(Knobs, ABC):
    """The knobs of a search for tickets, and the search itself.

    A search must be a function of (its knobs, the seeds, what it is sent): resuming a run drives it again.
    """

    prefix = "method."
    summary: ClassVar[str]
    nested: ClassVar[bool] = True  # whether each level's mask lies within the one before
    controls: ClassVar[tuple[str, ...]] = LAYERWISE  # those that its tickets can be compared with

    @property
    def redraws(self) -> str:
        """The knob, as key=value, that asks for initial weights that are drawn once more; nothing if none does."""
        return ""

    def frozen(self, recipe: Recipe) -> tuple[list[str], str]:
        """Patterns of the layers that no ticket trains, and the key that has them."""
        return recipe.freeze, "recipe.freeze"

    @abstractmethod
    def check(self, layers: Layers, plan: Plan | None) -> None:
        """Raise UserError for what cannot be done; called before any data is loaded.

        `plan` is None where only the data can tell how long an epoch is; then this is called again later.
        """

    def suits(self, goal: Goal, data: Data | None) -> None:
        """Raise UserError where the method means nothing; called before data are loaded, where the data set alone
        says what it is for, and with the data before anything is trained."""

    @abstractmethod
    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        """Yield the rounds to train, one by one."""

    def notes(self, layers: Layers) -> Iterable[str]:
        """What a user must know before training begins, a line each."""
        return ()

    def tables(self, task: Task, round: Round, trained: Trained) -> dict[str, Rows]:
        """What a round tells besides its accuracies, as columns and rows by csv file."""
        return {}
