"""`ltx compare`: what tickets are to each other, to the dense network, and to the solution they were cut from.

Evci et al. 2022, section 4: tickets that only relearn the pruned solution agree with it and with each other, add
little as an ensemble, and lie in its basin; networks from scratch do none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Ticket, Tree
from ltx.engine.evaluate import own_outputs
from ltx.errors import UserError, demand
from ltx.experiment.tables import table
from ltx.files import write
from ltx.manifest import enter
from ltx.report.figures.networks import draw
from ltx.report.networks import summarized
from ltx.study.line import barrier, between
from ltx.study.reopen import Kept, diverged, load_task, reopen, trained_levels
from ltx.study.show import read_manifest

NETWORKS = (
    "level role draw density seed accuracy ensemble disagreement dense_disagreement dense_l2 "
    "solution_disagreement solution_l2 solution_barrier other_disagreement"
).split()
"""Columns of compare.csv: one network a row; an ensemble is that of all seeds, the same in each of its rows."""


@dataclass(frozen=True)
class Group:
    """The trained networks of one round, all its seeds, and the class that each names for every test example."""

    level: int
    role: str
    draw: int
    weights: Tree  # [R, *shape]
    outputs: Tensor  # [R, N, K] on the test split
    sound: Tensor  # [R] bool: those that did not diverge

    @property
    def classes(self) -> Tensor:
        return self.outputs.argmax(2)


def compare(
    folder: Path, levels: str | None = None, other: Path | None = None, *, trust: bool = False
) -> Path:
    """Compare a run's networks, and with those of another run on the same data; returns the folder of the tables.

    Reads the run's weights and data, trains nothing; `trust`: runs the code that their configurations name.
    Raises UserError.
    """
    manifest, run = read_manifest(folder), reopen(folder, trust=trust)
    demand(
        manifest.get("goal", {}).get("measure", "accuracy") == "accuracy",
        "RUN",
        folder,
        "it learns no classes: disagreement is of classes",
    )
    task, plan = load_task(run, manifest), run.recipe.plan(manifest["examples"]["train"])
    demand(task.replicates > 1, "RUN", folder, "it has one seed: two or more can be compared")
    chosen = asked(trained_levels(folder), levels)
    beside = opened(other, manifest["fingerprint"], trust=trust) if other else None
    rows = [row for level in chosen for row in measured(folder, task, plan, level, run.method.nested, beside)]
    out = folder / "compare"
    write(out / "compare.csv", table(NETWORKS, rows), folder)
    write(out / "compare.md", summarized(out / "compare.csv").encode(), folder)
    drawn = draw(out, f"{manifest['config']} · {manifest['method']}: how far networks agree")
    enter(folder, [out / "compare.csv", out / "compare.md", *drawn])
    return out


def asked(there: list[int], text: str | None) -> list[int]:
    """The levels asked for; raises UserError for one that the run has not."""
    if text is None:
        return there
    wanted = [int(part) if part.strip().isdecimal() and len(part) < 5 else -1 for part in text.split(",")]
    demand(set(wanted) <= set(there), "--levels", text, f"the run has levels {', '.join(map(str, there))}")
    return sorted(set(wanted))


def opened(folder: Path, fingerprint: str, *, trust: bool) -> tuple[Path, Task]:
    """Another run to compare with, on the same data; raises UserError."""
    manifest = read_manifest(folder)
    demand(manifest["fingerprint"] == fingerprint, "--other", folder, "it was trained on other data")
    return folder, load_task(reopen(folder, trust=trust), manifest)


def measured(
    folder: Path, task: Task, plan: Plan, level: int, nested: bool, beside: tuple[Path, Task] | None
) -> Iterator[tuple[Any, ...]]:
    """The rows of every round of a level."""
    dense = group(folder, task, 0, "ticket")
    for place in sorted((folder / f"level_{level:02d}").glob("*/trained.safetensors")):
        mine = group(folder, task, level, place.parent.name)
        found = columns(task, plan, mine, dense)
        if level:
            parent = group(folder, task, *origin(folder, level, nested))
            found |= solution(task, plan, mine, parent, Kept(folder, level, None, mine.role, mine.draw).mask)
        if beside and (beside[0] / f"level_{level:02d}" / place.parent.name).is_dir():
            found["other_disagreement"] = between_runs(mine, group(*beside, level, place.parent.name))
        density = densities(folder, task, mine)
        for r, seed in enumerate(task.seeds):
            values = [float(found[name][r]) if name in found else float("nan") for name in NETWORKS[5:]]
            yield level, mine.role, mine.draw, density[r], seed, *(round(value, 6) for value in values)


def origin(folder: Path, level: int, nested: bool) -> tuple[int, str]:
    """Which round's weights a level's mask was cut from: a search of its own, the level before, or the dense one's."""
    searched = (folder / f"level_{level:02d}" / "search" / "trained.safetensors").exists()
    return (level, "search") if searched else (level - 1 if nested else 0, "ticket")


