"""What Hydra and OmegaConf refused, in one line that names the key as typed, what was given, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from hydra.errors import MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import MarkedYAMLError

from ltx.config.registry import GROUPS, keys, kinds, options
from ltx.config.run import Run
from ltx.errors import UserError, unknown


@dataclass(frozen=True)
class Typed:
    """What an error is explained by: the words that were typed, and where the user's own files are."""

    overrides: Sequence[str]
    extra_dir: str | None
    file: str | None  # the experiment in which Hydra met the error, as in config/mine

    @property
    def place(self) -> str:
        return f"{self.file}.yaml: " if self.file else ""

    def word(self, key: str) -> str | None:
        """The last word that sets a key, or one below it: an unknown `reciep` may have been `reciep.steps=3`."""
        words = [text for text in self.overrides if re.match(re.escape(key) + r"[.=]", text)]
        return words[-1] if words and not self.file else None

    def strange(self) -> str | None:
        """The first key typed that no experiment has."""
        known = {*keys(), "config", "launcher"}
        names = (text.partition("=")[0] for text in self.overrides)
        return next((name for name in names if name not in known and not name.startswith("hydra")), None)


def explained(error: Exception, overrides: Sequence[str], extra_dir: str | None) -> UserError:
    """The error as one line; of all that caused it, the first that SAYINGS has something to say of."""
    file = re.match(r"In '(.+?)': ", str(error))
    typed = Typed(overrides, extra_dir, file[1] if file else None)
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for kind, say in SAYINGS:
        for one in chain:
            if isinstance(one, kind) and (line := say(one, typed)):
                return UserError(line)
    if (strange := typed.strange()) is not None:
        return unknown_key(strange, Run)
    return UserError(first_line(error))


def not_there(error: MissingConfigException, typed: Typed) -> str | None:
    """A choice that does not exist."""
    if not error.missing_cfg_file:
        return None
    group, _, name = error.missing_cfg_file.rpartition("/")
    ours = group in (*GROUPS, "config", "launcher")
    there = options(group, typed.extra_dir) if ours else error.options or []
    return f"{typed.place}{unknown(group, name, there)}"


def not_yaml(error: MarkedYAMLError, typed: Typed) -> str | None:
    """A file that cannot be read."""
    mark = error.problem_mark
    return f"{mark.name}, line {mark.line + 1}, is not YAML: {error.problem}" if mark else None


def no_such_key(error: OmegaConfBaseException, typed: Typed) -> str | None:
    """A key that does not exist."""
    if (key := key_of(error)) is None:
        return None
    word = typed.word(key)
    return f"{typed.place}{unknown_key(word.partition('=')[0] if word else key, error.object_type)}"


def no_such_value(error: OmegaConfBaseException, typed: Typed) -> str | None:
    """A value that a key does not take."""
    if (key := key_of(error)) is None:
        return None
    given = typed.word(key) or (key if error.value is None else f"{key}={error.value}")
    kind = kinds().get(key)
    allowed = in_words(kind, key) if isinstance(error, ValidationError) and kind else first_line(error)
    return f"{typed.place}{given} is not possible: {allowed}"


def recursion(error: RecursionError, typed: Typed) -> str:
    """Files that name each other."""
    chosen = [text for text in typed.overrides if text.partition("=")[0] in ("config", *GROUPS, "launcher")]
    return (
        f"{' '.join(chosen) or 'the configuration'} cannot be read: its defaults name each other in a circle"
    )


SAYINGS: list[tuple[type[BaseException], Callable[[Any, Typed], str | None]]] = [
    (MissingConfigException, not_there),
    (MarkedYAMLError, not_yaml),
    (ConfigKeyError, no_such_key),
    (ConfigAttributeError, no_such_key),
    (OmegaConfBaseException, no_such_value),
    (RecursionError, recursion),
]
"""What there is to say of which exception, most telling first."""


def key_of(error: OmegaConfBaseException) -> str | None:
    """The key that an error is about, if it is one of ours."""
    path = re.sub(r"\[\d+\]", "", error.full_key or "")
    foreign = path.startswith(("hydra.", "_dummy_")) and not path.startswith("hydra.launcher.")
    return None if foreign or not path else path


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


def first_line(error: BaseException) -> str:
    """What an error of Hydra or OmegaConf says, without its lines of internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return " ".join(useful[:2]) if useful else type(error).__name__
