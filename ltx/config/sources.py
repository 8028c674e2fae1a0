"""What is not ltx's own and decides a result, by its content: foreign code, files. A changed network is another."""

from __future__ import annotations

import ast
import hashlib
import inspect
import marshal
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from ltx.errors import UserError
from ltx.files import read_bytes
from ltx.knobs import FILE, IMPORTED, Knobs
from ltx.plugins import load_path

INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages, each of which is a house of its own."""


def sources(knobs: Knobs) -> dict[str, str]:
    """SHA-256 of each foreign piece of code and file that knobs choose, with an installed package's version."""
    found: dict[str, str] = {}
    for one in within(knobs):
        kind = type(one)
        if kind.__module__.partition(".")[0] != "ltx":
            found[f"{kind.__module__}:{kind.__qualname__}"] = digest(kind)
        for field in fields(one):
            if field.metadata.get("rule") is IMPORTED and (path := getattr(one, field.name)):
                found[path] = digest(load_path(one.prefix + field.name, path))
            if field.metadata.get("rule") is FILE and (path := getattr(one, field.name)):
                found[one.prefix + field.name] = of_content(one.prefix + field.name, path)
    return found


def of_content(key: str, path: str) -> str:
    """SHA-256 of a file; raises UserError if it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(Path(path).expanduser().resolve(), limit=1 << 36)).hexdigest()
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror or error}") from error


def within(knobs: Knobs) -> Iterator[Knobs]:
    """Knobs, and those that they hold."""
    yield knobs
    for field in fields(knobs):
        if isinstance(value := getattr(knobs, field.name), Knobs):
            yield from within(value)


_digests: dict[str, tuple[ModuleSpec | None, str]] = {}
"""By module, as it was when the module was loaded: a file may be edited while its old self is in use."""


def digest(thing: Any) -> str:
    """SHA-256 of the files that a class or function is made from, and of its package's version."""
    module = sys.modules[thing.__module__]
    loaded = module.__spec__
    if module.__name__ == "__main__":
        return hashlib.sha256(text(thing)).hexdigest()
    if module.__name__ not in _digests or _digests[module.__name__][0] is not loaded:
        _digests[module.__name__] = loaded, of_files(module.__name__, loaded)
    return _digests[module.__name__][1]


def text(thing: Any) -> bytes:
    """The source of what was defined in a notebook or at a prompt; its code where no source was kept."""
    try:
        return inspect.getsource(thing).encode()
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None)
        return marshal.dumps(code) if code else repr(thing).encode()


def of_files(name: str, spec: ModuleSpec | None) -> str:
    """SHA-256 of a module's file and of all that it imports from beside it, and of its package's version."""
    whole = hashlib.sha256(version(name).encode())
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        depth = name.count(".") + (origin.stem == "__init__")
        root, house = origin.parents[depth], name.partition(".")[0]
        found: dict[str, Path] = {name: origin}
        follow(name, origin, root, house if root.name in INSTALLED else "", found)
        for module, file in sorted(found.items()):
            whole.update(f"{module}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def version(name: str) -> str:
    """Name and version of the installed package that offers something from a module; else nothing."""
    house = name.partition(".")[0]
    groups = ("ltx.models", "ltx.datasets", "ltx.methods", "ltx.goals")
    offers = (entry for group in groups for entry in metadata.entry_points(group=group))
    packages = {entry.dist for entry in offers if entry.value.partition(":")[0].split(".")[0] == house}
    return " ".join(sorted(f"{package.name} {package.version}" for package in packages if package))


def follow(name: str, file: Path, root: Path, house: str, found: dict[str, Path]) -> None:
    """Add the files below `root` that a module imports, and theirs; those of its `house` alone if it has one."""
    if file.suffix != ".py":
        return
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    for imported in imports(file, package):
        parts = imported.split(".")
        for end in range(1, len(parts) + 1):  # the packages on the way are run too
            module = ".".join(parts[:end])
            there = root.joinpath(*parts[:end])
            beside = next((f for f in (there.with_suffix(".py"), there / "__init__.py") if f.is_file()), None)
            if beside and module not in found and (not house or parts[0] == house):
                found[module] = beside
                follow(module, beside, root, house, found)


def imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names that a file imports; of `from a import b` both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
