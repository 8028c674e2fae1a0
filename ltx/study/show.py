"""What exists, and what a run is: for `ltx list` and `ltx show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltx.console import Console
from ltx.errors import Damaged, UserError
from ltx.experiment.status import FILE, state
from ltx.files import read_json, read_text
from ltx.schema import MANIFEST
from ltx.sweep.watch import detail


def catalogue() -> None:
    """Everything that can be named on the command line, one line each."""
    from ltx.config.registry import GROUPS, config_dir, experiments
    from ltx.pruning.controls import CONTROLS

    console = Console()

    def section(title: str, lines: dict[str, str]) -> None:
        console.say(title, style="bold")
        for name, text in lines.items():
            console.say(f"  {name:26s} {text}")

    section(
        "experiments (config=NAME)",
        {name: claim(Path(config_dir(), "config", f"{name}.yaml")) for name in experiments()},
    )
    for group, members in GROUPS.items():
        section(f"{group}s ({group}=NAME)", {name: kind.summary for name, kind in members.items()})
    section(
        "controls (controls=[NAME, ...])",
        {name: (function.__doc__ or "").splitlines()[0] for name, function in CONTROLS.items()},
    )


def claim(path: Path) -> str:
    """The comment that opens an experiment's file: which figure or table it makes."""
    comments = [line[2:] for line in read_text(path).splitlines() if line.startswith("# ")]
    return next((line for line in comments if not line.startswith("@package")), "")


def ticket(path: Path) -> None:
    """One screen about a ticket's file; raises UserError if it is none."""
    from ltx.study.ticket import described

    console = Console()
    for name, text in described(path):
        console.say(f"{name:15s}{text}")


def summary(folder: Path) -> None:
    """One screen about a finished or interrupted run; raises UserError if there is none."""
    from ltx.report import compare, print_tables
    from ltx.report.features import told
    from ltx.report.sizes import said

    if folder.is_file():
        ticket(folder)
        return
    manifest, now = read_manifest(folder), state(folder)
    console = Console()
    facts = {
        "experiment": f"{manifest.get('config')}: {manifest.get('method')} on {manifest.get('dataset')}",
        "status": f"{now.name} ({manifest.get('updated')})",
        "": "" if now.name == "complete" else detail(now),
        "command": manifest.get("command", ""),
        "network": f"{manifest.get('model')}, {manifest.get('network')}",
        "seeds": ", ".join(map(str, manifest.get("seeds", []))),
        "data": " / ".join(f"{count:,} {split}" for split, count in manifest.get("examples", {}).items())
        + f", fingerprint {manifest.get('fingerprint')}",
        "machine": f"{manifest.get('device')}, {manifest.get('threads')} threads, "
        + ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items()),
        "time": f"{manifest['seconds']} s" if "seconds" in manifest else "not finished",
        "checks": f"{sum(manifest.get('checks', {}).values())} passed, none failed",
    }
    for name, text in facts.items():
        if text:
            console.say(f"{name:11s}{text}")
    if (folder / "levels.csv").exists():
        print_tables(compare([folder]), console, ["means"])
    if sentence := said(folder):
        console.say(sentence)
    for line in told(folder):
        console.say(line)
    if now.name != "complete":
        console.say("the command that began this run continues it")


ALWAYS = ("config", "model", "dataset", "method", "seeds", "fingerprint", "examples", "weights")
"""What every manifest says."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest; raises UserError if the folder is not a run, Damaged if it is not readable."""
    if manifest := read_json(folder / "manifest.json", MANIFEST):
        lacks = [key for key in ALWAYS if key not in manifest]
        if lacks or "train" not in manifest["examples"]:
            raise Damaged(
                folder / "manifest.json", f"it does not say its {(lacks or ['training examples'])[0]}"
            )
        return manifest
    if (folder / FILE).exists():
        raise UserError(f"{folder} has trained no ticket to its end; `ltx status` tells more")
    raise UserError(f"{folder} is not a run: it has no manifest.json")
