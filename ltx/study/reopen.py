"""A run, read back from its folder: its experiment and its tickets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from ltx.config.explain import first_line
from ltx.config.registry import GROUPS, schema
from ltx.config.run import Run
from ltx.core.task import Task
from ltx.core.ticket import Ticket, Tree, below
from ltx.errors import UserError, demand, unknown
from ltx.experiment.store import read
from ltx.files import read_csv, read_yaml
from ltx.streams import seeded


def reopen(folder: Path, device: str | None = None) -> Run:
    """The experiment that a run's folder was made from; raises UserError."""
    path = folder / "config.yaml"
    try:
        tree: Any = OmegaConf.create(read_yaml(path))
        for group, members in GROUPS.items():
            name = tree[group].pop("name").partition(":")[0]  # torchvision:resnet18
            tree[group] = OmegaConf.merge(schema(members[name]), tree[group])
        run: Any = OmegaConf.to_object(
            OmegaConf.merge(schema(Run), tree, {"device": device} if device else {})
        )
    except (OmegaConfBaseException, KeyError, AttributeError) as error:
        raise UserError(f"{path} does not describe a run of this ltx: {first_line(error)}") from error
    return run


def trained_levels(folder: Path) -> list[int]:
    """The levels whose tickets have been trained."""
    found = sorted(int(path.parts[-3][6:]) for path in folder.glob("level_*/ticket/trained.safetensors"))
    demand(len(found) > 0, "RUN", folder, "no network has been trained there yet")
    return found


def open_file(folder: Path, level: int, round: str, kind: str) -> tuple[Tree, dict[str, str]]:
    """A round's `ticket` or `trained` file, with its header; raises UserError if it is missing or damaged."""
    path = folder / f"level_{level:02d}" / round / f"{kind}.safetensors"
    if not path.exists():
        there = sorted(
            str(p.parent.relative_to(folder)) for p in folder.glob("level_*/*/trained.safetensors")
        )
        raise UserError(
            f"{path} does not exist; the folder has the weights of {', '.join(there) or 'no network'}"
        )
    if (found := read(path)) is None:
        raise UserError(f"{path} is damaged; the command that made the run mends it")
    return found


def open_ticket(folder: Path, level: int) -> tuple[Tree, dict[str, str]]:
    """A level's ticket as the run left it, with its header; raises UserError."""
    return open_file(folder, level, "ticket", "ticket")


@dataclass(frozen=True)
class Kept:
    """A round's tensors on the CPU by parameter name, read when asked for: of one seed, or [R, *shape] of all."""

    folder: Path
    level: int
    seed: int | None
    role: str = "ticket"
    draw: int = 0

    @cached_property
    def mask(self) -> Tree:
        """Bool, True = alive; prunable weights only."""
        return self._tree("ticket", "mask/")

    @cached_property
    def start(self) -> Tree:
        """The parameters and buffers that training began with, zero where pruned."""
        return Ticket(self._tree("ticket", "weights/"), self.mask).start()

    @cached_property
    def trained(self) -> Tree:
        """The parameters and buffers that training ended with."""
        return self._tree("trained", "final/")

    def _tree(self, kind: str, prefix: str) -> Tree:
        name = f"{self.role}_{self.draw}" if self.draw else self.role
        tree, header = open_file(self.folder, self.level, name, kind)
        tree, seeds = below(tree, prefix), json.loads(header["seeds"])
        if self.seed is None:
            return tree
        demand(self.seed in seeds, "seed", self.seed, f"the run has seeds {', '.join(map(str, seeds))}")
        return {name: tensor[seeds.index(self.seed)] for name, tensor in tree.items()}


def skeleton(run: Run) -> nn.Module:
    """The run's network, its values of no account; where only the data know their shape, they are loaded."""
    known = run.dataset if run.dataset.shape and run.dataset.outputs else run.dataset.load()
    with seeded(0):
        return run.model.build(known.shape, known.outputs)


def load_task(run: Run, manifest: dict[str, Any]) -> Task:
    """The run's task; a UserError if the data are no longer those that it was trained on."""
    device = run.torch_device()
    data = run.dataset.load().to(device)
    was = manifest["fingerprint"]
    demand(data.fingerprint == was, "dataset", data.fingerprint, f"the run was trained on data {was}")
    layers = run.layers(data.shape, data.outputs)
    return Task(run.model, data, layers, run.seeds, device)


def examples(run: Run, manifest: dict[str, Any], split: str) -> tuple[Tensor, Tensor]:
    """Inputs [N, *shape] as a network sees them, and targets [N] or [N, K], of a split."""
    if split not in (splits := ("train", "val", "test")):
        raise unknown("split", split, splits)
    data = load_task(run, manifest).data
    part = getattr(data, split)
    return data.prepare(part.read(torch.arange(len(part), device=part.targets.device))), part.targets


def diverged(folder: Path, level: int, seeds: tuple[int, ...]) -> Tensor:
    """Whose mask at `level` follows from a diverged training, [R] bool."""
    before = [
        row
        for row in read_csv(folder / "levels.csv")
        if row["role"] == "ticket" and int(row["level"]) < level and row["diverged"] == "1"
    ]
    lost = {int(row["seed"]) for row in before}
    return torch.tensor([seed in lost for seed in seeds])
