"""A checked experiment, and what it is called: by all that determines its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ltx.config.run import Run
from ltx.config.sources import sources
from ltx.knobs import Knobs

PROTOCOL = 1
"""Raised by hand when the same experiment may give other numbers than before: then every run has another name."""
SHOWN = 12
"""Hexadecimal digits of a name's 64 in a folder; the others are compared when it is opened."""


@dataclass(frozen=True)
class Composed:
    """A checked experiment and its name."""

    run: Run
    name: str  # the experiment: what `config=` chose
    choices: dict[str, str]  # the names of the model, the data set, the goal and the method
    dropped: tuple[str, ...] = ()  # keys that the experiment sets for what another choice has replaced
    words: tuple[str, ...] = ()  # what was typed after `ltx run`

    @property
    def command(self) -> str:
        """What runs it, for a shell."""
        return shlex.join(["ltx", "run", *self.words])

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every key and its value, and the names of what was chosen."""
        tree = asdict(self.run)
        return tree | {group: {"name": name} | tree[group] for group, name in self.choices.items()}

    @cached_property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each foreign piece of code that decides the result, by its name."""
        return sources(self.run)

    def seeded(self, first: int, count: int) -> Composed:
        """The same experiment for other seeds."""
        return replace(self, run=replace(self.run, seed=first, replicates=count))

    def grown(self, run: Run) -> Composed:
        """The same experiment with more levels, densities, controls or draws."""
        return replace(self, run=run)

    def tag(self, fingerprint: str) -> str:
        """SHA-256 of what determines the result: protocol, data, choices, foreign code, what is not as by default."""
        kinds = {group: name.partition(":")[0] for group, name in self.choices.items() if name != "auto"}
        what = {"protocol": PROTOCOL, "data": fingerprint, "sources": self.sources}
        return hashlib.sha256(
            json.dumps(what | kinds | dict(differences(self.run)), sort_keys=True).encode()
        ).hexdigest()

    def folder(self, fingerprint: str) -> Path:
        """Where the run lives: readable, and another for every `tag`."""
        shown = [name for name in self.choices.values() if name != "auto"]
        seeds = f"s{self.run.seed}x{self.run.replicates}"
        name = "-".join([*shown, seeds, self.tag(fingerprint)[:SHOWN]])
        return self.run.folder / self.name / name.replace(":", "-").replace("/", "-")


def differences(knobs: Knobs) -> Iterator[tuple[str, Any]]:
    """The knobs that change a result and are not as by default, by their keys."""
    for one in fields(knobs):
        value = getattr(knobs, one.name)
        if isinstance(value, Knobs) and one.metadata.get("result", True):
            yield from differences(value)
        elif counts(one) and value != default(one):
            yield f"{knobs.prefix}{one.name}", value


def counts(knob: Field[Any]) -> bool:
    """Whether a knob is part of a run's name: it changes a result, and does not only continue it."""
    return knob.metadata.get("result", True) and not knob.metadata.get("grows", False)


def default(knob: Field[Any]) -> Any:
    """A knob's default; MISSING, which equals nothing, where it has none."""
    return knob.default if knob.default_factory is MISSING else knob.default_factory()
