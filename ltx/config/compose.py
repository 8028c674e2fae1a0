"""From words to checked experiments, by Hydra, without running anything."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ltx.config import hydra
from ltx.config.explain import explained, unknown_key
from ltx.config.identity import Composed
from ltx.config.overrides import check_override
from ltx.config.registry import GROUPS, LAUNCHERS, config_dir, keys, named, options, register
from ltx.config.run import Run
from ltx.config.trust import LAUNCHER, SETTINGS, check_file, check_hydra, search
from ltx.core.goals import GOALS, Auto
from ltx.errors import UserError, shortened

WRONG = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)
"""What Hydra raises for a mistake of the user's."""


def compose(overrides: Sequence[str], extra_dir: str | None = None) -> Composed:
    """Compose and check an experiment without running anything; raises UserError in one line."""
    for word in overrides:
        if word.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise UserError(
                f"{shortened(word)} is not possible: a run has no settings of Hydra's, a sweep has"
            )
    return compose_all([overrides], extra_dir)[0]


def compose_all(combinations: Sequence[Sequence[str]], extra_dir: str | None = None) -> list[Composed]:
    """Compose and check experiments without running anything; raises UserError for the first that is wrong."""
    words = list(dict.fromkeys(word for overrides in combinations for word in overrides))
    register(words)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        composer = Composer(words, extra_dir)
        return [composer.experiment(overrides) for overrides in combinations]


class Composer:
    """Composes experiments of some words: those of one choice of groups (config, method, ...) share what Hydra
    composes of it, which takes a tenth of a second; their values are set one by one."""

    def __init__(self, words: Sequence[str], extra_dir: str | None) -> None:
        self.extra_dir = extra_dir
        self.search = search(extra_dir)
        self.parsed: dict[str, Override] = {word: check_override(word, extra_dir) for word in words}
        self.choosing = {word for word in words if self._chooses(self.parsed[word])}
        self.bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def _chooses(self, override: Override) -> bool:
        return override.is_hydra_override() or bool(options(override.key_or_group, self.extra_dir))

    def experiment(self, overrides: Sequence[str]) -> Composed:
        """A checked experiment; raises UserError."""
        try:
            config, choices = copy.deepcopy(self._base([word for word in overrides if word in self.choosing]))
            hydra.apply([self.parsed[word] for word in overrides if word not in self.choosing], config)
            check_typed(config, overrides)
            made = checked(config, choices)
        except WRONG as error:
            raise explained(error, overrides, self.extra_dir) from error
        check_written(made, overrides)
        own = ["-cd", self.extra_dir] if self.extra_dir else []
        return replace(made, words=(*own, *overrides))

    def _base(self, chosen: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """What Hydra composes of choices alone, and their names."""
        if (key := tuple(chosen)) not in self.bases:
            whole = hydra_compose("ltx", [*self.search, *chosen], return_hydra_config=True)
            choices = dict(whole.hydra.runtime.choices)
            if self.search:
                self._check_files(whole.hydra, chosen, choices)
            check_hydra(whole.hydra)
            with flag_override(whole, ["readonly", "struct"], False):
                del whole["hydra"]
            self.bases[key] = whole, choices
        return self.bases[key]

    def _check_files(self, settings: DictConfig, chosen: Sequence[str], choices: dict[str, str]) -> None:
        """Refuse what files of the user's own ask of Hydra: all of it differs from what Hydra makes without them."""
        typed = [word for word in chosen if word.lstrip("+~").startswith("hydra")]
        launcher = [word for word in chosen if word.startswith("launcher=")]
        shipped = choices["hydra/launcher"].removeprefix("ltx_")
        if shipped not in ("local", *LAUNCHERS):
            raise UserError(
                f"launcher/{choices['launcher']}.yaml must begin with one of ltx's: `defaults: [slurm, _self_]`"
            )
        alone, with_launcher = (
            hydra_compose("ltx", [*self.search, *words, *typed], return_hydra_config=True).hydra
            for words in ([f"launcher={shipped}"], launcher)
        )
        check_file(with_launcher, alone, LAUNCHER, f"launcher/{choices['launcher']}.yaml")
        check_file(settings, with_launcher, SETTINGS, f"config/{choices['config']}.yaml")


def checked(config: DictConfig, choices: dict[str, str]) -> Composed:
    """What Hydra composed as a checked experiment; raises UserError."""
    dropped = fit(config, choices["config"])
    run = OmegaConf.to_object(config)
    assert isinstance(run, Run)
    if type(run.goal) is GOALS.get(run.dataset.goal or ""):  # said or not, it is the same experiment
        run, choices = replace(run, goal=Auto()), choices | {"goal": "auto"}
    names = {group: named(group, choices[group], type(getattr(run, group))) for group in GROUPS}
    return Composed(run, choices["config"], names, dropped)


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
