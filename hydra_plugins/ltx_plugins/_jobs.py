"""What the launchers share: a job that died without a word, and what to do with a cluster's jobs on Ctrl-C."""

import sys
from collections.abc import Sequence
from enum import Enum

from hydra.core.utils import JobReturn, JobStatus

from ltx.errors import Died


class Wish(Enum):
    """What becomes of a cluster's jobs on Ctrl-C."""

    ask = "ask"
    cancel = "cancel"
    leave = "leave"


def dead(overrides: Sequence[str], why: Died) -> JobReturn:
    """The return of a job that could not give one."""
    return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=why)


def cancelling(jobs: int, wish: Wish, *, otherwise: str, unasked: bool) -> bool:
    """Whether Ctrl-C is to cancel a cluster's jobs: as wished, else as answered; `unasked` without a terminal."""
    if wish is not Wish.ask:
        return wish is Wish.cancel
    if not sys.stdin or not sys.stdin.isatty():
        return unasked
    try:
        answer = input(f"\ncancel the {jobs} jobs that are queued or running? n: {otherwise} [y/N] ")
    except (EOFError, KeyboardInterrupt):
        return unasked
    return answer.strip().lower() in ("y", "yes")
