"""The experiment as typed data: what Hydra composes, and what is checked before any data is touched."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import hydra
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf, flag_override
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import MarkedYAMLError, YAMLError

from ltx.config.trackers import TRACKERS
from ltx.core.recipe import Recipe
from ltx.core.task import Layers, Prunable
from ltx.data import DATASETS
from ltx.data.base import Dataset
from ltx.errors import UserError, demand, unknown
from ltx.knobs import Knobs, at_least, each, knob, one_of
from ltx.methods import METHODS
from ltx.methods.base import Method
from ltx.models import MODELS
from ltx.models.base import Model
from ltx.models.foreign import TorchVision
from ltx.plugins import load_kind, offered
from ltx.pruning.controls import CONTROLS
from ltx.report.objective import Objective
from ltx.streams import seeded

# An environment variable could carry a secret into a published result.
OmegaConf.clear_resolver("oc.env")

NOT_IN_THE_RESULT = (
    *("out", "device", "checkpoint_seconds", "dataset.root", "dataset.workers"),
    *("objective", "tracker"),
)
"""Keys that say where a run happens and who is told, not what comes out: data count by their fingerprint."""


@dataclass(frozen=True)
class Run(Knobs):
    """One experiment: a network on a data set, trained by a recipe, searched by a method, for some seeds."""

    model: Any = knob(MISSING, None, "the network")
    dataset: Any = knob(MISSING, None, "what it learns")
    method: Any = knob(MISSING, None, "how its tickets are found")
    recipe: Recipe = knob(Recipe, None, "how one network is trained")
    prunable: Prunable = knob(Prunable, None, "which weights may be pruned")
    seed: int = knob(0, at_least(0), "the first seed")
    replicates: int = knob(1, at_least(1), "how many seeds: seed, seed + 1, ...")
    controls: list[str] = knob(
        [],
        each(one_of(CONTROLS)),
        "tickets made worse on purpose, trained beside each ticket",
        grows=True,
    )
    control_draws: int = knob(1, at_least(1), "how often each control is drawn for each ticket", grows=True)
    out: str = knob("results", None, "the folder that runs go under", result=False)
    device: str = knob("auto", None, "auto | cpu | cuda | cuda:1 | mps", result=False)
    checkpoint_seconds: float = knob(
        60.0, at_least(0.0), "a kill costs at most this much training", result=False
    )
    objective: Objective = knob(
        Objective,
        None,
        "the validation measure that a search for hyper-parameters is told",
        result=False,
    )
    tracker: str | None = knob(
        None,
        one_of(TRACKERS),
        "mirrors the metrics: tensorboard | wandb | trackio | mlflow | ...",
        result=False,
    )

    def __post_init__(self) -> None:
        for key, kind in BASES.items():
            demand(
                isinstance(getattr(self, key), kind), key, getattr(self, key), "choose one with `ltx list`"
            )
        super().__post_init__()
        for control in self.controls:
            demand(
                control in self.method.controls,
                "controls",
                self.controls,
                f"this method's tickets can be compared with {', '.join(self.method.controls)} only",
            )
        demand(len(set(self.controls)) == len(self.controls), "controls", self.controls, "name each once")
        if self.dataset.shape and self.dataset.outputs:
            layers = self.layers(self.dataset.shape, self.dataset.outputs)
            size = self.dataset.train_size
            self.method.check(layers, self.recipe.plan(size) if size else None)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.replicates))

    def layers(self, shape: tuple[int, ...], outputs: int) -> Layers:
        """The network's layers for inputs of a shape."""
        with seeded(0):  # built in earnest: torch's meta device takes a second to import
            return Layers.of(self.model.build(shape, outputs), self.prunable)

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


GROUPS: dict[str, Mapping[str, type[Model | Dataset | Method]]] = {
    "model": MODELS,
    "dataset": DATASETS,
    "method": METHODS,
}
BASES = {"model": Model, "dataset": Dataset, "method": Method}
LAUNCHERS = {"slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher"}
"""What launchers need that does not come with ltx: the extras of the same names."""


