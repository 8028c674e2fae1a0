"""What the launchers share: a job that died without a word, and what to do with a cluster's jobs on Ctrl-C."""

import sys
from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus

from ltx.errors import Died


def dead(overrides: Sequence[str], why: Died) -> JobReturn:
    """The return of a job that could not give one."""
    return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=why)


def cancelling(jobs: int, wish: str, *, otherwise: str) -> bool:
    """Whether Ctrl-C is to cancel a cluster's jobs: as wished, or as answered on a terminal."""
    if wish != "ask":
        return wish == "cancel"
    if not sys.stdin or not sys.stdin.isatty():
        return False
    try:
        answer = input(f"\ncancel the {jobs} jobs that are queued or running? n: {otherwise} [y/N] ")
    except (EOFError, KeyboardInterrupt):
        return False
    return answer.strip().lower() in ("y", "yes")
