"""Tables: rows of named columns, one of which is to be told from the others."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ltx.data import columns
from ltx.data.base import Data, Dataset, Prepare, Split, fingerprint, hold_out
from ltx.data.sound import demand_sound
from ltx.errors import UserError, demand, unknown
from ltx.knobs import between, knob, one_of

SCALES = ("standard", "minmax", "none")
FEW = 20  # different whole numbers in a target column that are taken for classes


@dataclass(frozen=True)
class Source:
    """A table as it was found: features, the target, and what must stay together."""

    features: pd.DataFrame
    target: pd.Series
    group: pd.Series | None = None


@dataclass(frozen=True)
class Tabular(Dataset):
    """A table of numbers and categories, split at random once and for all."""

    shape: ClassVar[tuple[int, ...] | None] = None
    outputs: ClassVar[int | None] = None
    train_size: ClassVar[None] = None

    val: float = knob(0.1, between(0, 1), "the fraction of rows that are for validation")
    test: float = knob(0.2, between(0, 1), "the fraction of rows that are for the test")
    scale: str = knob(
        "standard",
        one_of(SCALES),
        "numbers by the training rows alone: standard (mean 0, deviation 1) | minmax (0 to 1) | none",
    )
    missing: str | None = knob(
        None,
        one_of(("mean", "drop")),
        "missing values: mean of the training rows | drop the row; else refused",
    )
    classes: bool | None = knob(
        None, None, "whether the target names classes; else it does if it is text or few whole numbers"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(
            self.val + self.test < 1, "dataset.test", self.test, f"with dataset.val={self.val} no row is left"
        )

    @abstractmethod
    def source(self) -> Source:
        """The table; raises UserError."""

    def load(self) -> Data:
        """Inputs float32 [N, F], scaled, and classes [N] or standardised numbers [N, 1]."""
        where = f"dataset={self.name}"
        source = self._without_missing(self.source())
        classes = is_classes(source.target) if self.classes is None else self.classes
        targets, known = as_classes(source.target) if classes else as_numbers(source.target)
        parts = self._split(
            targets if classes else torch.zeros(len(targets), dtype=torch.int64), source.group
        )
        rows = parts[0].numpy()
        inputs, names, groups = columns.numbered(filled(source.features, rows))
        numeric = [own[0] for own in groups.values() if len(own) == 1]
        inputs[:, numeric] = scaled(inputs[:, numeric], rows, self.scale)
        unit = 1.0
        if not classes:
            mean, unit = float(targets[rows].mean()), float(targets[rows].std(correction=0)) or 1.0
            targets = ((targets - mean) / unit).float()[:, None]
        whole = Split(torch.from_numpy(inputs).float(), targets)
        train, val, test = map(whole.take, parts)
        demand_sound({"train": train, "val": val, "test": test}, where)
        return Data(
            *(train, val, test),
            outputs=len(known) if classes else 1,
            prepare=Prepare(),
            fingerprint=fingerprint(train, val, test),
            goal="classification" if classes else "regression",
            unit=unit,
            names=tuple(names),
            groups=groups,
            owners=None if source.group is None else torch.from_numpy(pd.factorize(source.group)[0][rows]),
        )

    def fetch(self) -> None:
        """Nothing to do: the table is here."""

    def _without_missing(self, source: Source) -> Source:
        """Rows that can be used; raises UserError where values are missing and nobody said what to do."""
        target = source.target.isna().to_numpy()
        count = columns.counted({str(n): int(source.features[n].isna().sum()) for n in source.features})
        if self.missing is None and (count or target.any()):
            count = ", ".join(filter(None, [f"the target ({target.sum()})" if target.any() else "", count]))
            raise UserError(
                f"values are missing in {count}: set dataset.missing=mean or dataset.missing=drop"
            )
        gone = target | (source.features.isna().any(axis=1).to_numpy() if self.missing == "drop" else False)
        if source.group is not None:
            gone = gone | source.group.isna().to_numpy()
        if gone.all():
            raise UserError(f"dataset.missing={self.missing} leaves no row")
        group = None if source.group is None else source.group[~gone].reset_index(drop=True)
        return Source(
            source.features[~gone].reset_index(drop=True), source.target[~gone].reset_index(drop=True), group
        )

    def _split(self, labels: Tensor, group: pd.Series | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for training, validation and test: stratified by label, no group in two of them."""
        owner = np.arange(len(labels)) if group is None else pd.factorize(group)[0]
        kind = labels[np.unique(owner, return_index=True)[1]]  # of a group, its first row's
        owners = len(kind)
        held = [max(1, round(owners * fraction)) for fraction in (self.test, self.val)]
        demand(sum(held) < owners, "dataset.test", self.test, f"there are {owners} rows or groups to split")
        rest, test = hold_out(kind, held[0])
        kept, val = hold_out(kind[rest], held[1])
        parts = (rest[kept], rest[val], test)
        train, val, test = (torch.from_numpy(np.flatnonzero(np.isin(owner, part))) for part in parts)
        return train, val, test


