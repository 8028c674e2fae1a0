"""The choices that Hydra composes an experiment from, and every key that one may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ltx.config.run import Run
from ltx.core.goal import Choice
from ltx.core.goals import GOALS
from ltx.data import DATASETS
from ltx.data.base import Dataset
from ltx.methods import METHODS
from ltx.methods.base import Method
from ltx.models import MODELS
from ltx.models.base import Model
from ltx.models.foreign import TorchVision
from ltx.plugins import load_kind, offered

GROUPS: dict[str, Mapping[str, type[Model | Dataset | Choice | Method]]] = {
    "model": MODELS,
    "dataset": DATASETS,
    "goal": GOALS,
    "method": METHODS,
}
BASES: dict[str, type[Model | Dataset | Choice | Method]] = {
    "model": Model,
    "dataset": Dataset,
    "goal": Choice,
    "method": Method,
}
"""What each choice is a kind of."""
LAUNCHERS = {"slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher"}
"""What launchers need that does not come with ltx: the extras of the same names."""


def register(overrides: Sequence[str] = ()) -> None:
    """Tell Hydra the schema: the root, every member of every group, and what the overrides name besides.

    An installed package's network, data set, goal or method (entry points ltx.models, ltx.datasets, ...) is imported
    only when the command line chooses it.
    """
    store = ConfigStore.instance()
    if "run.yaml" not in store.repo:
        store.store(name="run", node=schema(Run))
        for group, members in GROUPS.items():
            for name, kind in members.items():
                offer(group, name, kind)
    for group, _, names in (text.partition("=") for text in overrides):
        for name in names.split(",") if group in GROUPS else ():
            if (kind := found(group, name)) is not None:
                offer(group, name, kind)


def found(group: str, name: str) -> Any:
    """What a name chooses that is not ltx's own: a network of torchvision's, an installed package's class."""
    if group == "model" and name.startswith("torchvision:"):
        return TorchVision(arch=name.removeprefix("torchvision:"))
    if name not in GROUPS[group] and (entry := offered(f"ltx.{group}s").get(name)):
        return load_kind(group, entry, BASES[group])
    return None


def named(group: str, choice: str, kind: type) -> str:
    """What a choice is called in a run's name and configuration; a file of the user's own by what it sets."""
    entries = offered(f"ltx.{group}s")
    if choice.partition(":")[0] in GROUPS[group] or choice in entries:
        return choice
    known = {name for name, one in GROUPS[group].items() if one is kind}
    known |= {
        name for name, entry in entries.items() if entry.value == f"{kind.__module__}:{kind.__qualname__}"
    }
    return next(iter(sorted(known)), choice)


def offer(group: str, name: str, kind: object) -> None:
    """Let `group=name` choose a kind, which takes keys of others too: `fit` drops or refuses them."""
    node = schema(kind)
    OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(group=group, name=name, node=node)


def schema(kind: object) -> DictConfig:
    """A frozen dataclass as a schema that Hydra may fill in, and that still refuses unknown keys."""
    node: DictConfig = OmegaConf.structured(kind)

    def writable(part: DictConfig) -> None:
        OmegaConf.set_readonly(part, None)
        for key in part:
            if not OmegaConf.is_missing(part, key) and OmegaConf.is_dict(part[key]):
                writable(part[key])

    writable(node)
    return node


def config_dir() -> str:
    """The shipped experiments: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    return str(next(d for d in (here / "configs", here.parent / "configs") if (d / "ltx.yaml").is_file()))


def options(group: str, extra_dir: str | None = None) -> list[str]:
    """Names that `group=` takes: ours, and those in the user's own folder."""
    folders = [Path(folder, group) for folder in (config_dir(), extra_dir) if folder]
    files = (file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml"))
    stored = ConfigStore.instance().list(group) if group in GROUPS else []
    return sorted(
        {*(name.removesuffix(".yaml") for name in stored), *(str(f.with_suffix("")) for f in files)}
    )


def experiments() -> list[str]:
    """The shipped experiments: names that `config=` takes."""
    return options("config")


def keys() -> list[str]:
    """Every key that some experiment has, dotted."""
    return list(kinds())


def kinds() -> dict[str, Any]:
    """The type of every key that some experiment has."""

    def walk(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        hints = get_type_hints(owner)
        for f in fields(owner):
            yield f"{prefix}{f.name}", hints[f.name]
            if is_dataclass(hints[f.name]):
                yield from walk(hints[f.name], f"{prefix}{f.name}.")

    members = [(f"{group}.", kind) for group, kinds in GROUPS.items() for kind in kinds.values()]
    return {key: kind for prefix, owner in [("", Run), *members] for key, kind in walk(owner, prefix)}
