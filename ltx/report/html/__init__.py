"""One HTML file of runs: what was asked, the answer, charts, tables, checks, and how to repeat it; no network."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ltx.errors import plain
from ltx.files import read_json
from ltx.files import write as replace
from ltx.manifest import enter
from ltx.report.comparison import Comparison, Page, compare
from ltx.report.grade import Verdict, compared, grade
from ltx.report.html.answer import sentences
from ltx.report.html.chart import charts
from ltx.report.pages import PARTS, sections
from ltx.report.runs import Run, mapping
from ltx.schema import MANIFEST

FILE = "report.html"
MACHINE = ("device", "threads", "versions", "commit", "started", "finished", "seconds")
"""What of a manifest says where and when a run was made."""


def write(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of the runs at or below `paths`, into the run or their common parent unless `out` is a file.

    UserError if there is nothing to tell of, or the file cannot be written.
    """
    comparison = compare(paths)
    folder = Path(os.path.commonpath([run.path.resolve() for run in comparison.runs]))
    file = out or folder / FILE
    replace(file, page(comparison).encode())
    for run in comparison.runs:
        enter(run.path, [file])
    return file


def page(comparison: Comparison) -> str:
    """The page as text. Whatever comes from a file is escaped by the template."""
    world = Environment(
        loader=PackageLoader("ltx.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=readable,
    )
    return world.get_template("page.html").render(
        title=title(comparison),
        parts=[part(each, comparison.tolerance) for each in comparison.pages],
        runs=[told(run) for run in comparison.runs],
        verdicts=[(verdict, compared(verdict)) for verdict in verdicts(comparison)],
    )


def readable(value: object) -> object:
    """Text without signs that a screen would obey."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def title(comparison: Comparison) -> str:
    """The experiments, or how many there are."""
    names = list(dict.fromkeys(page.name for page in comparison.pages))
    runs = comparison.runs
    shown = [str(runs[0].settings.get("config", runs[0].name))] if names == ["comparison"] else names
    return ", ".join(shown) if len(shown) <= 3 else f"{len(shown)} experiments"


def part(page: Page, tolerance: float) -> Mapping[str, Any]:
    """What the template shows of one config."""
    return {
        "name": page.name,
        "asked": list(asked(page)),
        "answer": sentences(page, tolerance),
        "charts": charts(page.summary),
        "sections": sections(page, PARTS, tolerance),
    }


def asked(page: Page) -> Iterator[tuple[str, str]]:
    """What was compared: the values that the experiments have of each of these settings."""
    for key in ("method", "model", "dataset"):
        values = dict.fromkeys(e.settings.get(key) or "" for e in page.experiments)
        yield key, ", ".join(filter(None, values)) or "not known"
    seeds = {int(seed) for e in page.experiments for seed in e.levels.seed}
    yield "seeds", ", ".join(map(str, sorted(seeds)))


def told(run: Run) -> Mapping[str, Any]:
    """What a run's files say of itself: status, command, configuration, checks and machine."""
    manifest = mapping(read_json, run.path / "manifest.json", MANIFEST)
    machine = {key: manifest[key] for key in MACHINE if key in manifest}
    versions = machine.get("versions")
    if isinstance(versions, dict):
        machine["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {
        "name": run.name,
        "status": run.status,
        "command": str(manifest.get("command", "")),
        "settings": sorted(run.settings.items()),
        "checks": manifest.get("checks", {}),
        "machine": machine,
    }


def verdicts(comparison: Comparison) -> list[Verdict]:
    """What `ltx grade` says of these runs."""
    return grade([run.path for run in comparison.runs])
