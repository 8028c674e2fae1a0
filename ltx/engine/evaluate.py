"""How good R networks are on a whole split, by their goal."""

from __future__ import annotations

from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from ltx.core.goal import Goal
from ltx.core.task import Task
from ltx.core.ticket import Tree
from ltx.data.base import Data, Split
from ltx.models.base import evaluating, filled
from ltx.streams import seeded


class Outputs(Protocol):
    """R networks that can be asked."""

    def outputs(self, inputs: Tensor) -> Tensor:
        """Evaluation-mode outputs [R, N, K] of the same N inputs for every replicate."""


@torch.no_grad()
def evaluate(goal: Goal, network: Outputs, data: Data, split: Split) -> Tree:
    """The mean loss and the measures of every replicate on a whole split, by name, [R] each.

    The worst that the goal's measure can be stands for one that is not a number, as after divergence: in a
    curve NaN means that nothing was measured.
    """
    parts = (
        tallied(goal, network.outputs(data.prepare(inputs)), targets) for inputs, targets in split.chunks()
    )
    # In place: a small tensor kept from every chunk would stand where the next chunk's large ones could be.
    return measured(goal, reduce(Tensor.add_, parts), len(split), data)


@torch.no_grad()
def evaluate_own(goal: Goal, network: Outputs, data: Data, rows: Tensor) -> Tree:
    """As `evaluate`, each replicate on its own examples, `rows` [R, m] of the training split.

    Every replicate is asked about all of the split: folds together are as many, and no executor needs another way.
    """
    outputs = torch.cat([network.outputs(data.prepare(inputs)) for inputs, _ in data.train.chunks()], 1)
    own = outputs.gather(1, rows[..., None].expand(-1, -1, outputs.shape[2]))
    return measured(goal, goal.tally(own, data.train.targets[rows]), rows.shape[1], data)


def measured(goal: Goal, tally: Tensor, count: int, data: Data) -> Tree:
    """What a tally of `count` examples says, in the target's own unit where the goal has it so."""
    measured = goal.measures(tally, count)
    measured |= {name: measured[name] * data.unit for name in goal.in_unit}
    worst = -torch.inf if goal.higher else torch.inf
    return measured | {goal.measure: torch.nan_to_num(measured[goal.measure], worst, torch.inf, -torch.inf)}


def tallied(goal: Goal, outputs: Tensor, targets: Tensor) -> Tensor:
    """The goal's tally of outputs [R, n, K] against the same targets for every replicate."""
    return goal.tally(outputs, targets.expand(len(outputs), *targets.shape))


@torch.no_grad()
def own_outputs(task: Task, weights: Tree, inputs: Tensor) -> Tensor:
    """What the task's network itself, built anew, makes of inputs [N, ...] with R weights, [R, N, K]."""
    network, found = task.network(), []
    for r, seed in enumerate(task.seeds):
        filled(network, {name: tensor[r] for name, tensor in weights.items()})
        with seeded(seed, "evaluation"), evaluating(network):
            found.append(network(inputs).float())
    return torch.stack(found)
