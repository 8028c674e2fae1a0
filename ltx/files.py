"""Files that a reader or a crash never sees half written, and that a stranger may have written."""

from __future__ import annotations

import csv
import json
import math
import os
import secrets
import stat
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ltx.errors import Damaged, UserError

MEGABYTE = 1 << 20
LARGEST = 1024 * MEGABYTE
"""Of a table. One that is larger is no table of ours."""
NODES = 100_000
"""Values in a YAML file, each alias counted as all that it stands for."""
DEEPEST = 64
"""Lists and mappings within each other, in JSON and YAML."""
VANISHED = 3
"""How often a file is written again whose temporary copy another process has tidied away."""

YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, ten times faster where libyaml is there


# -- writing --------------------------------------------------------------------------------------------------


def write(path: Path, content: bytes, root: Path | None = None) -> None:
    """Replace a file in one move, so that a reader or a crash sees the old content or the new; raises UserError.

    Nothing is written through a link: neither the file itself nor a folder below `root` may be one.
    """
    try:
        make_folder(path.parent, root)
        for attempt in range(VANISHED):
            try:
                return _replace(path, content)
            except FileNotFoundError:
                if attempt == VANISHED - 1:
                    raise
    except OSError as error:
        raise unwritable(path, error) from error


def append(path: Path, content: bytes, root: Path | None = None) -> None:
    """Add to the end of a file, or begin it; a crash may leave the last line cut short. Raises UserError."""
    try:
        make_folder(path.parent, root)
        with open_to_append(path) as file:
            file.write(content)
    except OSError as error:
        raise unwritable(path, error) from error


