"""What the files of others may ask of Hydra: settings, never a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltx.errors import UserError, demand


def search(extra_dir: str | None) -> list[str]:
    """The override that lets Hydra find the user's own files; raises UserError if the folder is not there."""
    if extra_dir is None:
        return []
    if not Path(extra_dir).is_dir():
        raise UserError(f"--config-dir {extra_dir} is not a folder")
    return [f"hydra.searchpath=[file://{Path(extra_dir).resolve()}]"]


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
