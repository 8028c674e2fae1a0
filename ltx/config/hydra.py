"""What ltx uses of Hydra that Hydra does not promise: the day of its next version is this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from omegaconf import DictConfig

from ltx.errors import UserError


def read(text: str) -> Override:
    """What an override says; raises HydraException if it is none."""
    return OverridesParser.create().parse_override(text)


def apply(values: Sequence[Override], config: DictConfig) -> None:
    """Set values in a composed configuration; raises HydraException for a key that it lacks."""
    ConfigLoaderImpl._apply_overrides_to_config(list(values), config)


def combinations(parsed: Sequence[Override]) -> list[list[str]]:
    """Every combination of the values that overrides name, each as overrides."""
    return BasicSweeper.split_arguments(list(parsed), None)[0]


def read_flags(flags: Sequence[str]) -> tuple[str | None, list[str], bool]:
    """The folder of -cd, the flags with which Hydra only shows something, and whether -m is there.

    Raises UserError for flags that Hydra does not have, and for those that name other files than were checked.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `ltx run --hydra-help` lists Hydra's flags")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    given, strange = parser.parse_known_args(list(flags))
    if strange:
        refuse(f"unknown flag {strange[0]}")
    if sum(flag.startswith(("-cd", "--config-d")) for flag in flags) > 1:
        refuse("-cd is given twice: an experiment has one folder of files of one's own")
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if getattr(given, flag) is not None:
            refuse(f"--{flag.replace('_', '-')} is not possible: -cd DIR and config=NAME choose what is run")
    if given.resolve and not (given.cfg or given.help):
        refuse("--resolve goes with --cfg job")
    if given.package and not given.cfg:
        refuse("--package goes with --cfg job")
    told = {"--cfg": given.cfg, "--package": given.package, "--info": given.info}
    shows = [f"{flag}={value}" for flag, value in told.items() if value]
    shows += [f"--{flag.replace('_', '-')}" for flag in SHOWING if getattr(given, flag)]
    return given.config_dir, shows, given.multirun


SHOWING = ("help", "hydra_help", "resolve", "shell_completion")
"""Flags without a value, with which Hydra shows something."""


def complete(line: str) -> list[str]:
    """The words that a shell may offer at the end of half-typed overrides."""
    loader = GlobalHydra.instance().config_loader()
    return DefaultCompletionPlugin(loader)._query("ltx", line)
