"""Draws README's map of the code from what the modules say of themselves: `python docs/map.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = (
    *("errors.py", "files.py", "knobs.py", "plugins.py", "console.py", "streams.py"),
    *("data", "models", "report", "core", "pruning", "engine", "methods"),
    *("config", "experiment", "sweep", "study", "results.py", "api.py", "cli"),
)
"""From the ground up, as tests/test_architecture.py holds them."""
BLOCK = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- /map -->)", re.DOTALL)


def meaning(path: Path) -> str:
    """The first sentence of a module's docstring."""
    module = path / "__init__.py" if path.is_dir() else path
    told = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(told.split("\n\n")[0].split()).rstrip(".")


def rows() -> list[str]:
    """A line a floor, the highest first, with the files of folders that are read most."""
    lines = []
    for name in reversed(FLOORS):
        path = ROOT / "ltx" / name
        if path.exists():
            lines.append(f"    ltx/{name + '/' * path.is_dir():<16} {meaning(path)}")
    return [*lines, f"    {'hydra_plugins/':<20} {meaning(ROOT / 'hydra_plugins' / 'ltx_plugins')}"]


def drawn(page: str) -> str:
    """README with the map as the code is now."""
    return BLOCK.sub(lambda _: "\n" + "\n".join(rows()) + "\n\n", page)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(drawn(readme.read_text()))
