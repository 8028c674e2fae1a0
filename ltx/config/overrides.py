"""What was typed: KEY=VALUE words, each one value for one key that there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ltx.config import hydra
from ltx.config.explain import first_line, unknown_key
from ltx.config.registry import GROUPS, LAUNCHERS, keys, options
from ltx.config.run import Run
from ltx.config.trust import check_interpolation
from ltx.errors import UserError, shortened, unknown


def check_override(text: str, extra_dir: str | None = None) -> Override:
    """One value for one key, its names known; raises UserError if it is not that."""
    parsed = parse(text, extra_dir)
    key = parsed.key_or_group
    if not key:
        raise UserError(f"{text!r} is not KEY=VALUE")
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
        if extra_dir and (other := Path(extra_dir, key, f"{value}.yml")).is_file():
            raise UserError(f"{text} is not possible: call {other} {value}.yaml")
        raise unknown(key, str(value), options(key, extra_dir))
    if key == "launcher" and find_spec(LAUNCHERS.get(str(parsed.value()), "ltx")) is None:
        raise UserError(f"{text} needs more than is installed: pip install 'ltx[{parsed.value()}]'")
    return parsed


def parse(text: str, extra_dir: str | None = None) -> Override:
    """What an override says; raises UserError if Hydra cannot read it."""
    check_interpolation(text)
    try:
        return hydra.read(text)
    except RecursionError as error:
        raise UserError(f"{shortened(text)} is not possible: its lists lie too deep in each other") from error
    except ValueError as error:  # Python reads no number of more than 4300 digits
        raise UserError(f"{shortened(text)} is not possible: no number has so many digits") from error
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals:
            hint = f" (did you mean config={text}?)" if text in options("config", extra_dir) else ""
            raise UserError(f"{shortened(text)!r} is not KEY=VALUE{hint}") from error
        why = first_line(error).partition(" expecting ")[0]
        why = why.replace("mismatched input '<EOF>'", "it ends too early")
        if re.search(r"[^\w.,'-]", value):
            why += f"; a value with = , [ ] or such stands in quotes of its own: '{key}=\"{value}\"'"
        raise UserError(f"{shortened(text)!r} cannot be read: {shortened(why)}") from error


def swept(text: str) -> bool:
    """Whether an override names several values."""
    try:
        return parse(text).is_sweep_override()
    except UserError:
        return False


def quoted(text: str) -> str:
    """A text as a value in Hydra's grammar, whatever characters it has."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', re.sub(r"(\\+)$", r"\1\1", text))
    return f'"{escaped}"'


SETTINGS = ("hydra.launcher.", "hydra.sweeper.", "hydra.job.env_set.", "hydra/sweeper", "hydra.mode=")


def check_settings(words: Sequence[str]) -> None:
    """Refuse Hydra's settings that a sweep makes no use of; raises UserError."""
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if "_target_" in key:
            raise UserError(f"{shortened(word)} is not possible: launcher= and hydra/sweeper= choose by name")
        if key.startswith("hydra") and not f"{key}=".startswith(SETTINGS):
            raise UserError(
                f"{shortened(word)} is not possible: of Hydra's settings a sweep takes hydra.launcher.*, "
                "hydra.sweeper.*, hydra.job.env_set.* and hydra/sweeper"
            )