def open_to_append(path: Path) -> BinaryIO:
    """A file to add to, made if there is none; raises OSError for anything but a regular file."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    file = os.fdopen(handle, "ab")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError(0, "it is not a regular file")
    return file


def make_folder(folder: Path, root: Path | None = None) -> None:
    """Make a folder and those above it; raises OSError if one below `root` is a link or a file."""
    for part in below(folder, root or folder):
        if part.is_symlink():
            raise OSError(0, f"{part} is a link")
    folder.mkdir(parents=True, exist_ok=True)


def below(path: Path, root: Path) -> list[Path]:
    """`path` and the folders between it and `root`, outermost first, without `root`."""
    return [
        root.joinpath(*path.relative_to(root).parts[: n + 1])
        for n in range(len(path.relative_to(root).parts))
    ]


def unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path}: {error.strerror}; everything finished before is kept, "
        "and the same command continues from there"
    )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    # A name that cannot be guessed, of a file that did not exist: no link laid in advance is followed.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):  # where not even that can be asked, nothing was written
            temporary.unlink()
        raise


def left_over(folder: Path) -> list[Path]:
    """The temporary copies that writers which were killed have left in a folder and below it."""
    found = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return [file for file in found if file.name.startswith(".") and file.name.endswith(".tmp")]


# -- reading --------------------------------------------------------------------------------------------------


def read_bytes(path: Path, limit: int = LARGEST, root: Path | None = None) -> bytes:
    """The content of a regular file; FileNotFoundError if there is none.

    Raises Damaged for a link, a folder, a pipe or a device, for more than `limit` bytes, and where a folder below
    `root` is a link.
    """
    with _opened(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise Damaged(path, f"it has more than {limit >> 20} MB")
        return file.read(size)


def read_start(path: Path, limit: int, root: Path | None = None) -> bytes:
    """The first bytes of a regular file, `limit` at most; raises as `read_bytes`."""
    with _opened(path, root) as file:
        return file.read(min(limit, os.fstat(file.fileno()).st_size))


def _opened(path: Path, root: Path | None) -> BinaryIO:
    if root and any(part.is_symlink() for part in below(path.parent, root)):
        raise Damaged(path, "a folder on the way to it is a link")
    try:
        # Not to wait for the other end of a pipe; not to be led to another file.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, "it is a link" if path.is_symlink() else str(error.strerror)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Damaged(path, "it is not a regular file")
    return os.fdopen(handle, "rb")


def read_text(path: Path, limit: int = MEGABYTE, root: Path | None = None) -> str:
    """The content of a UTF-8 file; FileNotFoundError if there is none, Damaged as `read_bytes`."""
    try:
        return read_bytes(path, limit, root).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(path, f"byte {error.start} is not UTF-8") from error


def read_json(path: Path, form: Any = dict, root: Path | None = None) -> dict[str, Any]:
    """The mapping in a JSON file, in which what `form` names has its type (see `fit`); empty if there is no file.

    Raises Damaged.
    """
    try:
        value: dict[str, Any] = json.loads(read_text(path, 16 * MEGABYTE, root), parse_constant=_no_constant)
        fit(value, form)
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise Damaged(path, "its lists lie too deep within each other") from error
    except ValueError as error:
        raise Damaged(path, str(error)) from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def fit(value: Any, form: Any, name: str = "") -> None:
    """Raise ValueError unless a value read from a file has a form.

    A form is a type (int: below 2^63; float: finite, whole numbers too), a list of one form, a mapping of the names
    that are known to forms (any may be missing, others are free), `{str: form}` for free names, or a tuple of
    forms to choose from; None is itself.
    """
    where = name or "it"
    if isinstance(form, tuple):
        if not any(fits(value, choice) for choice in form):
            raise ValueError(f"{where} is not what it should be")
    elif isinstance(form, list):
        _demand(isinstance(value, list), where, "a list")
        for n, part in enumerate(value):
            fit(part, form[0], f"{name}[{n}]")
    elif isinstance(form, dict):
        _demand(isinstance(value, dict), where, "a mapping")
        for key, part in value.items():
            if (known := form.get(str, form.get(key, _FREE))) is not _FREE:
                fit(part, known, f"{name}.{key}".lstrip("."))
    elif form is None:
        _demand(value is None, where, "null")
    elif form is bool:
        _demand(isinstance(value, bool), where, "true or false")
    elif form is int:
        _demand(type(value) is int and abs(value) < 2**63, where, "a whole number")
    elif form is float:
        _demand(
            type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value), where, "a number"
        )
    else:
        _demand(isinstance(value, form), where, {dict: "a mapping", list: "a list", str: "text"}[form])


_FREE = object()


def fits(value: Any, form: Any) -> bool:
    """Whether a value has a form."""
    try:
        fit(value, form)
    except ValueError:
        return False
    return True


def _demand(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise ValueError(f"{where} is not {what}")


def read_yaml(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The mapping of plain values in a YAML file; empty if there is no file. Raises Damaged."""
    try:
        text = read_text(path, MEGABYTE, root)
        bounded_yaml(text)
        value: dict[str, Any] = yaml.load(text, YAML)
        fit(value, dict)
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise Damaged(path, " ".join(str(error).split())) from error
    return value


def bounded_yaml(text: str, largest: int = NODES) -> None:
    """Raise ValueError if a YAML text, read, would be very deep, very large, or hold itself (by aliases)."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # anchor of each collection being read, and where it began
    nodes = 0
    for event in yaml.parse(text, YAML):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, began = open_.pop()
            if anchor:
                sizes[anchor] = nodes - began
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} holds itself")
            nodes += sizes[event.anchor]
        if nodes > largest:
            raise ValueError(f"it has more than {largest:,} values")
        if len(open_) > DEEPEST:
            raise ValueError("its lists lie too deep within each other")


def read_csv(path: Path, root: Path | None = None) -> list[dict[str, str]]:
    """The rows of a table by column, without a last line that was cut short; none if there is no file.

    Raises Damaged.
    """
    try:
        text = read_text(path, LARGEST, root)
        rows = list(csv.reader(StringIO(text[: text.rfind("\n") + 1])))
    except FileNotFoundError:
        return []
    except csv.Error as error:
        raise Damaged(path, str(error)) from error
    columns = rows[0] if rows else []
    if any(len(row) != len(columns) for row in rows):
        raise Damaged(path, "not every row has as many cells as there are columns")
    return [dict(zip(columns, row, strict=True)) for row in rows[1:]]