def register(overrides: Sequence[str] = ()) -> None:
    """Tell Hydra the schema: the root, every member of every group, and what the overrides name besides.

    An installed package's network, data set or method (entry points ltx.models, ltx.datasets, ltx.methods) is
    imported only when the command line chooses it.
    """
    store = ConfigStore.instance()
    if "run.yaml" not in store.repo:
        store.store(name="run", node=schema(Run))
        for group, members in GROUPS.items():
            for name, kind in members.items():
                node = schema(kind)
                OmegaConf.set_struct(node, False)  # it takes keys of others, which `fit` drops or refuses
                store.store(group=group, name=name, node=node)
    for group, name in (text.split("=", 1) for text in overrides if text.partition("=")[0] in GROUPS):
        if group == "model" and name.startswith("torchvision:"):
            arch = name.removeprefix("torchvision:")
            store.store(group=group, name=name, node=schema(TorchVision(arch=arch)))
        elif name not in GROUPS[group] and (entry := offered(f"ltx.{group}s").get(name)):
            store.store(group=group, name=name, node=schema(load_kind(group, entry, BASES[group])))


def schema(kind: object) -> DictConfig:
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
    here = Path(__file__).resolve().parent.parent
    return str(next(d for d in (here / "configs", here.parent / "configs") if (d / "ltx.yaml").is_file()))


@dataclass(frozen=True)
class Composed:
    """A checked experiment, its name, and the configuration that it was made from."""

    run: Run
    name: str  # the experiment: what `config=` chose
    config: dict[str, Any]  # resolved
    dropped: tuple[str, ...] = ()  # keys that the experiment sets for what another choice has replaced

    @classmethod
    def of(cls, config: DictConfig, choices: dict[str, str]) -> Composed:
        """Turn what Hydra composed into a checked Run; raises UserError."""
        dropped = fit(config, choices["config"])
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        run = OmegaConf.to_object(config)
        assert isinstance(run, Run)
        chosen = {group: {"name": choices[group]} | resolved[group] for group in GROUPS}
        return cls(run, choices["config"], resolved | chosen, dropped)

    def seeded(self, first: int, count: int) -> Composed:
        """The same experiment for other seeds."""
        run = replace(self.run, seed=first, replicates=count)
        return replace(self, run=run, config=self.config | {"seed": first, "replicates": count})

    def folder(self, fingerprint: str) -> Path:
        """Where the run lives: readable, and another for every configuration or data that change the result."""
        what = {"data": fingerprint, **copy.deepcopy(self.config)}
        for key in NOT_IN_THE_RESULT:
            group, _, name = key.rpartition(".")
            (what[group] if group else what).pop(name, None)
        tag = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
        parts = [self.config[group]["name"] for group in ("model", "dataset", "method")]
        seeds = f"s{self.run.seed}x{self.run.replicates}"
        return Path(self.run.out) / self.name / "-".join([*parts, seeds, tag]).replace(":", "-")


def fit(config: DictConfig, experiment: str) -> tuple[str, ...]:
    """Drop the keys of another model, data set or method than was chosen; raises UserError if nobody has them."""
    foreign = [f"{group}.{key}" for group in GROUPS for key in config[group] if key not in own(config, group)]
    for name in foreign:
        group, _, key = name.partition(".")
        if name not in keys():
            raise UserError(
                f"config/{experiment}.yaml: {unknown_key(name, OmegaConf.get_type(config, group))}"
            )
        with flag_override(config, ["readonly", "struct"], False):
            del config[group][key]
    return tuple(foreign)


def own(config: DictConfig, group: str) -> set[str]:
    """The keys of what was chosen from a group."""
    kind: Any = OmegaConf.get_type(config, group)
    return {f.name for f in fields(kind)}


def compose(overrides: Sequence[str], extra_dir: str | None = None) -> Composed:
    """Compose and check an experiment without running anything; raises UserError in one line."""
    return compose_all([overrides], extra_dir)[0]


