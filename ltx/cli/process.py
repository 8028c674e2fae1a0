"""The process around a command: what it takes for granted, how it ends, and what is said on one line then."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NoReturn

import typer

from ltx.cli.commands import app
from ltx.errors import Died, Failed, Interrupted, UserError, plain, shortened

STOPPED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 2, what failed or died 1, a requested stop 130."""
    try:
        prepare()
        try:
            code = app(standalone_mode=False)
        finally:
            sys.stdout.flush()
        if code == STOPPED:  # the parser has caught Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        leave(str(error), 2)
    except BrokenPipeError:  # `| head` has seen enough
        leave("", 1)
    except OSError as error:  # a disk, a folder or a stream that is not as it should be
        name = f" {shortened(str(error.filename))}" if error.filename else ""
        leave(f"{error.strerror or error}{name}", 2)
    except (Failed, Died) as error:
        leave(str(error), 1)
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stop:
        leave(str(stop) or "stopped", STOPPED)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        usage(error)


def prepare() -> None:
    """Make sure of what Python, torch and matplotlib take for granted; raises UserError."""
    # libgomp's threads spin while they wait: 300,000 turns, where another process needs the core. With 3,000 two
    # digits experiments side by side on 2 cores take 45 s instead of minutes, one alone 19 s instead of 17.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # read when torch is loaded
    os.environ["MPLBACKEND"] = "agg"  # figures are files
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working directory is gone; change into another") from None
    if "TORCH_LOGS" in os.environ:
        try:
            import torch  # noqa: F401
        except ValueError:
            raise UserError(
                f"TORCH_LOGS={os.environ['TORCH_LOGS']} is not possible: torch has no such log"
            ) from None


def usage(error: Any) -> NoReturn:
    """What the parser of the command line refused; where nothing was typed at all, the help that it made of that."""
    told = error.format_message()
    if "\n" in told:
        print(told)
        sys.exit(2)
    command = error.ctx.command_path if error.ctx else "ltx"
    leave(f"{told} `{command} --help` says what there is", 2)


def leave(line: str, code: int) -> NoReturn:
    """Say why on one line, and end the process, whose output may have nowhere to go."""
    with suppress(OSError):
        if line:
            print(f"ltx: {plain(' '.join(line.split()))}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at its end, and fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
