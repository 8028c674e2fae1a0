"""Runs grow: asking for more of a run trains what is missing, asking for less takes it as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ltx.config.run import Run
from ltx.core import sealed
from ltx.core.ticket import Round
from ltx.errors import Damaged, UserError
from ltx.files import fits
from ltx.pruning.controls import CONTROLS

FORM = {"tag": str, "role": str, "draw": int, "level": int, "of": [float]}
SEARCH = "search"
"""The role of a training that only finds tickets: whatever is asked needs it."""


@dataclass(frozen=True)
class Growth:
    """What was asked of a run, and the whole of it: that and all that is there already."""

    asked: Run
    whole: Run

    @classmethod
    def of(cls, asked: Run, there: list[sealed.Header]) -> Growth:
        """From what the tickets of a run's folder say of themselves."""
        tickets = [said for said in there if said["role"] not in (*CONTROLS, SEARCH)]
        levels = [said["level"] for said in tickets]
        answered = [value for said in tickets for value in said["of"]]
        changes = {knob.name: more(knob, asked.method, levels, answered) for knob in growing(asked.method)}
        roles = [said["role"] for said in there]
        draws = [said["draw"] + 1 for said in there if said["role"] in CONTROLS]
        whole = replace(
            asked,
            method=replace(asked.method, **changes),
            controls=[*asked.controls, *(c for c in CONTROLS if c in roles and c not in asked.controls)],
            control_draws=max([asked.control_draws, *draws]),
        )
        return cls(asked, whole)

    def wants(self, round: Round) -> bool:
        """Whether a round was asked for; the others are taken if they are there, and never trained."""
        control = round.role in CONTROLS
        if control and (round.role not in self.asked.controls or round.draw >= self.asked.control_draws):
            return False
        values = [getattr(self.asked.method, knob.name) for knob in growing(self.asked.method)]
        return round.role == SEARCH or all(
            round.level <= value if isinstance(value, int) else set(round.of) <= set(value)
            for value in values
        )

    @property
    def kept(self) -> list[str]:
        """What is there although it was not asked for, as it would be typed."""
        pairs = [("method.", self.asked.method, self.whole.method), ("", self.asked, self.whole)]
        return [
            f"{prefix}{knob.name}={getattr(whole, knob.name)}".replace("'", "").replace(" ", "")
            for prefix, asked, whole in pairs
            for knob in growing(asked)
            if getattr(whole, knob.name) != getattr(asked, knob.name)
        ]


def growing(knobs: Any) -> list[Field[Any]]:
    """The knobs of which more may be asked later."""
    return [knob for knob in fields(knobs) if knob.metadata.get("grows")]


def more(knob: Field[Any], owner: Any, levels: Iterable[int], answered: Iterable[float]) -> Any:
    """A growing knob's value with what is there: the most levels, or all values of a list in their order."""
    value = getattr(owner, knob.name)
    if isinstance(value, int):
        return max([value, *levels])
    if not (extra := set(answered) - set(value)):
        return value
    rising = sorted({*value, *extra})
    try:
        knob.metadata["rule"].check(knob.name, rising)
    except UserError:
        return rising[::-1]
    return rising


def there(folder: Path, tag: str) -> list[sealed.Header]:
    """What the tickets in a run's folder say of themselves; those of other runs and damaged ones left out."""
    found = []
    for file in [*folder.glob("level_*/*/ticket.safetensors"), *folder.glob(".aside/*/ticket.safetensors")]:
        try:
            said = sealed.read_header(file, folder)
        except (FileNotFoundError, Damaged, sealed.Outdated):
            continue
        known = fits(said, FORM) and FORM.keys() <= said.keys() and said["tag"] == tag
        if known and file.with_name("trained.safetensors").is_file():
            found.append(said)
    return found
