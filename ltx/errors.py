"""What can go wrong that is not a bug."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LINE = 160
"""Characters of somebody else's text that still make a readable line."""
MANY = 40
"""Names that still make a readable line."""


class UserError(Exception):
    """A mistake that the person at the keyboard can mend: shown as one line, exit code 2."""


class Busy(UserError):
    """Another process holds the run's folder."""


class Damaged(UserError):
    """A file is not what its name promises: cut, edited, of another kind or too large to be believed."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")


class Failed(Exception):
    """Jobs of a sweep failed; the others ran to their end. Exit code 1."""


class Died(Exception):
    """Another process of ours ended without a word; `log` is where its last ones may be."""

    def __init__(self, why: str, log: str | None = None) -> None:
        super().__init__(why)
        self.log = log


class NothingLeft(Exception):
    """A search has pruned all that can be pruned: the end of a run, told in a sentence."""


class InvariantError(RuntimeError):
    """A promise about tickets was broken while running; the run stops rather than publish a wrong number."""


class Interrupted(Exception):
    """Training was asked to stop and has saved where it was."""


def demand(condition: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value that a user typed, in one line."""
    if not condition:
        raise UserError(f"{key}={shortened(str(value))} is not possible: {allowed}")


def plain(text: str) -> str:
    """A text whose unseen characters, which could steer a terminal, are written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """A text that fits on a line, unseen characters written out."""
    text = plain(text[: 2 * LINE])
    return text if len(text) <= LINE else f"{text[: LINE // 2]}..."


def unknown(key: str, value: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist: the nearest that do, and all of them if they are not many."""
    near = get_close_matches(value, names := list(allowed), cutoff=0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    hints += [f"choose from {', '.join(names)}"] if len(names) <= MANY or not near else []
    return UserError(f"{key}={shortened(value)} does not exist; {' '.join(hints)}")
