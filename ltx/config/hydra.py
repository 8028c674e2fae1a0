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


def check_flags(flags: Sequence[str]) -> None:
    """Refuse flags that Hydra does not have; raises UserError."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `ltx run --hydra-help` lists Hydra's flags")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    if strange := parser.parse_known_args(list(flags))[1]:
        refuse(f"unknown flag {strange[0]}")


def complete(line: str) -> list[str]:
    """The words that a shell may offer at the end of half-typed overrides."""
    loader = GlobalHydra.instance().config_loader()
    return DefaultCompletionPlugin(loader)._query("ltx", line)
