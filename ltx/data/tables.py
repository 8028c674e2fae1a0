"""Tables that are at hand without a network: those that scikit-learn carries in its wheel, and one of UCI's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from platformdirs import user_cache_dir

from ltx.data import columns
from ltx.data.table import Source, Tabular
from ltx.errors import UserError
from ltx.knobs import knob, one_of

MEASURED = (
    "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
).split()


def shipped(name: str) -> Path:
    """A file that lies in scikit-learn's wheel, which is not imported for it."""
    found = find_spec("sklearn")
    assert found is not None, "ltx requires scikit-learn"
    assert found.origin, "scikit-learn is a package with files"
    return Path(found.origin).parent / "datasets" / "data" / name


def framed(values: np.ndarray, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(values.astype(np.float64), columns=names)


@dataclass(frozen=True)
class BreastCancer(Tabular):
    """Wisconsin diagnostic breast cancer (Street et al. 1993): ten measures of cell nuclei, three ways."""

    name: ClassVar[str] = "breast_cancer"
    summary: ClassVar[str] = "malignant or benign by 30 measures of cells, 569 rows; built in"
    shape: ClassVar[tuple[int]] = (30,)
    outputs: ClassVar[int] = 2

    def source(self) -> Source:
        values = np.loadtxt(shipped("breast_cancer.csv"), delimiter=",", skiprows=1)
        names = [f"{how}_{what}" for how in ("mean", "error", "worst") for what in MEASURED]
        return Source(framed(values[:, :-1], names), pd.Series(values[:, -1], name="class"))


@dataclass(frozen=True)
class Wine(Tabular):
    """Three growers of wine told by chemistry (Forina et al. 1988)."""

    name: ClassVar[str] = "wine"
    summary: ClassVar[str] = "three growers of wine by 13 measures, 178 rows; built in"
    shape: ClassVar[tuple[int]] = (13,)
    outputs: ClassVar[int] = 3

    def source(self) -> Source:
        values = np.loadtxt(shipped("wine_data.csv"), delimiter=",", skiprows=1)
        names = (
            "alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids nonflavanoid_phenols "
            "proanthocyanins color_intensity hue od280_od315 proline"
        ).split()
        return Source(framed(values[:, :-1], names), pd.Series(values[:, -1], name="class"))


@dataclass(frozen=True)
class Diabetes(Tabular):
    """Progression of diabetes a year on (Efron et al. 2004), a number from 25 to 346."""

    name: ClassVar[str] = "diabetes"
    summary: ClassVar[str] = "progression of diabetes by 10 measures, 442 rows, regression; built in"
    shape: ClassVar[tuple[int]] = (10,)
    outputs: ClassVar[int] = 1
    goal: ClassVar[str] = "regression"

    def source(self) -> Source:
        values = np.loadtxt(shipped("diabetes_data_raw.csv.gz"))
        target = np.loadtxt(shipped("diabetes_target.csv.gz"))
        names = "age sex bmi bp s1 s2 s3 s4 s5 s6".split()
        return Source(framed(values, names), pd.Series(target, name="progression"))


@dataclass(frozen=True)
class DigitsTable(Tabular):
    """The UCI digits as 64 columns, of which some are never inked."""

    name: ClassVar[str] = "digits_table"
    summary: ClassVar[str] = "UCI handwritten digits as 64 columns, 1,797 rows; built in"
    shape: ClassVar[tuple[int]] = (64,)
    outputs: ClassVar[int] = 10

    def source(self) -> Source:
        values = np.loadtxt(shipped("digits.csv.gz"), delimiter=",")
        names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
        return Source(framed(values[:, :-1], names), pd.Series(values[:, -1], name="digit"))


@dataclass(frozen=True)
class MiceProtein(Tabular):
    """Proteins in the brains of mice (Higuera et al. 2015): 15 rows of each of 72 mice, eight classes.

    By rows, as it is published, one mouse is on both sides of every split: a network may learn to know the mouse.
    """

    name: ClassVar[str] = "mice_protein"
    summary: ClassVar[str] = (
        "eight kinds of mice by 77 proteins, 1,080 rows; mice_protein.csv in dataset.root"
    )
    shape: ClassVar[tuple[int]] = (77,)
    outputs: ClassVar[int] = 8

    root: str | None = knob(
        None,
        None,
        "folder of mice_protein.csv; otherwise $LTX_DATA, otherwise the user's cache folder",
        result=False,
    )
    by: str = knob("row", one_of(("row", "mouse")), "row | mouse: what is never on both sides of a split")
    missing: str | None = knob(
        "mean",
        one_of(("mean", "drop")),
        "missing values: mean of the training rows | drop the row; null = refused",
    )

    def source(self) -> Source:
        folder = Path(self.root or os.environ.get("LTX_DATA") or user_cache_dir("ltx")).expanduser()
        path = folder / "mice_protein.csv"
        if not path.exists():
            raise UserError(
                f"mice_protein is not in {folder}: put there mice_protein.csv, the file Data_Cortex_Nuclear "
                "of archive.ics.uci.edu/dataset/342 saved as csv, or try dataset=breast_cancer"
            )
        table = columns.read(path)
        proteins = [name for name in table if str(name).endswith("_N")]
        if len(proteins) != 77 or "class" not in table or "MouseID" not in table:
            raise UserError(f"{path} is not UCI's table: it has {len(proteins)} of 77 columns that end in _N")
        mouse = table["MouseID"].str.partition("_")[0]
        return Source(table[proteins], table["class"], mouse if self.by == "mouse" else None)


BUILT_IN: tuple[type[Tabular], ...] = (BreastCancer, Wine, Diabetes, DigitsTable, MiceProtein)
