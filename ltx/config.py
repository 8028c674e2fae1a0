"""The experiment as typed data: what Hydra composes, and what is checked before any data is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from ltx.controls import CONTROLS
from ltx.data import DATASETS
from ltx.data.base import Dataset
from ltx.errors import UserError
from ltx.methods import METHODS
from ltx.methods.base import Method
from ltx.models import MODELS
from ltx.models.base import Model
from ltx.recipe import Plan, Recipe, demand
from ltx.task import Layers, Prunable

# An environment variable could carry a secret into a published result.
OmegaConf.clear_resolver("oc.env")

NOT_IN_THE_RESULT = ("out", "device")
"""Keys that say where a run happens, not what comes out of it."""


@dataclass(frozen=True)
class Run:
    """One experiment: a network on a data set, trained by a recipe, searched by a method, for some seeds."""

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    recipe: Recipe = field(default_factory=Recipe)
    prunable: Prunable = field(default_factory=Prunable)
    seed: int = 0
    """the first seed"""
    replicates: int = 1
    """how many seeds: seed, seed + 1, ..."""
    controls: list[str] = field(default_factory=list)
    """tickets made worse on purpose, trained beside each ticket"""
    control_draws: int = 1
    """how often each control is drawn for each ticket"""
    out: str = "results"
    """the folder that runs go under"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:1 | mps"""

    def __post_init__(self) -> None:
        for key, kind in (("model", Model), ("dataset", Dataset), ("method", Method)):
            demand(isinstance(getattr(self, key), kind), key, getattr(self, key), "choose one with `ltx list`")
        demand(self.seed >= 0, "seed", self.seed, "it must be 0 or more")
        demand(self.replicates >= 1, "replicates", self.replicates, "it must be 1 or more")
        demand(self.control_draws >= 1, "control_draws", self.control_draws, "it must be 1 or more")
        for control in self.controls:
            if control not in CONTROLS:
                raise unknown("controls", control, list(CONTROLS))
        demand(len(set(self.controls)) == len(self.controls), "controls", self.controls, "name each once")
        if self.dataset.shape and self.dataset.classes:
            layers = self.layers(self.dataset.shape, self.dataset.classes)
            size = self.dataset.train_size
            self.method.check(layers, self.recipe.plan(size) if size else None)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.replicates))

    def layers(self, shape: tuple[int, int, int], classes: int) -> Layers:
        """The network's layers for images of a shape, built without memory or values."""
        with torch.device("meta"):
            return Layers.of(self.model.build(shape, classes), self.prunable)

    def torch_device(self) -> torch.device:
        """The device to run on; raises UserError if this machine lacks it."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device={self.device} is not on this machine; choose auto, cpu"
                + (f" or cuda:0..{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "")
            ) from error
        return device


GROUPS: dict[str, dict[str, type]] = {"model": MODELS, "dataset": DATASETS, "method": METHODS}


def register() -> None:
    """Tell Hydra the schema: the root and every member of every group."""
    store = ConfigStore.instance()
    store.store(name="run", node=schema(Run))
    for group, members in GROUPS.items():
        for name, kind in members.items():
            store.store(group=group, name=name, node=schema(kind))


def schema(kind: type) -> DictConfig:
    """A frozen dataclass as a schema that Hydra may fill in, and that still refuses unknown keys."""
    node = OmegaConf.structured(kind)

    def writable(part: DictConfig) -> None:
        OmegaConf.set_readonly(part, None)
        for key in part:
            if not OmegaConf.is_missing(part, key) and OmegaConf.is_dict(part[key]):
                writable(part[key])

    writable(node)
    return node


def config_dir() -> str:
    """The shipped experiments: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return str(next(d for d in (here / "configs", here.parent / "configs") if (d / "ltx.yaml").is_file()))