def densities(folder: Path, task: Task, mine: Group) -> list[float]:
    """The density of each seed's network."""
    mask = Kept(folder, mine.level, None, mine.role, mine.draw).mask
    return task.density(Ticket({}, mask)).tolist()


def group(folder: Path, task: Task, level: int, name: str) -> Group:
    """The networks of one round's folder; raises UserError if its weights were not kept."""
    role, _, draw = name.partition("_") if name.rpartition("_")[2].isdecimal() else (name, "", "0")
    weights = Kept(folder, level, None, role, int(draw)).trained
    weights = {key: tensor.to(task.device) for key, tensor in weights.items()}
    parts = [own_outputs(task, weights, task.data.prepare(inputs)) for inputs, _ in task.data.test.chunks()]
    outputs = torch.cat(parts, 1)
    lost = diverged(folder, level + 1, task.seeds) | ~outputs.isfinite().flatten(1).all(1).cpu()
    return Group(level, role, int(draw), weights, outputs, ~lost)


def columns(task: Task, plan: Plan, mine: Group, dense: Group) -> dict[str, Tensor]:
    """What can be said of networks beside each other and beside the dense ones of their seeds, [R] each."""
    targets = task.data.test.targets
    together = mine.outputs[mine.sound].softmax(2).mean(0).argmax(1)
    found = {
        "accuracy": (mine.classes == targets).double().mean(1),
        "ensemble": (together == targets).double().mean().expand(task.replicates),
        "disagreement": among(mine),
    }
    if mine.level:
        found["dense_disagreement"] = (mine.classes != dense.classes).double().mean(1)
        found["dense_l2"] = distance(mine.weights, dense.weights)
    return {name: torch.where(mine.sound, value.cpu(), torch.nan) for name, value in found.items()}


def among(mine: Group) -> Tensor:
    """How much of the test split each network classifies otherwise than the others of its round, their mean."""
    share = torch.full((len(mine.sound),), torch.nan, dtype=torch.float64)
    for r in range(len(mine.sound)):
        others = [o for o in range(len(mine.sound)) if o != r and mine.sound[o]]
        if others:
            share[r] = (mine.classes[others] != mine.classes[r]).double().mean()
    return share


def solution(task: Task, plan: Plan, mine: Group, parent: Group, mask: Tree) -> dict[str, Tensor]:
    """The networks beside what their masks were cut from: the parent's trained weights under the mask."""
    mask = {name: alive.to(task.device) for name, alive in mask.items()}
    pruned = {
        name: torch.where(mask[name], tensor, 0) if name in mask else tensor
        for name, tensor in parent.weights.items()
    }
    line = between(task, plan, mine.weights, pruned)
    sound = mine.sound & parent.sound
    found = {
        "solution_disagreement": line.disagreement,
        "solution_l2": line.l2,
        "solution_barrier": barrier(line.test_error),
    }
    return {name: torch.where(sound, value.double(), torch.nan) for name, value in found.items()}


def between_runs(mine: Group, theirs: Group) -> Tensor:
    """How much each network disagrees with those of another run's round, their mean, [R]."""
    share = torch.full((len(mine.sound),), torch.nan, dtype=torch.float64)
    pairs = [(r, o) for r, o in product(range(len(mine.sound)), range(len(theirs.sound))) if theirs.sound[o]]
    for r in range(len(mine.sound)):
        values = [(mine.classes[a] != theirs.classes[o]).double().mean() for a, o in pairs if a == r]
        if values and mine.sound[r]:
            share[r] = torch.stack(values).mean()
    return share


def distance(one: Tree, other: Tree) -> Tensor:
    """The L2 distance of two stacks of weights over all floating-point tensors, [R]."""
    squares = [
        (one[name] - other[name]).flatten(1).double().square().sum(1)
        for name in one
        if one[name].is_floating_point()
    ]
    if not squares:
        raise UserError("these networks have no weights")
    return torch.stack(squares).sum(0).sqrt()
