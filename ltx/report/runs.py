"""Where the numbers come from: run folders are found, read, and pooled into experiments."""

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ltx.errors import Damaged, UserError
from ltx.files import read_bytes, read_json, read_yaml
from ltx.manifest import notes
from ltx.schema import MANIFEST

NETWORK = ["role", "draw", "level", "seed"]  # what names one trained network within a run
PATH = ["seed", "point", "lambda", "features", "val_loss", "val_measure", "test_measure"]
COLUMNS = {
    "levels.csv": [
        *("config", "method", *NETWORK, "density", "weights_remaining", "diverged", "early_stop_step"),
        *("early_stop_test_accuracy", "final_test_accuracy", "final_train_accuracy"),
    ],
    "curves.csv": [*NETWORK, "step", "val_loss", "test_accuracy"],
    "layers.csv": [*NETWORK, "layer", "size", "kept"],
    "masks.csv": [*NETWORK, "layer", "overlap", "chance", "dead_outputs", "dead_inputs"],
    "costs.csv": [
        *NETWORK,
        "search_macs",
        "search_epochs",
        "epochs",
        "total_epochs",
        "macs",
        "total_macs",
        "total_seconds",
    ],
    "size.csv": [
        *(*NETWORK, "architecture", "dense_parameters", "parameters", "dense_macs", "macs"),
        *("dense_bytes", "compact_bytes", "bitmask_bytes", "csr_bytes"),
    ],
    "channels.csv": [*NETWORK, "group", "channels", "kept"],
    "draws.csv": ["seed", "ratio", "epoch", "emerged"],
    "distances.csv": ["seed", "ratio", "epoch", "earlier", "distance"],
    "gammas.csv": ["seed", "when", "low", "high", "channels"],
    **dict.fromkeys(("path.csv", "resampled.csv"), PATH),
    **{name: ["seed", "feature", "rank", "lambda"] for name in ("importance.csv", "selection.csv")},
    "trees.csv": ["seed", "level", "features"],
    "groups.csv": ["seed", "level", "lambda", "layer", "groups", "kept"],
}
MAY_LACK = ("total_cpu_joules", "total_gpu_joules", "censored")  # columns that a table may be without
WORDS = dict.fromkeys(
    ("config", "method", "role", "layer", "group", "when", "architecture", "feature"), str
)  # never read as numbers
SHARES = {"density", "diverged", "censored"}
COUNTS = {*NETWORK, "weights_remaining", "early_stop_step", "step", "size", "kept", "macs", "parameters"}
ROUNDING = 1e-6  # of a mean of float32

SEARCH = "search"  # the role of a training that only finds tickets: it is paid for, not compared
GROUPS = ("config", "method", "model", "dataset")  # settings that are names; what else they set hangs below

