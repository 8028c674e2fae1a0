"""Controls: a ticket made worse on purpose. Each is a pure function Ticket -> Ticket with the same layer counts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ltx.draw import stream
from ltx.task import Task
from ltx.ticket import Ticket, Tree

Control = Callable[[Task, Ticket, int, int], Ticket]


def shuffled(task: Task, ticket: Ticket, level: int, draw: int) -> Tree:
    """The mask permuted within each layer, another permutation for every replicate, layer and draw."""
    mask = {}
    for name, alive in ticket.mask.items():
        order = torch.stack(
            [
                torch.randperm(alive[0].numel(), generator=stream(seed, "shuffle", level, draw, name))
                for seed in task.seeds
            ]
        )
        mask[name] = alive.flatten(1).gather(1, order.to(alive.device)).view_as(alive)
    return mask


def reinit(task: Task, ticket: Ticket, level: int, draw: int) -> Ticket:
    """The ticket's mask over a new initialisation (LTH section 2, "random reinitialization")."""
    return ticket.rewound(task.initial("reinit", level, draw))


def shuffle(task: Task, ticket: Ticket, level: int, draw: int) -> Ticket:
    """The ticket's weights under its mask permuted within each layer (Frankle et al. 2021, section 5)."""
    return ticket.masked(shuffled(task, ticket, level, draw))


def random(task: Task, ticket: Ticket, level: int, draw: int) -> Ticket:
    """A new initialisation under a random mask with the ticket's layer counts (LTH Figure 1, dashed)."""
    return reinit(task, ticket, level, draw).masked(shuffled(task, ticket, level, draw))


CONTROLS: dict[str, Control] = {"reinit": reinit, "shuffle": shuffle, "random": random}
