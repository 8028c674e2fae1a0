"""What lies on the straight line between two copies of a network that differ in nothing but the noise of SGD.

Instability analysis (Frankle et al. 2020, section 2): the copies are trained from the same weights with other
data order, augmentation and dropout; the error barrier between them is the network's instability to noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Tree, copied
from ltx.data.base import Split
from ltx.engine.executors import Executor, Separate, choose
from ltx.engine.feed import Feed
from ltx.streams import derive

POINTS = 30  # evenly spaced on the line, its ends among them (section 2)


@dataclass(frozen=True)
class Line:
    """What lies between the two copies of R networks; NaN where one of them diverged."""

    train_error: Tensor  # [R, POINTS] fractions, from the second copy (alpha = 0) to the first (alpha = 1)
    test_error: Tensor  # [R, POINTS]
    l2: Tensor  # [R] distance of the copies over all parameters (appendix G)
    disagreement: Tensor  # [R] fraction of test examples that the copies classify differently (appendix G)


def barrier(error: Tensor) -> Tensor:
    """Highest error on each line above the mean of its ends, [R] from [R, POINTS] (section 2)."""
    return error.max(1).values - (error[:, 0] + error[:, -1]) / 2


def twins(task: Task) -> Task:
    """The task for two copies of every replicate that differ in nothing but the noise of SGD, [2R]."""
    return replace(task, seeds=tuple(derive(seed, "copy", copy) for copy in (1, 2) for seed in task.seeds))


def doubled(tree: Tree) -> Tree:
    """Every replicate twice: [R, ...] to [2R, ...]."""
    return {name: torch.cat([tensor, tensor]) for name, tensor in tree.items()}


def halves(tree: Tree) -> tuple[Tree, Tree]:
    """The first and the second copies of a doubled tree."""
    parts = {name: tensor.chunk(2) for name, tensor in tree.items()}
    return {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}


@torch.no_grad()
def between(task: Task, plan: Plan, first: Tree, second: Tree, *, recalibrate: bool = False) -> Line:
    """The error at evenly spaced points alpha * first + (1 - alpha) * second, on all of train and test."""
    point, feed = copied(first), Feed(task, plan)
    # BatchNorm's running statistics are interpolated like weights; whole-number buffers are the first copy's.
    moving = [name for name, tensor in point.items() if tensor.is_floating_point()]
    round = Round(0, Ticket(first, {}), plan)
    network = (Separate if recalibrate else choose(task, round))(task, round)
    train_error, test_error, ends = [], [], []
    for i in range(POINTS):
        for name in moving:
            torch.lerp(second[name], first[name], i / (POINTS - 1), out=point[name])
        network.load(point)
        if isinstance(network, Separate) and recalibrate:
            estimate(network, feed)
        train_error.append(wrong(predictions(network, feed, task.data.train), task.data.train))
        found = predictions(network, feed, task.data.test)
        test_error.append(wrong(found, task.data.test))
        if i in (0, POINTS - 1):
            ends.append(found)
    squares = [(first[name] - second[name]).flatten(1).double().square().sum(1) for name in network.gradients]
    return Line(
        torch.stack(train_error, 1).cpu(),
        torch.stack(test_error, 1).cpu(),
        torch.stack(squares).sum(0).sqrt().float().cpu(),
        (ends[0] != ends[1]).float().mean(1).cpu(),
    )


def predictions(network: Executor, feed: Feed, split: Split) -> Tensor:
    """The class that every replicate names for every example, [R, N]."""
    return torch.cat([network.outputs(feed.prepare(part)).argmax(2) for part, _ in split.chunks()], dim=1)


def wrong(found: Tensor, split: Split) -> Tensor:
    """Error [R] of predictions [R, N]."""
    return (found != split.targets).float().mean(1)


def estimate(networks: Separate, feed: Feed) -> None:
    """BatchNorm statistics anew, in place: plain means over one epoch of training batches, as augmented."""
    for network in networks.networks:
        network.eval()
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.train()
                layer.reset_running_stats()
                layer.momentum = None  # every batch counts alike
    for step in range(feed.plan.epoch):
        images, _ = feed.batch(step)
        for network, x in zip(networks.networks, images, strict=True):
            network(networks.laid_out(x))