@dataclass(frozen=True)
class Table(Tabular):
    """A file of the user's own."""

    name: ClassVar[str] = "table"
    summary: ClassVar[str] = "your own table: dataset.path=FILE.csv|.parquet dataset.target=COLUMN"
    goal: ClassVar[None] = None

    path: str = knob("", None, "a .csv file with a line of names, or a .parquet file; required", result=False)
    target: str = knob("", None, "the column to be told from the others; required")
    drop: list[str] = knob([], None, "columns to leave out")
    group: str | None = knob(
        None, None, "a column whose rows of one value are never on both sides of a split"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("path", "target"):
            if not getattr(self, key):
                raise UserError(
                    f"dataset.{key} is required: dataset=table dataset.path=FILE.csv dataset.target=COLUMN"
                )

    def source(self) -> Source:
        """The file's columns, of which those that are named exist and the others differ from row to row."""
        table = columns.read(Path(self.path).expanduser())
        named = {
            "target": [self.target],
            "group": [self.group] if self.group else [],
            "drop": list(self.drop),
        }
        for key, names in named.items():
            for name in names:
                if name not in table:
                    raise unknown(f"dataset.{key}", name, map(str, table.columns))
        features = table.drop(columns=sorted({name for names in named.values() for name in names}))
        if features.columns.empty:
            raise UserError(f"dataset.path={self.path} has no column besides the target")
        for name in map(str, features):
            if features[name].nunique(dropna=False) == 1:
                raise UserError(
                    f"column {name} has the same value in all rows: leave it out with dataset.drop=[{name}]"
                )
        return Source(features, table[self.target], table[self.group] if self.group else None)


def is_classes(target: pd.Series) -> bool:
    """Whether a target without missing values is text, or few whole numbers."""
    return target.dtype != np.float64 or bool((target % 1 == 0).all() and target.nunique() <= FEW)


def as_classes(target: pd.Series) -> tuple[Tensor, list[str]]:
    """Classes int64 [N], counted in the order of their sorted names, and the names; raises UserError."""
    codes, known = pd.factorize(target, sort=True)
    counts = np.bincount(codes)
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in known]
    if len(names) < 2:
        raise UserError(f"column {target.name} has one class only, {names[0]}: there is nothing to tell")
    if counts[few := int(counts.argmin())] < 3:
        raise UserError(
            f"class {names[few]} of column {target.name} has {counts[few]} row{'s' if counts[few] > 1 else ''}: "
            "it needs one each for training, validation and test"
        )
    return torch.from_numpy(codes.astype(np.int64)), names


def as_numbers(target: pd.Series) -> tuple[Tensor, list[str]]:
    """Numbers float64 [N]; raises UserError where the column is text or constant."""
    if target.dtype != np.float64:
        raise UserError(f"dataset.classes=false is not possible: column {target.name} is text")
    if target.nunique() == 1:
        raise UserError(f"column {target.name} has the same value in all rows: there is nothing to tell")
    return torch.tensor(target.to_numpy(np.float64)), []


def filled(features: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Missing numbers as the mean of the training rows, missing texts as their most frequent one."""
    train, new = features.iloc[rows], dict[str, pd.Series]()
    for name in map(str, features):
        if features[name].isna().any():
            there = train[name].dropna()
            if there.empty:
                raise UserError(
                    f"column {name} has no value in the training rows: leave it out with dataset.drop=[{name}]"
                )
            new[name] = features[name].fillna(
                there.mean() if there.dtype == np.float64 else there.mode().iloc[0]
            )
    return features.assign(**new)


def scaled(values: np.ndarray, rows: np.ndarray, scale: str) -> np.ndarray:
    """Columns [N, F] shifted and divided by what the training rows have; one that is constant there only shifted."""
    train = values[rows]
    if scale == "none" or values.shape[1] == 0:
        return values
    low, spread = (
        (train.mean(0), train.std(0)) if scale == "standard" else (train.min(0), np.ptp(train, axis=0))
    )
    moved: np.ndarray = (values - low) / np.where(spread > 0, spread, 1)
    return moved
