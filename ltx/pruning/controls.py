"""Controls: a ticket made worse on purpose. Each is a pure function of the ticket's round and the draw."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Tree
from ltx.streams import stream

Control = Callable[[Task, Round, int], Ticket]


def shuffled(task: Task, round: Round, draw: int) -> Tree:
    """The mask permuted within each layer, another permutation for every replicate, layer and draw."""
    mask = {}
    for name, alive in round.ticket.mask.items():
        order = torch.stack(
            [
                torch.randperm(alive[0].numel(), generator=stream(seed, "shuffle", round.level, draw, name))
                for seed in task.seeds
            ]
        )
        mask[name] = alive.flatten(1).gather(1, order.to(alive.device)).view_as(alive)
    return mask


def reinit(task: Task, round: Round, draw: int) -> Ticket:
    """The ticket's mask over a new initialisation (LTH section 2, "random reinitialization") of all that learns."""
    fixed = {name: round.ticket.weights[name] for name in task.layers.fixed}
    return round.ticket.rewound(task.initial("reinit", round.level, draw) | fixed)


def shuffle(task: Task, round: Round, draw: int) -> Ticket:
    """The ticket's weights under its mask permuted within each layer (Frankle et al. 2021, section 5)."""
    return round.ticket.masked(shuffled(task, round, draw))


def random(task: Task, round: Round, draw: int) -> Ticket:
    """A new initialisation under a random mask with the ticket's layer counts (LTH Figure 1, dashed)."""
    return reinit(task, round, draw).masked(shuffled(task, round, draw))


def invert(task: Task, round: Round, draw: int) -> Ticket:
    """The ticket's weights where the method would prune first (Frankle et al. 2021, section 5); no layer counts."""
    assert round.inverse is not None, "a method that offers this control says what it would prune first"
    return round.ticket.masked(round.inverse())


CONTROLS: dict[str, Control] = {"reinit": reinit, "shuffle": shuffle, "random": random, "invert": invert}
LAYERWISE = ("reinit", "shuffle", "random")
"""Those with the ticket's number of weights in every layer, which can be made of any ticket."""
REDRAWN = ("reinit", "random")
"""Those over initial weights that are drawn once more."""