# Settings in which runs of one experiment may differ: whom they trained, where, whom they compared with and told.
POOLED = {
    *("seed", "seeds", "replicates", "controls", "control_draws", "out", "device"),
    *("dataset.root", "dataset.workers", "checkpoint_seconds", "objective", "tracker"),
}


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder: its networks, its status, and its settings as dotted names; other tables when asked for."""

    path: Path
    levels: pd.DataFrame
    status: str
    settings: Mapping[str, str]
    known: bool = True  # whether the configuration could be read
    notes: Sequence[str] = ()  # on tables that are not what the run wrote
    tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    def table(self, name: str) -> pd.DataFrame:
        """One of `COLUMNS`, read once; UserError if it is damaged."""
        if name not in self.tables:
            self.tables[name] = read_table(self.path / f"{name}.csv")
        return self.tables[name]


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs that differ only in `POOLED`, as one."""

    runs: Sequence[Run]
    settings: Mapping[str, str]
    levels: pd.DataFrame  # every network once, also those that diverged; `run` is the position in `runs`
    notes: list[str]  # what a reader of its numbers must know
    name: str = ""  # tells it from the others beside it
    tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    @property
    def sound(self) -> pd.DataFrame:
        """Which networks did not diverge, and the run of each."""
        return self.levels.loc[self.levels.diverged == 0, [*NETWORK, "run"]]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the networks that did not diverge, read when first asked for; of a damaged one a note."""
        if name not in self.tables:
            found = []
            for run in self.runs:
                try:
                    found.append(run.table(name))
                except UserError as error:
                    found.append(empty(name))
                    self.notes.append(f"Left out: {error}.")
            rows = stack(found)
            named = set(NETWORK) <= set(rows)
            rows = rows.merge(self.sound) if named else rows.drop(columns="run").drop_duplicates()
            self.tables[name] = rows
        return self.tables[name]

    def only(self, seed: int) -> "Experiment":
        """The part of one seed, as an experiment of its own."""
        levels = self.levels[self.levels.seed == seed]
        settings = {**self.settings, "seed": str(seed)}
        return replace(self, settings=settings, levels=levels, notes=list(self.notes), tables={})


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Every folder with a levels.csv at or below `paths`, sorted, hidden ones and what lies inside a run left out.

    A UserError if there is none.
    """
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(f"no such folder: {', '.join(missing)}")
    found = {}
    for path in paths:
        for folder, below, files in os.walk(path):
            below[:] = [name for name in below if not name.startswith(".")]
            if "levels.csv" in files:
                found[Path(folder).resolve()] = Path(folder)
                below.clear()
    if not found:
        raise UserError(f"no run (a folder with levels.csv) in {', '.join(map(str, paths))}")
    return sorted(found.values())


def read_run(path: Path) -> Run:
    """The run in folder `path`, whatever of it is written so far; a UserError if its levels.csv is damaged."""
    manifest = mapping(read_json, path / "manifest.json", MANIFEST)
    config = mapping(read_yaml, path / "config.yaml")
    levels = with_censored(path, read_table(path / "levels.csv"))
    names = {key: str(levels[key].iloc[0]) for key in ("config", "method")} if len(levels) else {}
    rest = flat(config or {name: manifest.get(name) for name in ("model", "dataset")})
    rest = {key.removesuffix(".name") if key[:-5] in GROUPS else key: value for key, value in rest.items()}
    if "fingerprint" in manifest:
        rest["dataset.fingerprint"] = str(manifest["fingerprint"])
    settings = names | {key: value for key, value in rest.items() if key not in POOLED and key not in names}
    status = str(manifest.get("status", "unknown"))
    return Run(path, levels, status, settings, known=bool(config), notes=notes(path, manifest))


def with_censored(path: Path, levels: pd.DataFrame) -> pd.DataFrame:
    """Levels with the column `censored`, where a run's own lack it made from its curves; NaN without these.

    A network is censored whose least validation loss is its last: how soon it would have stopped is not known.
    """
    if "censored" in levels:
        return levels
    try:
        curves = read_table(path / "curves.csv")
    except UserError:  # told by whoever draws them
        curves = empty("curves")
    last = curves.groupby(NETWORK).step.max().rename("last").reset_index()
    ends = levels[NETWORK].merge(last.astype(levels[NETWORK].dtypes), how="left", on=NETWORK)["last"]
    known, at = ends.notna().to_numpy(), pd.to_numeric(ends).fillna(0).to_numpy()
    return levels.assign(censored=(levels.early_stop_step >= at).astype(float).where(known))


def empty(name: str) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame(columns=COLUMNS[f"{name}.csv"])