def compose_all(combinations: Sequence[Sequence[str]], extra_dir: str | None = None) -> list[Composed]:
    """Compose and check experiments without running anything; raises UserError for the first that is wrong.

    Those of one choice of groups (config, method, ...) share what Hydra composes of it, which takes a tenth of a
    second; their values are set one by one.
    """
    words = list(dict.fromkeys(word for overrides in combinations for word in overrides))
    register(words)
    if extra_dir is not None and not Path(extra_dir).is_dir():
        raise UserError(f"--config-dir {extra_dir} is not a folder")
    search = [f"hydra.searchpath=[file://{Path(extra_dir).resolve()}]"] if extra_dir else []
    parsed: dict[str, Override] = {}
    bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def composed(overrides: Sequence[str]) -> Composed:
        chosen = tuple(word for word in overrides if word in choosing)
        if chosen not in bases:
            whole = hydra.compose("ltx", [*search, *chosen], return_hydra_config=True)
            check_hydra(whole.hydra)
            choices = dict(whole.hydra.runtime.choices)
            with flag_override(whole, ["readonly", "struct"], False):
                del whole["hydra"]
            bases[chosen] = whole, choices
        config, choices = copy.deepcopy(bases[chosen])
        values = [parsed[word] for word in overrides if word not in choosing]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        check_typed(config, overrides)
        made = Composed.of(config, choices)
        check_written(made, overrides)
        return made

    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        for word in words:
            parsed[word] = check_override(word, extra_dir)
        choosing = {
            word
            for word, override in parsed.items()
            if override.is_hydra_override() or options(override.key_or_group, extra_dir)
        }
        done = []
        for overrides in combinations:
            try:
                done.append(composed(overrides))
            except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
                raise explained(error, overrides, extra_dir) from error
    return done


def check_override(text: str, extra_dir: str | None = None) -> Override:
    """One value for one key, its names known; raises UserError if it is not that."""
    parsed = parse(text, extra_dir)
    key = parsed.key_or_group
    if key.startswith("hydra"):
        return parsed
    if parsed.is_delete():
        raise UserError(f"{text} is not possible: every key is needed; give it a value instead")
    if parsed.is_add() or parsed.is_force_add():
        plain = text.lstrip("+")
        if key not in keys():
            raise unknown_key(key, Run)
        raise UserError(f"{text} is not possible: no key can be added; write {plain}")
    if parsed.is_sweep_override():
        raise UserError(f"{text} names several values: a run takes one, `ltx sweep` takes them all")
    if key in (*GROUPS, "config", "launcher") and (value := parsed.value()) not in options(key, extra_dir):
        raise unknown(key, str(value), options(key, extra_dir))
    if key == "launcher" and find_spec(LAUNCHERS.get(str(parsed.value()), "ltx")) is None:
        raise UserError(f"{text} needs more than is installed: pip install 'ltx[{parsed.value()}]'")
    return parsed


def parse(text: str, extra_dir: str | None = None) -> Override:
    """What an override says; raises UserError if Hydra cannot read it."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals:
            hint = f" (did you mean config={text}?)" if text in options("config", extra_dir) else ""
            raise UserError(f"{text!r} is not KEY=VALUE{hint}") from error
        why = first_line(error).partition(" expecting ")[0]
        why = why.replace("mismatched input '<EOF>'", "it ends too early")
        if re.search(r"[^\w.,'-]", value):
            why += f"; a value with = , [ ] or such stands in quotes of its own: '{key}=\"{value}\"'"
        raise UserError(f"{text!r} cannot be read: {why}") from error


def check_typed(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse typed keys that the chosen model, data set or method does not have; raises UserError."""
    for key in (text.partition("=")[0] for text in overrides):
        group, _, rest = key.partition(".")
        if group in GROUPS and rest and rest.split(".")[0] not in own(config, group):
            raise unknown_key(key, OmegaConf.get_type(config, group))


def check_written(composed: Composed, overrides: Sequence[str]) -> None:
    """Refuse keys that an experiment sets although what it chose itself lacks them; raises UserError."""
    chosen = {text.partition("=")[0] for text in overrides}
    for key in composed.dropped:
        if (group := key.partition(".")[0]) not in chosen:
            owner = type(getattr(composed.run, group))
            raise UserError(f"config/{composed.name}.yaml: {unknown_key(key, owner)}")


def swept(text: str) -> bool:
    """Whether an override names several values."""
    try:
        return parse(text).is_sweep_override()
    except UserError:
        return False


