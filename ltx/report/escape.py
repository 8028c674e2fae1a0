"""Names are text: what a format would obey in them is neutralised where they are written."""

import re
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from pathlib import Path

from ltx.errors import plain

LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": r"{[}",  # not the option of a command before it
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
}
MARKUP = re.compile(r"[\\|*\[~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # `channel_oneshot` is read as it is
STRANGE = re.compile(r"[^\w. +=,@%()\[\]-]|^[.\s]+|[.\s]+$")
LONGEST = 100
"""Signs of a file's name: it has company, and no system takes more than 255 bytes."""


def markdown(text: object) -> str:
    """A name in a page or a cell of markdown: no table, link, emphasis or HTML comes of it."""
    return MARKUP.sub(lambda sign: f"\\{sign[0]}", escape(plain(str(text)), quote=False))


def latex(text: object) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in plain(str(text)))


def html(text: object) -> str:
    """Text in an HTML page, between tags or in an attribute."""
    return escape(plain(str(text)))


def cell(value: object) -> object:
    """A cell of a csv file: text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def places(names: Iterable[str]) -> dict[str, Path]:
    """A relative folder for each name, `a/x` below `a`: none above its parent, none too long, no two the same."""
    found: dict[str, Path] = {}
    for name in names:
        place = Path(*(part(word) for word in name.split("/")))
        taken = {str(path).casefold() for path in found.values()}
        found[name] = place if str(place).casefold() not in taken else place.with_name(part(place.name, name))
    return found


def part(word: str, name: str = "") -> str:
    """One part of a path; of a word that has to change, with a digest of what it was."""
    kept = STRANGE.sub("_", plain(word))[:LONGEST] or "_"
    return kept if kept == word and not name else f"{kept}-{sha256((name or word).encode()).hexdigest()[:8]}"
