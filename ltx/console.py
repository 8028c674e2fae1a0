"""The one way to say things: text as it is, on any terminal, pipe or file, also one that is full or has gone."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console as Rich
from rich.text import Text

from ltx.errors import UserError, plain

GONE = 141
"""The exit code of a command whose reader has gone, as in `ltx table | head`: 128 + SIGPIPE, as of any program."""
SIMPLER = {"–": "-", "−": "-", "·": "*", "×": "x", "±": "+-", "≥": ">=", "…": "...", "✓": "x", "─": "-"}
"""What stands for ltx's own signs where a stream cannot hold them; for all others a question mark."""


def simpler(error: UnicodeError) -> tuple[str, int]:
    """An error handler for streams that are not UTF-8: the nearest ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(SIMPLER.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("ltx.simpler", simpler)


class Console(Rich):
    """A stream that people read. What is said for the way (standard error) may be lost with it; results may not."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        if self._file is None:
            stream: Any = self.file
            with suppress(
                AttributeError, ValueError
            ):  # not every stream that stands for these has an encoding
                stream.reconfigure(errors="ltx.simpler")

    def say(self, *lines: object, style: str = "") -> None:
        """Lines as they are: not wrapped, without markup, not coloured by guesswork."""
        for line in lines:
            self.print(Text(plain(str(line)), style), soft_wrap=True, highlight=False)

    def pour(self, text: str) -> None:
        """A whole file's text, its line breaks and all."""
        with self.heard():
            self.file.write(text)
            self.file.flush()

    def print(self, *objects: Any, **how: Any) -> None:
        with self.heard():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        raise

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Where nobody reads any more: a command whose results are for nobody ends, a run without progress goes on.

        Raises SystemExit(GONE) if the reader of results has gone, UserError if they cannot be written.
        """
        try:
            yield
        except OSError as error:
            self.quiet = True
            silence(self.file)
            if self.stderr:
                return
            if isinstance(error, BrokenPipeError):
                raise SystemExit(GONE) from None
            raise UserError(f"cannot write to standard output: {error.strerror}") from None


def silence(stream: Any) -> None:
    """Send what a stream still holds nowhere, so that Python does not fail on it once more at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