def check_hydra(settings: DictConfig) -> None:
    """Refuse Hydra settings that make no sense or would run code which a configuration names; raises UserError.

    Launchers and sweepers are left out: Hydra itself takes those of installed plugins alone.
    """

    def walk(node: Any, path: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            loaded = key == "class" and not str(value).startswith("logging.")
            if key in ("_target_", "()") or loaded:
                raise UserError(f"{path}.{key}={value} is refused: a configuration must not be a program")
            if isinstance(value, dict | list):
                walk(value, f"{path}.{key}")

    for key in ("jobs", "jobs_per_gpu"):
        if key in settings.launcher and (value := settings.launcher[key]) is not None:
            demand(value >= 1, f"hydra.launcher.{key}", value, "it must be 1 or more")
    for part in ("callbacks", "job_logging", "hydra_logging"):
        walk(OmegaConf.to_container(settings[part], resolve=False), f"hydra.{part}")


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


def explained(error: Exception, overrides: Sequence[str], extra_dir: str | None) -> UserError:
    """What Hydra refused, as one line that names the key as typed, what was given, and what is allowed."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    file = re.match(r"In '(.+?)': ", str(error))
    place = f"{file[1]}.yaml: " if file else ""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        there = options(group, extra_dir) if group in (*GROUPS, "config", "launcher") else error.options or []
        return UserError(f"{place}{unknown(group, name, there)}")
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return UserError(f"{mark.name}, line {mark.line + 1}, is not YAML: {error.problem}")
    culprit = next((e for e in chain if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    path = culprit.full_key or "" if culprit else ""
    launcher = path.startswith("hydra.launcher.")
    if culprit is None or (path.startswith(("hydra.", "_dummy_")) and not launcher):
        strange = [name for text in overrides if (name := text.partition("=")[0]) not in keys()]
        strange = [
            name for name in strange if not name.startswith("hydra") and name not in ("config", "launcher")
        ]
        return unknown_key(strange[0], Run) if strange else UserError(first_line(error))
    key = re.sub(r"\[\d+\]", "", path)
    # As typed: an unknown `reciep` may have been `reciep.steps=3`.
    typed = [text for text in overrides if re.match(re.escape(key) + r"[.=]", text)]
    if isinstance(culprit, ConfigKeyError | ConfigAttributeError):
        name = typed[-1].partition("=")[0] if typed and not file else key
        return UserError(f"{place}{unknown_key(name, culprit.object_type)}")
    given = typed[-1] if typed and not file else key if culprit.value is None else f"{key}={culprit.value}"
    kind = kinds().get(key)
    allowed = in_words(kind, key) if isinstance(culprit, ValidationError) and kind else first_line(culprit)
    return UserError(f"{place}{given} is not possible: {allowed}")


def unknown_key(key: str, owner: Any) -> UserError:
    """The error for a key that does not exist, with the nearest that does and those of its owner."""
    prefix, _, leaf = key.rpartition(".")
    if not is_dataclass(owner) or owner is Run:
        prefix, owner = "", Run
    beside = [f"{prefix}.{f.name}".lstrip(".") for f in fields(owner) if not f.name.startswith("_")]
    elsewhere = [name for name in keys() if name.endswith(f".{leaf}") and name != key]
    near = get_close_matches(key, beside if prefix else keys(), n=1, cutoff=0.75)
    near = near or elsewhere[:1] or [name for name in beside if key.startswith(f"{name}.")]
    hint = f"did you mean {near[0]}? " if near else ""
    choice = f"choose from {', '.join(beside)}" if beside else f"this {prefix} has no keys"
    return UserError(f"unknown key {key}: {hint}{choice}")


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


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def in_words(kind: Any, key: str) -> str:
    """What a key of a type may be set to."""
    if is_dataclass(kind):
        return f"set one of {', '.join(f'{key}.{f.name}' for f in fields(kind))}"
    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is list:
        return f"it must be a list, each {WORDS.get(parts[0], 'value')}, written {key}=[...]"
    optional = " or null" if len(parts) < len(get_args(kind)) else ""
    return f"it must be {WORDS.get(parts[0] if parts else kind, str(kind))}{optional}"


def first_line(error: Exception) -> str:
    """What an error of Hydra or OmegaConf says, without its lines of internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return " ".join(useful[:2]) if useful else type(error).__name__
