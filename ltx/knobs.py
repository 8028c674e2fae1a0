"""Knobs: a setting is said once, with its default, what it may be, what it means and what it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import inf
from typing import Any, ClassVar

from ltx.errors import demand, unknown


@dataclass(frozen=True)
class Rule:
    """What a value may be, to a computer and in words."""

    words: str
    holds: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        """Raise UserError, naming key, value and what is allowed."""
        demand(self.holds(value), key, value, self.words)


@dataclass(frozen=True)
class Each(Rule):
    """A list, every value of which keeps a rule; the message names the value that does not."""

    rule: Rule

    def check(self, key: str, value: Any) -> None:
        for one in value:
            self.rule.check(key, one)
        super().check(key, list(value))


@dataclass(frozen=True)
class Named(Rule):
    """One of some names; the message has the nearest."""

    names: tuple[str, ...]

    def check(self, key: str, value: Any) -> None:
        if not self.holds(value):
            raise unknown(key, str(value), self.names)


IMPORTED = Rule(
    "write package.module:function", lambda path: re.fullmatch(r"[\w.]+:[\w.]+", path) is not None
)
"""The path of something to import."""
FILE = Rule("write the path of a file", lambda path: bool(path))
"""The path of a file whose content, not its name, is part of the result."""


def above(low: float) -> Rule:
    """A finite number above `low`."""
    what = "positive" if low == 0 else f"above {low}"
    return Rule(f"it must be {what} and finite", lambda value: low < value < inf)


def at_least(low: float) -> Rule:
    """`low` or more, and finite."""
    finite = ", and finite" if isinstance(low, float) else ""
    return Rule(f"it must be {low:g} or more{finite}", lambda value: low <= value < inf)


def between(low: float, high: float) -> Rule:
    """A number between two, neither of them itself."""
    return Rule(f"it must lie between {low} and {high}", lambda value: low < value < high)


def within(low: float, high: float) -> Rule:
    """A number from `low` on, below `high`."""
    return Rule(f"it must lie in [{low}, {high})", lambda value: low <= value < high)


def one_of(names: Iterable[str]) -> Rule:
    """A name among these."""
    names = tuple(names)
    return Named(f"choose from {', '.join(names)}", lambda value: value in names, names)


def each(rule: Rule, *, least: int = 0, falling: bool = False, rising: bool = False) -> Rule:
    """A list of `least` values or more, each by a rule, without repetition if they fall or rise."""

    def holds(values: list[Any]) -> bool:
        pairs = list(pairwise(values))
        return (
            len(values) >= least
            and (not falling or all(a > b for a, b in pairs))
            and (not rising or all(a < b for a, b in pairs))
        )

    order = "they must fall" if falling else "they must rise" if rising else ""
    count = f"give {least} or more" if least else ""
    return Each("; ".join(filter(None, [count, order])), holds, rule)


def knob(
    default: Any, rule: Rule | None = None, meaning: str = "", *, result: bool = True, grows: bool = False
) -> Any:
    """A field of a knobs-dataclass: its default, what it may be (None itself always), and its meaning and unit.

    `default`: a value, or the dataclass of further knobs. `result`: whether it changes what a run computes; if
    not, it is no part of a run's name. `grows`: asking for more of it continues the same run; no part either.
    """
    metadata = {"rule": rule, "meaning": meaning, "result": result, "grows": grows}
    if isinstance(default, list | type):  # dataclasses want these made anew for each instance
        make: Any = default if isinstance(default, type) else lambda: list(default)
        return field(default_factory=make, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Knobs:
    """What a user may turn: a frozen dataclass of knobs, each checked by its own rule when it is made.

    Rules between knobs are a subclass's own __post_init__, after this one. Raises UserError.
    """

    prefix: ClassVar[str] = ""  # what stands before a knob's name in its key

    def __post_init__(self) -> None:
        for one in fields(self):
            rule, value = one.metadata.get("rule"), getattr(self, one.name)
            for part in value if isinstance(value, list) else [value]:
                key, countable = self.prefix + one.name, not isinstance(part, int) or part < 2**63
                demand(countable, key, part, "it must be below 2^63")
                demand(
                    part is value or not isinstance(part, list | dict), key, part, "a list of single values"
                )
            if rule is not None and value is not None:
                rule.check(self.prefix + one.name, value)
