"""The goals by name: a new one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ltx.core.goal import Choice, Classification, Goal, Regression
from ltx.data.base import Data
from ltx.errors import UserError, demand
from ltx.knobs import IMPORTED, knob
from ltx.plugins import load_path, told


@dataclass(frozen=True)
class Auto(Choice):
    """Whatever the data set is for."""

    summary: ClassVar[str] = "what the data set is for"

    def of(self, kind: str) -> Goal:
        chosen = GOALS[kind]()
        assert isinstance(chosen, Goal), "data are for a goal, not for another choice"
        return chosen


@dataclass(frozen=True)
class Custom(Choice):
    """A class of the user's own."""

    summary: ClassVar[str] = "your own goal: goal.path=package.module:Class"

    path: str = knob("", IMPORTED, "package.module:Class, found from the working directory too")

    def of(self, kind: str) -> Goal:
        found = load_path("goal.path", self.path)
        if not (isinstance(found, type) and issubclass(found, Goal)):
            raise UserError(f"goal.path={self.path} must be a subclass of ltx.core.goal.Goal")
        try:
            return found()
        except TypeError as error:  # such as an abstract class without a loss
            raise UserError(f"goal.path={self.path} is not complete: {told(error)}") from error


GOALS: Mapping[str, type[Choice]] = {
    "auto": Auto,
    "classification": Classification,
    "regression": Regression,
    "custom": Custom,
}


def named(goal: Goal) -> str:
    """What a goal is called where people read it."""
    return next((name for name, kind in GOALS.items() if kind is type(goal)), type(goal).__name__)


def demand_takes(goal: Goal, kind: str, of: str) -> None:
    """Refuse a goal for data whose targets are of another kind; raises UserError naming the goal that takes them."""
    own = GOALS[kind]().of(kind)
    what = f"the targets of dataset={of} are {own.takes}: choose goal={kind}"
    demand(goal.takes == own.takes, "goal", named(goal), what)


def demand_works(goal: Goal, data: Data) -> None:
    """Try a goal on two examples; raises UserError."""
    name, outputs, targets = named(goal), torch.zeros(1, 2, data.outputs), data.val.targets[:2].cpu()[None]
    outputs = outputs[:, : targets.shape[1]]
    try:
        shape = list(goal.loss(outputs, targets).shape)
        one = f"its loss has the shape {shape} where one for each example belongs, {list(outputs.shape[:2])}"
        demand(shape == list(outputs.shape[:2]), "goal", name, one)
        missing = {"loss", goal.measure, *goal.further} - set(goal.measures(goal.tally(outputs, targets), 2))
        demand(not missing, "goal", name, f"its measures lack {', '.join(sorted(missing))}")
    except UserError:
        raise
    except Exception as error:  # whatever a goal of the user's own raises
        raise UserError(f"goal={name} does not work on these data: {told(error)}") from error
