"""What a ticket cost: the search that found it and its own training, counted in one way for every method.

Evaluation and the scoring of an untrained network (a handful of batches) are left out, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltx.core.task import Task
from ltx.core.ticket import Key, Round, Trained
from ltx.pruning.channels import shrunk
from ltx.streams import seeded

COLUMNS = [
    f"{part}{measure}"
    for measure in ("steps", "epochs", "macs", "seconds", "cpu_joules", "gpu_joules")
    for part in ("search_", "", "total_")
]


@dataclass(frozen=True)
class Cost:
    """Steps, multiply-accumulates, seconds and joules of training, [R] each; NaN where no counter tells."""

    steps: Tensor
    macs: Tensor
    seconds: Tensor
    cpu_joules: Tensor
    gpu_joules: Tensor

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{measure: mine + vars(other)[measure] for measure, mine in vars(self).items()})

    def up_to(self, steps: Tensor) -> Cost:
        """The share of the first `steps` [R]."""
        share = steps.double() / self.steps.clamp(min=1)
        rest = (self.seconds * share, self.cpu_joules * share, self.gpu_joules * share)
        return Cost(steps, (self.macs * share).round().long(), *rest)


class Ledger:
    """Adds up what the rounds of a run cost."""

    def __init__(self, task: Task) -> None:
        self.task, self.spent, self.whole = task, dict[Key, Cost](), 0

    def rows(self, round: Round, trained: Trained) -> list[tuple[Any, ...]]:
        """The `COLUMNS` of a round, a row per replicate; rounds come in the order they were asked for."""
        own = self._own(round, trained)
        found = sum(self._found(round), start=own.up_to(trained.steps * 0))
        self.spent.setdefault(round.key, own)
        parts = (found, own, found + own)
        columns = [
            *(part.steps for part in parts),
            *(part.steps / round.plan.epoch for part in parts),
            *(part.macs for part in parts),
            *(part.seconds for part in parts),
            *(part.cpu_joules for part in parts),
            *(part.gpu_joules for part in parts),
        ]
        return [tuple(map(short, row)) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def _found(self, round: Round) -> list[Cost]:
        """What the search for the round's ticket cost."""
        if round.found_by is None:
            return [
                cost for (level, role), cost in self.spent.items() if role == "ticket" and level < round.level
            ]
        return [self.spent[key].up_to(steps.cpu()) for key, steps in round.found_by.items()]

    def _own(self, round: Round, trained: Trained) -> Cost:
        """What its training cost: masked networks are computed whole, those without channels are smaller."""
        self.whole = self.whole or macs(self.task.network(), self.task.data.shape)
        each = [self.whole] * self.task.replicates
        if round.channels:
            parts = [round.only(r).channels for r in range(self.task.replicates)]
            networks = (
                shrunk(
                    self.task.network(), self.task.data.shape, {name: k[0] for name, k in part.items()}
                ).network
                for part in parts
            )
            each = [macs(network, self.task.data.shape) for network in networks]
        # What was measured of all replicates together is shared out among them.
        measured = torch.tensor([trained.seconds, *trained.joules.tolist()], dtype=torch.float64)
        shares = measured[:, None].expand(-1, self.task.replicates) / self.task.replicates
        return Cost(trained.steps, trained.steps * round.plan.batch_size * torch.tensor(each), *shares)


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one training example, forward and backward, by PyTorch's own counter."""
    device = next(network.parameters()).device
    with seeded(0, "cost"), FlopCounterMode(display=False) as counter:
        network.train()(torch.zeros(2, *shape, device=device)).sum().backward()  # BatchNorm needs two
    return int(counter.get_total_flops()) // 4  # two examples, and two operations each


def short(value: float) -> float:
    """A measurement without the digits that mean nothing."""
    return value if isinstance(value, int) else float(f"{value:.6g}")
