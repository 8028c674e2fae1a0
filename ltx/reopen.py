"""A run, read back from its folder: its experiment and its tickets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from ltx.config import GROUPS, Run, first_line, schema
from ltx.errors import UserError
from ltx.recipe import demand
from ltx.store import read
from ltx.ticket import Tree


def reopen(folder: Path, device: str | None = None) -> Run:
    """The experiment that a run's folder was made from; raises UserError."""
    path = folder / "config.yaml"
    try:
        tree: Any = OmegaConf.load(path)
        for group, members in GROUPS.items():
            name = tree[group].pop("name").partition(":")[0]  # torchvision:resnet18
            tree[group] = OmegaConf.merge(schema(members[name]), tree[group])
        run: Any = OmegaConf.to_object(
            OmegaConf.merge(schema(Run), tree, {"device": device} if device else {})
        )
    except (OSError, YAMLError, OmegaConfBaseException, KeyError, AttributeError) as error:
        raise UserError(f"{path} does not describe a run of this ltx: {first_line(error)}") from error
    return run


def trained_levels(folder: Path) -> list[int]:
    """The levels whose tickets have been trained."""
    found = sorted(int(path.parts[-3][6:]) for path in folder.glob("level_*/ticket/trained.safetensors"))
    demand(len(found) > 0, "RUN", folder, "no network has been trained there yet")
    return found


def open_ticket(folder: Path, level: int) -> tuple[Tree, dict[str, str]]:
    """A level's ticket as the run left it, with its header; raises UserError if it is damaged."""
    path = folder / f"level_{level:02d}" / "ticket" / "ticket.safetensors"
    if (found := read(path)) is None:
        raise UserError(f"{path} is damaged; the command that made the run mends it")
    return found


def diverged(folder: Path, level: int, seeds: tuple[int, ...]) -> Tensor:
    """Whose mask at `level` follows from a diverged training, [R] bool."""
    path, lost = folder / "levels.csv", set()
    if path.exists():
        with path.open(newline="") as file:
            before = [
                row for row in csv.DictReader(file) if row["role"] == "ticket" and int(row["level"]) < level
            ]
        lost = {int(row["seed"]) for row in before if row["diverged"] == "1"}
    return torch.tensor([seed in lost for seed in seeds])