@dataclass(frozen=True)
class Composed:
    """A checked experiment, its name, and the configuration that it was made from."""

    run: Run
    name: str  # the experiment: what `config=` chose
    config: dict[str, Any]  # resolved

    @classmethod
    def of(cls, config: DictConfig, choices: dict[str, str]) -> Composed:
        """Turn what Hydra composed into a checked Run; raises UserError."""
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        run = OmegaConf.to_object(config)
        assert isinstance(run, Run)
        chosen = {group: {"name": choices[group]} | resolved[group] for group in GROUPS}
        return cls(run, choices["config"], resolved | chosen)

    @property
    def folder(self) -> Path:
        """Where the run lives: readable, and different for every configuration that changes the result."""
        what = {key: value for key, value in self.config.items() if key not in NOT_IN_THE_RESULT}
        what["dataset"] = {key: value for key, value in what["dataset"].items() if key != "root" or self.config["dataset"]["name"] == "image_folder"}
        tag = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
        parts = [self.config[group]["name"] for group in ("model", "dataset", "method")]
        seeds = f"s{self.run.seed}x{self.run.replicates}"
        return Path(self.run.out) / self.name / "-".join([*parts, seeds, tag])


def compose(overrides: Sequence[str], extra_dir: str | None = None) -> Composed:
    """Compose and check an experiment without running anything; raises UserError in one line."""
    register()
    if extra_dir is not None and not Path(extra_dir).is_dir():
        raise UserError(f"--config-dir {extra_dir} is not a folder")
    search = [f"hydra.searchpath=[file://{Path(extra_dir).resolve()}]"] if extra_dir else []
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        for override in overrides:
            parse(override)
        try:
            return _composed([*search, *overrides])
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error, search, overrides) from error


def _composed(overrides: list[str]) -> Composed:
    config = hydra.compose("ltx", overrides, return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with flag_override(config, ["readonly", "struct"], False):
        del config["hydra"]
    return Composed.of(config, choices)


def parse(text: str) -> Any:
    """One override in Hydra's grammar; raises UserError."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        hint = " (did you mean config=" + text + "?)" if text in experiments() else ""
        raise UserError(f"{text!r} is not KEY=VALUE{hint}: {first_line(error)}") from error


def _explained(error: Exception, search: list[str], overrides: Sequence[str]) -> UserError:
    """The one line that names the key as typed, what was given, and what is allowed."""
    for last in range(1, len(overrides) + 1):
        try:
            _composed([*search, *overrides[:last]])
        except (HydraException, OmegaConfBaseException) as culprit:
            return _explain(culprit, overrides[last - 1])
        except UserError:
            continue  # a combination that later overrides may still mend
    return UserError(first_line(error))


def _explain(error: Exception, override: str) -> UserError:
    parsed = parse(override)
    key, value = parsed.key_or_group, override.partition("=")[2]
    if parsed.is_sweep_override():
        return UserError(f"{override} names several values; one run takes one value, `ltx sweep` takes many")
    if key in (*GROUPS, "config") and "ould not find" in str(error) and f"{key}/{value}" in str(error):
        return unknown(key, value, experiments() if key == "config" else list(GROUPS[key]))
    known = list(keys())
    if key not in known and not key.startswith("hydra.") and key not in (*GROUPS, "config"):
        return unknown("key", key, known)
    return UserError(f"{override} is not possible: {first_line(error)}")


def unknown(key: str, value: str, allowed: list[str]) -> UserError:
    """The error for a name that does not exist, with the nearest that does."""
    near = get_close_matches(value, allowed, n=1, cutoff=0.4) or [a for a in allowed if a.endswith(f".{value}")][:1]
    hint = f"did you mean {near[0]}? " if near else ""
    choice = f"choose from {', '.join(allowed)}" if len(allowed) <= 40 else "see `ltx run --cfg job`"
    return UserError(f"{key}={value} is unknown: {hint}{choice}" if key != "key" else f"unknown key {value}: {hint}{choice}")


def keys() -> Iterator[str]:
    """Every key that some experiment has, dotted."""

    def walk(kind: Any, prefix: str) -> Iterator[str]:
        for f in fields(kind):
            yield f"{prefix}{f.name}"
            nested = f.default_factory if is_dataclass(f.default_factory) else None
            if nested:
                yield from walk(nested, f"{prefix}{f.name}.")

    yield from walk(Run, "")
    for group, members in GROUPS.items():
        yield from {key: None for kind in members.values() for key in walk(kind, f"{group}.")}


def experiments(folder: str | None = None) -> list[str]:
    """Names that `config=` takes."""
    return sorted(path.stem for path in Path(folder or config_dir(), "config").glob("*.yaml"))


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return " ".join(useful[:2]) if useful else type(error).__name__


def plan(run: Run, train_size: int) -> Plan:
    return run.recipe.plan(train_size)
