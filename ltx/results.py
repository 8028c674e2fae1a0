"""Runs in Python: tidy tables of one run or of a tree of runs, and the networks behind them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ltx import report
from ltx.errors import UserError, demand, unknown
from ltx.files import read_json, read_yaml
from ltx.manifest import notes
from ltx.report.features import ranked
from ltx.report.objective import Objective, objective
from ltx.report.runs import COLUMNS, POOLED, find_runs, mapping, read_table
from ltx.schema import MANIFEST
from ltx.study.show import read_manifest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltx.study.reopen import Kept

TABLES = [file.removesuffix(".csv") for file in COLUMNS]


def load(*paths: str | os.PathLike[str], trust: bool = False) -> Results:
    """The runs at or below the paths, as far as they have come; raises UserError if there is none.

    `trust`: networks and examples may be made by code that a run's configuration names (model.path, dataset.path).
    """
    found = Results(find_runs([Path(path) for path in paths]), trust=trust)
    for note in found.notes():
        warnings.warn(note, stacklevel=2)
    return found


class Results:
    """What one or more runs left behind; `results[0]` or `results["digits_lenet/lenet-..."]` is one of them.

    Tables are read when they are first asked for, without torch; a table that no run has is empty. Every row
    begins with its run, config and method and, where several runs are loaded, the settings in which they differ.
    Accuracies and densities are fractions.
    """

    levels: pd.DataFrame
    """a row per trained network: density, early-stop step, accuracies, steps, seconds"""
    curves: pd.DataFrame
    """a row per evaluation of every network"""
    layers: pd.DataFrame
    """a row per layer of every network: its size and the weights kept"""
    masks: pd.DataFrame
    """a row per pruned layer of every network: overlap with the other seeds' masks, dead units"""
    costs: pd.DataFrame
    """a row per network: what finding and training it cost"""
    channels: pd.DataFrame
    """of methods that prune channels: a row per group of channels of every network"""
    draws: pd.DataFrame
    """of Early-Bird tickets: when each was drawn"""
    distances: pd.DataFrame
    """of Early-Bird tickets: how far masks of two epochs are apart"""
    gammas: pd.DataFrame
    """of Early-Bird tickets: how BatchNorm's scales lie"""
    path: pd.DataFrame
    """of LassoNet: a row per point of every seed's path"""
    importance: pd.DataFrame
    """of LassoNet: of every feature and seed, its rank (1 = left last) and the lambda at which it left for good"""
    resampled: pd.DataFrame
    """of LassoNet on folds or halves: a row per point of every one's path, its validation on what was left out"""
    selection: pd.DataFrame
    """of LassoNet on folds or halves: rank and lambda of every feature, as `importance` has them"""
    trees: pd.DataFrame
    """of LassoNet: how good extremely randomised trees are with each ticket's features"""
    groups: pd.DataFrame
    """of group lasso: how many neurons, filters or inputs of each layer every lambda leaves"""

    def __init__(self, folders: Sequence[Path], *, trust: bool = False) -> None:
        self.folders, self.trust = list(folders), trust
        names = [f"{folder.parent.name}/{folder.name}" for folder in self.folders]
        self.names = names if len(set(names)) == len(names) else list(map(str, self.folders))

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name not in TABLES:
            raise AttributeError(f"no {name} in results; their tables are {', '.join(TABLES)}")
        tables = [read_table(folder / f"{name}.csv", every=True) for folder in self.folders]
        named = [table.assign(run=run) for run, table in zip(self.names, tables, strict=True)]
        rows = pd.concat([table for table in named if len(table)] or named[:1], ignore_index=True)
        about = self.runs.drop(columns=["status", "folder"])
        own = [column for column in rows.columns if column not in ("config", "method")]
        self.__dict__[name] = table = about.merge(rows[own], on="run")
        return table

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *TABLES})

    def __repr__(self) -> str:
        return self.runs.to_string(index=False)

    def _repr_html_(self) -> str:
        return self.runs.to_html(index=False)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run: its name, config, method, the settings in which the runs differ, status and folder."""
        manifests = [mapping(read_json, folder / "manifest.json", MANIFEST) for folder in self.folders]
        configs = [mapping(read_yaml, folder / "config.yaml") for folder in self.folders]
        settings = pd.json_normalize(configs)
        settings = settings.map(lambda value: str(value) if isinstance(value, list) else value)
        skipped = {*POOLED, "method.name", "dataset.root", "dataset.workers"}
        differ = [
            key
            for key in settings.columns
            if not {key, key.partition(".")[0]} & skipped
            and settings[key].astype(str).nunique(dropna=False) > 1
        ]
        return pd.DataFrame(
            {
                "run": self.names,
                "config": [manifest.get("config") for manifest in manifests],
                "method": [config.get("method", {}).get("name") for config in configs],
                **settings[differ],
                "status": [manifest.get("status", "unknown") for manifest in manifests],
                "folder": list(map(str, self.folders)),
            }
        )

    def summary(self) -> pd.DataFrame:
        """Means and spreads over seeds: a row per line and level, as `ltx plot` writes them."""
        return report.table(self.folders)

    def draw(self, out: str | os.PathLike[str] | None = None) -> list[Path]:
        """Write the figures and tables that `ltx plot` makes, and return their files."""
        return report.draw(self.folders, out=Path(out) if out else None)

    def notes(self) -> list[str]:
        """On tables that are missing or not what their runs wrote, by their checksums."""
        manifests = [mapping(read_json, folder / "manifest.json", MANIFEST) for folder in self.folders]
        return [note for pair in zip(self.folders, manifests, strict=True) for note in notes(*pair)]

    def features(self, k: int) -> list[str]:
        """The k features that stayed longest on LassoNet's paths, by their mean rank over seeds, the first first.

        Raises UserError if no run has a path, or there are fewer features.
        """
        found = ranked(self.importance)
        demand(1 <= k <= len(found), "k", k, f"there are {len(found)} features on a path")
        return list(found.feature[:k])

    # -- one run --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, which: int | slice | str) -> Results:
        if isinstance(which, str):
            if which not in self.names:
                raise unknown("run", which, self.names)
            which = self.names.index(which)
        chosen = self.folders[which]
        return Results(chosen if isinstance(chosen, list) else [chosen], trust=self.trust)

    @property
    def folder(self) -> Path:
        """The folder of the run; raises UserError if several are loaded."""
        if len(self) > 1:
            raise UserError(f"{len(self)} runs are loaded: choose one, as in results[0]")
        return self.folders[0]

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself: status, versions, machine, seeds, data."""
        return read_manifest(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The run's whole configuration."""
        return read_yaml(self.folder / "config.yaml")

    def objective(self, **changes: Any) -> float:
        """The validation measure that the configuration names, as `measure`, `level` and `tolerance` change it.

        Raises UserError for a measure or a level that does not exist.
        """
        return objective(self.folder, Objective(**self.config.get("objective", {}) | changes))

    def ticket(self, level: int, seed: int | None = None, role: str = "ticket", draw: int = 0) -> Kept:
        """The mask, start weights and trained weights of a level, or of a control by its `role` and `draw`.

        Of one seed, or of all, stacked on axis 0. Raises UserError if they are not in the run's folder.
        """
        from ltx.study.reopen import Kept

        return Kept(self.folder, level, seed, role, draw)

    def network(self, level: int, seed: int, role: str = "ticket", draw: int = 0) -> nn.Module:
        """The trained network, in evaluation mode: from images as `examples` has them to logits."""
        from ltx.models.base import filled
        from ltx.study.reopen import reopen, skeleton

        network = skeleton(reopen(self.folder, "cpu", trust=self.trust))
        return filled(network, self.ticket(level, seed, role, draw).trained).eval()

    def examples(self, split: str = "test") -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] as the networks see them and labels [N] of the run's train, val or test split."""
        from ltx.study.reopen import examples, reopen

        return examples(reopen(self.folder, "cpu", trust=self.trust), self.manifest, split)
