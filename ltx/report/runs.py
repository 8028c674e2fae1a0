"""Where the numbers come from: run folders are found, read, and pooled into experiments."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ltx.errors import UserError

NETWORK = ["role", "draw", "level", "seed"]  # what names one trained network within a run

COLUMNS = {
    "levels.csv": [
        *("config", "method", *NETWORK, "density", "weights_remaining", "diverged", "early_stop_step"),
        *("early_stop_test_accuracy", "final_test_accuracy", "final_train_accuracy"),
    ],
    "curves.csv": [*NETWORK, "step", "val_loss", "test_accuracy"],
    "layers.csv": [*NETWORK, "layer", "size", "kept"],
    "masks.csv": [*NETWORK, "layer", "overlap", "chance", "dead_outputs", "dead_inputs"],
    "costs.csv": [*NETWORK, "search_epochs", "epochs", "total_epochs", "macs", "total_macs", "total_seconds"],
    "channels.csv": [*NETWORK, "group", "channels", "kept"],
    "draws.csv": ["seed", "ratio", "epoch", "emerged"],
    "distances.csv": ["seed", "ratio", "epoch", "earlier", "distance"],
    "gammas.csv": ["seed", "when", "low", "high", "channels"],
}
WORDS = dict.fromkeys(("config", "method", "role", "layer", "group", "when"), str)  # never read as numbers

MORE = ("costs", "channels", "draws", "distances", "gammas")
SEARCH = "search"  # the role of a training that only finds tickets: it is paid for, not compared

# Settings in which runs of one experiment may differ: whom they trained, where, and whom they compared with.
POOLED = {"seed", "seeds", "replicates", "controls", "out", "device", "checkpoint_seconds"}


@dataclass(frozen=True)
class Run:
    """One run folder, read: its tables, its status, and its settings as dotted names."""

    path: Path
    levels: pd.DataFrame
    curves: pd.DataFrame
    layers: pd.DataFrame
    masks: pd.DataFrame
    more: Mapping[str, pd.DataFrame]  # the tables that not every run has, by name
    status: str
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def config(self) -> str:
        return str(self.levels.config.iloc[0])

    @property
    def method(self) -> str:
        return str(self.levels.method.iloc[0])


@dataclass(frozen=True)
class Experiment:
    """Runs that differ only in `POOLED`, as one; `name` tells it from the others of its config."""

    name: str
    levels: pd.DataFrame  # every network once, also those that diverged
    curves: pd.DataFrame  # of networks that did not diverge
    layers: pd.DataFrame  # likewise
    masks: pd.DataFrame  # likewise
    more: Mapping[str, pd.DataFrame]  # the tables that not every run has, by name
    notes: list[str]  # what a reader of its numbers must know


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Every folder with a levels.csv at or below `paths`, sorted; a UserError if there is none."""
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(f"no such folder: {', '.join(missing)}")
    found = {file.parent.resolve(): file.parent for path in paths for file in path.rglob("levels.csv")}
    if not found:
        raise UserError(f"no run (a folder with levels.csv) in {', '.join(map(str, paths))}")
    return sorted(found.values())


def read_run(path: Path) -> Run:
    """The run in folder `path`, whatever of it is written so far; a UserError if a table lacks a column."""
    manifest, config = (
        mapping(path / "manifest.json", json.loads),
        mapping(path / "config.yaml", yaml.safe_load),
    )
    tree = config or {name: manifest.get(name) for name in ("model", "dataset")}
    return Run(
        path=path,
        levels=read_table(path / "levels.csv"),
        curves=read_table(path / "curves.csv"),
        layers=read_table(path / "layers.csv"),
        masks=read_table(path / "masks.csv"),
        more={name: read_table(path / f"{name}.csv") for name in MORE},
        status=str(manifest.get("status", "unknown")),
        settings=flat({key: value for key, value in tree.items() if key not in POOLED}),
    )


def read_table(path: Path) -> pd.DataFrame:
    """The csv at `path` without a last line that was cut while being written; empty if there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return pd.DataFrame(columns=COLUMNS[path.name])
    try:
        frame = pd.read_csv(io.StringIO(whole), dtype=WORDS)
    except pd.errors.ParserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if missing := [column for column in COLUMNS[path.name] if column not in frame]:
        raise UserError(f"{path} lacks the column {', '.join(missing)}")
    return frame


def mapping(path: Path, parse: Any) -> dict[str, Any]:
    """The mapping written in the file `path`; empty if the file is missing or half written."""
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def flat(tree: Any, name: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted names and text values."""
    if not isinstance(tree, dict):
        return {name: str(tree)}
    return {
        k: v for key, branch in tree.items() for k, v in flat(branch, f"{name}.{key}".lstrip(".")).items()
    }


def pool(runs: Iterable[Run]) -> dict[str, list[Experiment]]:
    """The experiments of every config: runs that agree in all but `POOLED` become one."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config, run.method, frozenset(run.settings.items())), []).append(run)
    configs: dict[str, list[Experiment]] = {}
    for (config, method, _), members in groups.items():
        rivals = [group[0].settings for key, group in groups.items() if key[:2] == (config, method)]
        name = " ".join([method, *differences(members[0].settings, rivals)])
        configs.setdefault(config, []).append(merge(name, members))
    return configs


def differences(settings: Mapping[str, str], rivals: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings, as `name=value`, in which not all `rivals` agree."""
    varying = [key for key in settings if len({rival.get(key) for rival in rivals}) > 1]
    return [f"{key}={settings[key]}" for key in varying]


def merge(name: str, runs: Sequence[Run]) -> Experiment:
    """One experiment from its runs; a network that several of them trained counts once, as in the longest."""
    runs = sorted(runs, key=lambda run: -len(run.levels))
    levels = stack([run.levels for run in runs])
    levels = levels[levels.role != SEARCH]
    again = levels.duplicated(NETWORK)
    winners = levels.run[levels.duplicated(NETWORK, keep=False) & ~again].unique()
    notes = [
        f"{run.name} is not complete (status: {run.status})." for run in runs if run.status != "complete"
    ]
    if len(winners):
        names = ", ".join(runs[winner].name for winner in winners)
        notes.append(
            f"{again.sum()} networks were found in more than one run and counted once, as in {names}."
        )
    levels = levels[~again]
    sound = levels.loc[levels.diverged == 0, [*NETWORK, "run"]]
    curves, layers, masks = (
        stack([getattr(run, table) for run in runs]).merge(sound) for table in ("curves", "layers", "masks")
    )
    more = {table: stack([run.more[table] for run in runs]) for table in MORE}
    for table, rows in more.items():
        of_networks = set(NETWORK) <= set(rows)
        more[table] = rows.merge(sound) if of_networks else rows.drop(columns="run").drop_duplicates()
    late = more["draws"][more["draws"].emerged == 0]
    notes += [
        f"No ticket emerged at ratio {ratio:g} for seed {', '.join(map(str, rows.seed))}: "
        f"it was drawn when the search had ended, after epoch {rows.epoch.max()}."
        for ratio, rows in late.groupby("ratio")
    ]
    return Experiment(name, levels, curves, layers, masks, more, notes)


def stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other, with the position of each in the column `run`."""
    numbered = [table.assign(run=position) for position, table in enumerate(tables)]
    return pd.concat([table for table in numbered if len(table)] or numbered[:1], ignore_index=True)
