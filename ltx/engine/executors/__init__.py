"""How R networks are executed: a new way is a file beside these and a line here."""

from __future__ import annotations

from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.engine.executors.base import Executor, network_of
from ltx.engine.executors.channels import Channels
from ltx.engine.executors.separate import Separate
from ltx.engine.executors.skip import StackedSkip
from ltx.engine.executors.sparse import Sparse, demand_engine
from ltx.engine.executors.stacked import Stacked

__all__ = [
    "EXECUTORS",
    "Channels",
    "Executor",
    "Separate",
    "Sparse",
    "Stacked",
    "StackedSkip",
    "choose",
    "demand_engine",
]

EXECUTORS: tuple[type[Executor], ...] = (Channels, Sparse, Stacked, StackedSkip, Separate)
"""The first that suits is taken; the order is one of measured speed."""


def choose(task: Task, round: Round) -> type[Executor]:
    """The fastest way of executing the task's network under the round's mask."""
    network = network_of(task, round)
    return next(way for way in EXECUTORS if way.suits(network, task, round))
