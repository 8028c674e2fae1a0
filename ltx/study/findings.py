"""What was found of a run's promises: how often each held, what was broken, what could not be checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltx.errors import UserError


@dataclass
class Findings:
    """What was checked of a run, how often, what was broken, and what could not be checked."""

    run: Path
    held: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def hold(self, promise: str, kept: bool, file: Path, found: str, right: str) -> None:
        """Count a promise, or say in full what broke it."""
        if kept:
            self.held[promise] += 1
        else:
            self.broken.append(f"{promise}: {file}: {found}; {right}")

    def lines(self) -> Iterator[str]:
        """A line a promise, the first broken one in full, and what was not checked."""
        yield f"{self.run}"
        yield from (f"  {count:6d} × {promise}" for promise, count in self.held.items())
        yield from (f"  not checked: {what}" for what in self.unchecked)
        if self.broken:
            more = f" (and {len(self.broken) - 1} more)" if len(self.broken) > 1 else ""
            yield f"  BROKEN: {self.broken[0]}{more}"
        else:
            yield "  all promises hold"

    def told(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "run": str(self.run),
            "held": dict(self.held),
            "broken": self.broken,
            "unchecked": self.unchecked,
        }


class held:
    """Counts a promise when its block ends, and notes what broke it."""

    def __init__(self, found: Findings, promise: str, path: Path) -> None:
        self.found, self.promise, self.path = found, promise, path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if error is None:
            self.found.held[self.promise] += 1
            return False
        if isinstance(
            error, UserError | KeyError | ValueError | FileNotFoundError | AttributeError | TypeError
        ):
            self.found.broken.append(f"{self.promise}: {error or self.path}")
            return True
        return False


def report(findings: list[Findings], *, as_json: bool) -> str:
    """What was found, for people or for a program."""
    if as_json:
        return json.dumps([found.told() for found in findings], indent=1)
    return "\n".join(line for found in findings for line in found.lines())
