"""What the files of others may ask for: settings, never a program, and nothing without end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from ltx.errors import UserError, demand, shortened
from ltx.files import bounded_yaml, read_text

VALUES = 10_000
"""In an experiment's file."""
GLOBAL = ("config", "launcher")
"""Folders of files that set keys of the whole configuration, whether or not they say so in their first line."""


def search(extra_dir: str | None) -> list[str]:
    """The override that lets Hydra find the user's own files; raises UserError if the folder is not there."""
    if extra_dir is None:
        return []
    try:
        there = Path(extra_dir).is_dir()
    except (OSError, ValueError):  # a name too long for any folder
        there = False
    if not there:
        raise UserError(f"--config-dir {shortened(extra_dir)} is not a folder")
    # Percent-encoded: Hydra's grammar knows few characters, and a home may have others. See ltx_plugins/_own.py.
    return [f"hydra.searchpath=[ltx://{quote(str(Path(extra_dir).resolve())).replace('~', '%7E')}]"]


def read(folder: Path, name: str) -> tuple[DictConfig, str | None]:
    """A file of the user's, and the package that its keys go to; raises UserError in one line."""
    path = folder / name
    text = read_text(path.resolve()).removeprefix("\ufeff")
    try:
        bounded_yaml(text, VALUES)
        config = OmegaConf.load(StringIO(text or "{}"))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{path}{line} is not YAML: {why}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except OSError:  # OmegaConf's word for a number
        config = ListConfig([])
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} must hold keys and values, as in `recipe: {{steps: 100}}`")
    for key, value in flat(config).items():
        check_interpolation(f"{key}={value}", f"{path}: ")
    package = re.search(r"\A(?:\s*#.*\n)*?\s*#\s*@package\s+(\S+)", text)
    return config, package[1] if package else "_global_" if Path(name).parts[0] in GLOBAL else None


def check_interpolation(text: str, place: str = "") -> None:
    """Refuse what would call a resolver, which could publish a secret of the environment; raises UserError."""
    rest = re.sub(r"\$\{[\w.\[\]]+\}", "", text)
    if "${" in rest:
        raise UserError(f"{place}{shortened(text)} is not possible: ${{}} holds the name of a key alone")


SETTINGS = re.compile(
    r"launcher\.(jobs|jobs_per_gpu|partition|qos|account|constraint|timeout_min|signal_delay_s|max_num_timeout"
    r"|nodes|tasks_per_node|cpus_per_task|gpus_per_node|gpus_per_task|mem_gb|mem_per_cpu|mem_per_gpu"
    r"|array_parallelism|on_interrupt|ray\.remote\.\w+)"
    r"|sweeper\.(direction|n_trials|max_batch_size|params\.[\w.]+)"
)
"""Hydra's settings that an experiment may have: numbers and names, which start nothing."""
LAUNCHER = re.compile(r"launcher\.(?!_|.*\._).*|job\.env_set\.LTX_LOCK_SECONDS")
"""Those of a file in launcher/, which is chosen by name on the command line; its `setup` is a script."""
OF_THE_MOMENT = re.compile(r"runtime\.|overrides\.|job\.(name|override_dirname|config_name)$|searchpath")


def check_file(settings: DictConfig, before: DictConfig, allowed: re.Pattern[str], place: str) -> None:
    """Refuse what a file of the user's made of Hydra's settings but for those allowed; raises UserError."""
    was = flat(before)
    for key, value in flat(settings).items():
        new = value not in (was.get(key), None, [], {}) and not OF_THE_MOMENT.match(key)
        if new and not (allowed.fullmatch(key) and re.fullmatch(r"[^\x00-\x1f\x7f]*", str(value))):
            raise UserError(
                f"{place}: hydra.{key}={value} is refused: a configuration must not be a program, nor say where "
                "Hydra writes; what starts something is typed on the command line"
            )


def flat(config: DictConfig) -> dict[str, Any]:
    """Values by their dotted keys, lists as they are, nothing resolved."""

    def walk(node: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    tree: Any = OmegaConf.to_container(config, resolve=False)
    return dict(walk(tree, ""))


def check_hydra(settings: DictConfig) -> None:
    """Refuse settings of launchers that make no sense; raises UserError."""
    for key in ("jobs", "jobs_per_gpu"):
        if key in settings.launcher and (value := settings.launcher[key]) is not None:
            demand(value >= 1, f"hydra.launcher.{key}", value, "it must be 1 or more")
    for key, value in flat(settings.launcher).items():  # each becomes a line of a script
        whole = key == "setup" or not re.search(r"[\x00-\x1f\x7f]", str(value))
        demand(whole, f"hydra.launcher.{key}", value, "it must be one line; hydra.launcher.setup is a script")
