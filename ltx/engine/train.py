"""Training one round: R replicates of one ticket, together or one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Curve, Round, Trained, Tree
from ltx.engine.executors import choose
from ltx.engine.training import Training


def train(task: Task, round: Round, session: Session) -> Trained:
    """Train the round's ticket to the end of its plan, or of the patience that the round has."""
    if not round.apart and alike(task, round):
        return Training(task, round, session).run()
    replicates = range(task.replicates)
    parts = [
        Training(task.only(r), round.only(r), session.part(round, r, task.replicates)) for r in replicates
    ]
    return joined([part.run(and_save=True) for part in parts])


def alike(task: Task, round: Round) -> bool:
    """Whether every replicate alone would be executed as the others: together they must not be otherwise."""
    if task.engine == "dense" or task.replicates == 1:
        return True
    return len({choose(task.only(r), round.only(r)) for r in range(task.replicates)}) == 1


def joined(parts: Sequence[Trained]) -> Trained:
    """Replicates that were trained apart, some by some in their order, as one outcome."""
    steps = torch.cat([part.curve.step for part in parts]).unique()

    def aligned(key: str) -> Tensor:
        blocks = [torch.full((len(part.steps), len(steps)), torch.nan) for part in parts]
        for block, part in zip(blocks, parts, strict=True):
            block[:, torch.searchsorted(steps, part.curve.step)] = part.curve.tree()[key]
        return torch.cat(blocks)

    def stacked(trees: Sequence[Tree]) -> Tree:
        return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}

    reached = set.intersection(*(set(part.at) for part in parts))
    measures = [key for key in parts[0].curve.tree() if key != "step"]
    return Trained(
        final=stacked([part.final for part in parts]),
        mask=stacked([part.mask for part in parts]),
        at={step: stacked([part.at[step] for part in parts]) for step in sorted(reached)},
        curve=Curve.of({"step": steps, **{key: aligned(key) for key in measures}}),
        train_measure=torch.cat([part.train_measure for part in parts]),
        diverged=torch.cat([part.diverged for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        seconds=sum(part.seconds for part in parts),
        joules=torch.stack([part.joules for part in parts]).sum(0),
        memo=stacked([part.memo for part in parts]),
        engine=" + ".join(sorted({engine for part in parts for engine in part.engine.split(" + ")})),
        optimizer=stacked([part.optimizer for part in parts]),
    )
