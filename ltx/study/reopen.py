"""A run, read back from its folder: its experiment and its tickets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltx.config.run import Run
from ltx.config.stored import stored
from ltx.core import sealed
from ltx.core.sealed import Header
from ltx.core.task import Task
from ltx.core.ticket import Ticket, Tree, below, digest
from ltx.errors import Damaged, UserError, demand, unknown
from ltx.files import read_csv, read_yaml
from ltx.pruning.masks import unpacked
from ltx.streams import drawing


def reopen(folder: Path, device: str | None = None, *, trust: bool = False) -> Run:
    """The experiment that a run's folder was made from; raises UserError, for code that it names unless `trust`ed."""
    path = folder / "config.yaml"
    changes = {"device": device} if device else {}
    return stored(read_yaml(path), str(path), trust=trust, **changes)


def trained_levels(folder: Path) -> list[int]:
    """The levels whose tickets have been trained; a folder counts as the level that its files say."""
    found = [file for file in folder.glob("level_*/ticket/trained.safetensors") if at_home(folder, file)]
    demand(len(found) > 0, "RUN", folder, "no network has been trained there yet")
    return sorted(int(file.parts[-3][6:]) for file in found)


def at_home(folder: Path, file: Path) -> bool:
    """Whether a round's file says that it belongs where it lies; raises Outdated."""
    name = re.fullmatch(r"level_(\d+)", file.parts[-3])
    try:
        said = sealed.read_header(file, folder)
    except (FileNotFoundError, Damaged):
        return False
    return name is not None and place(int(name[1]), file.parts[-2], file.stem).items() <= said.items()


def place(level: int, name: str, kind: str) -> dict[str, Any]:
    """What a file says that lies in `level_LEVEL/NAME/KIND.safetensors`."""
    role, _, draw = name.rpartition("_") if re.search(r"_\d+$", name) else (name, "", "0")
    return {"level": level, "role": role, "draw": int(draw), "kind": kind}


def open_file(folder: Path, level: int, name: str, kind: str) -> tuple[Tree, Header]:
    """A round's `ticket` or `trained` file with its header; raises UserError if it is missing, Damaged, Outdated."""
    path = folder / f"level_{level:02d}" / name / f"{kind}.safetensors"
    try:
        found = sealed.read(path, folder)
    except FileNotFoundError:
        files = sorted(folder.glob("level_*/*/trained.safetensors"))
        there = ", ".join(str(file.parent.relative_to(folder)) for file in files) or "no network"
        raise UserError(f"{path} does not exist; the folder has the weights of {there}") from None
    sealed.demand_place(path, found.header, place(level, name, kind))
    return found.tree, found.header


def open_ticket(folder: Path, level: int, name: str = "ticket") -> tuple[Ticket, Header]:
    """A ticket [R, *shape] as the run left it, with what its file says; raises UserError."""
    tree, header = open_file(folder, level, name, "ticket")
    return Ticket(open_weights(folder, header["weights"]), unpacked_mask(tree, header["layers"])), header


def open_weights(folder: Path, sha: str) -> Tree:
    """Weights [R, *shape] by their digest; raises UserError if they are missing, Damaged if they are others."""
    path = folder / "weights" / f"{sha}.safetensors"
    try:
        found = sealed.read(path, folder)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: these weights were not kept") from None
    sealed.demand_place(path, found.header, {"kind": "weights", "weights": sha})
    if digest(found.tree) != sha:
        raise Damaged(path, "its weights are others than its name says")
    return found.tree


def unpacked_mask(bits: Tree, layers: dict[str, Any]) -> Tree:
    """Masks [R, *shape] bool from their bits, whose shapes the layer table has."""
    shapes = {name: layers[name]["shape"] for name in below(bits, "mask/")}
    return {
        name: unpacked(bits[f"mask/{name}"], prod(shape)).unflatten(1, shape)
        for name, shape in shapes.items()
    }


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
        """Bool, True = alive when training ended; prunable weights only."""
        (tree, header), (_, about) = self._trained, self._opened
        return self._of_seed(unpacked_mask(tree, about["layers"]), header) or self._ticket.mask

    @cached_property
    def start(self) -> Tree:
        """The parameters and buffers that training began with, zero where pruned."""
        return self._ticket.start()

    @cached_property
    def trained(self) -> Tree:
        """The parameters and buffers that training ended with."""
        tree, header = self._trained
        return self._of_seed(below(tree, "final/"), header)

    @property
    def name(self) -> str:
        """The round's folder below its level's."""
        return f"{self.role}_{self.draw}" if self.draw else self.role

    @cached_property
    def _trained(self) -> tuple[Tree, Header]:
        return open_file(self.folder, self.level, self.name, "trained")

    @cached_property
    def _opened(self) -> tuple[Ticket, Header]:
        return open_ticket(self.folder, self.level, self.name)

    @cached_property
    def _ticket(self) -> Ticket:
        ticket, header = self._opened
        return Ticket(self._of_seed(ticket.weights, header), self._of_seed(ticket.mask, header))

    def _of_seed(self, tree: Tree, header: Header) -> Tree:
        """The part of the seed, without the axis of replicates; all of it if no seed was asked for."""
        seeds = header["seeds"]
        if self.seed is None:
            return tree
        demand(self.seed in seeds, "seed", self.seed, f"the run has seeds {', '.join(map(str, seeds))}")
        return {name: tensor[seeds.index(self.seed)] for name, tensor in tree.items()}


def skeleton(run: Run) -> nn.Module:
    """The run's network, its values of no account; where only the data know their shape, they are loaded."""
    known = run.dataset if run.dataset.shape and run.dataset.outputs else run.dataset.load()
    with drawing(0):
        network: nn.Module = run.model.build(known.shape, known.outputs)
        return network


def load_task(run: Run, manifest: dict[str, Any]) -> Task:
    """The run's task; a UserError if the data are no longer those that it was trained on."""
    device = run.torch_device()
    data = run.dataset.load()
    was = manifest["fingerprint"]
    demand(data.fingerprint == was, "dataset", data.fingerprint, f"the run was trained on data {was}")
    return run.task(data, device)


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
