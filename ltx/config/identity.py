"""A checked experiment, and what it is called: by all that determines its result, and nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ltx.config.run import Run

NOT_IN_THE_RESULT = (
    *("out", "device", "checkpoint_seconds", "dataset.root", "dataset.workers"),
    *("objective", "tracker"),
)
"""Keys that say where a run happens and who is told, not what comes out: data count by their fingerprint."""


@dataclass(frozen=True)
class Composed:
    """A checked experiment and its name."""

    run: Run
    name: str  # the experiment: what `config=` chose
    choices: dict[str, str]  # the names of the model, the data set and the method
    dropped: tuple[str, ...] = ()  # keys that the experiment sets for what another choice has replaced

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every key and its value, and the names of what was chosen."""
        tree = asdict(self.run)
        return tree | {group: {"name": name} | tree[group] for group, name in self.choices.items()}

    def seeded(self, first: int, count: int) -> Composed:
        """The same experiment for other seeds."""
        return replace(self, run=replace(self.run, seed=first, replicates=count))

    def folder(self, fingerprint: str) -> Path:
        """Where the run lives: readable, and another for every configuration or data that change the result."""
        what = {"data": fingerprint, **copy.deepcopy(self.config)}
        for key in NOT_IN_THE_RESULT:
            group, _, name = key.rpartition(".")
            (what[group] if group else what).pop(name, None)
        tag = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
        seeds = f"s{self.run.seed}x{self.run.replicates}"
        return (
            Path(self.run.out) / self.name / "-".join([*self.choices.values(), seeds, tag]).replace(":", "-")
        )