def read_table(path: Path, *, every: bool = False) -> pd.DataFrame:
    """The csv at `path`: the columns that figures use, or every one; without a last line that was cut short.

    Empty if there is no file; a UserError if it is damaged.
    """
    columns = COLUMNS[path.name]
    try:
        content = read_bytes(path)
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            return empty(path.stem)
        used = {*columns, *MAY_LACK}
        frame = pd.read_csv(io.BytesIO(whole), dtype=WORDS, usecols=lambda name: every or name in used)
    except FileNotFoundError:
        return empty(path.stem)
    except (OSError, ValueError) as error:
        raise Damaged(path, str(error).strip().splitlines()[0]) from None
    if missing := [column for column in columns if column not in frame]:
        raise UserError(f"{path} lacks the column {', '.join(missing)}")
    for column in columns if len(frame) else ():
        if column not in WORDS and frame[column].dtype.kind not in "iufb":
            raise UserError(f"{path} is damaged: not every {column} is a number")
        if column in NETWORK and frame[column].isna().any():
            raise UserError(f"{path} is damaged: a row has no {column}")
        if column not in WORDS:
            demand_possible(path, frame[column])
    return frame


def demand_possible(path: Path, values: pd.Series) -> None:
    """Counts are from 0, shares from 0 to 1; what is not a number was not measured. Raises UserError."""
    share = str(values.name) in SHARES or str(values.name).endswith("_accuracy")
    low, high = (
        (0, 1) if share else (0, float("inf")) if values.name in COUNTS else (-float("inf"), float("inf"))
    )
    wrong = values[(values < low) | (values > high + ROUNDING)]
    if len(wrong):
        told = "from 0 to 1" if share else "0 or more"
        raise UserError(f"{path} is damaged: {values.name} is {told}, not {wrong.iloc[0]:g}")


def mapping(read: Callable[..., dict[str, Any]], path: Path, *form: object) -> dict[str, Any]:
    """The mapping that `read` finds in a file; empty if the file is missing or damaged."""
    try:
        return read(path, *form)
    except Damaged:
        return {}


def flat(tree: Any, name: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted names and values as they are typed."""
    if not isinstance(tree, dict):
        return {name: typed(tree)}
    return {
        k: v for key, branch in tree.items() for k, v in flat(branch, f"{name}.{key}".lstrip(".")).items()
    }


def typed(value: Any) -> str:
    """A setting as it is typed on the command line: 0.1, true, null, [300,100]."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def pool(runs: Iterable[Run]) -> list[Experiment]:
    """Runs that agree in all settings but `POOLED` become one experiment."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(frozenset(run.settings.items()), []).append(run)
    return [merge(members) for members in groups.values()]


def merge(runs: Sequence[Run]) -> Experiment:
    """One experiment from its runs; a network that several of them trained counts once, as in the longest."""
    runs = sorted(runs, key=lambda run: -len(run.levels))
    levels = stack([run.levels for run in runs])
    levels = levels[levels.role != SEARCH]
    again = levels.duplicated(NETWORK)
    winners = levels.run[levels.duplicated(NETWORK, keep=False) & ~again].unique()
    notes = []
    if len(winners):
        names = ", ".join(runs[winner].name for winner in winners)
        notes.append(
            f"{again.sum()} networks were found in more than one run and counted once, as in {names}."
        )
        notes += disagreement(levels)
    found = Experiment(runs, runs[0].settings, levels[~again], notes)
    draws = found.table("draws")
    notes += [
        f"No ticket emerged at ratio {ratio:g} for seed {', '.join(map(str, rows.seed))}: "
        f"it was drawn when the search had ended, after epoch {rows.epoch.max()}."
        for ratio, rows in draws[draws.emerged == 0].groupby("ratio")
    ]
    return found


def disagreement(levels: pd.DataFrame) -> list[str]:
    """A note on networks of which several runs tell other numbers: one seed has one result."""
    told = levels.drop(columns=["run", "config", "censored"]).drop_duplicates()
    if not (other := told[told.duplicated(NETWORK)].drop_duplicates(NETWORK)).empty:
        first = other.iloc[0]
        where = f"{first.role} of level {first.level}, seed {first.seed}"
        return [
            f"The runs disagree about {len(other)} of these networks, the {where} first: "
            "`ltx verify` tells whether one is damaged."
        ]
    return []


def stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other, with the position of each in the column `run`."""
    numbered = [table.assign(run=position) for position, table in enumerate(tables)]
    return pd.concat([table for table in numbered if len(table)] or numbered[:1], ignore_index=True)
