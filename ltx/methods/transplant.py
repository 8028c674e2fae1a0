"""Another run's ticket on this network: does it carry over to another seed, data set or recipe?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Layers, Task
from ltx.core.ticket import Round, Ticket, Tree, digest
from ltx.errors import UserError
from ltx.knobs import FILE, knob, one_of
from ltx.methods.base import Method, Search
from ltx.pruning.portable import Portable, read

TRANSFERS = ("mask", "signs", "weights")


@dataclass(frozen=True)
class Transplant(Method):
    """A ticket found elsewhere, trained here (Morcos et al. 2019): its mask, or what else it had at the start.

    The last dense layer, where it has another number of classes, is drawn anew and left dense.
    """

    summary: ClassVar[str] = "train a ticket of another run: method.ticket=FILE, made by `ltx ticket`"

    ticket: str = knob("", FILE, "the ticket's file, made by `ltx ticket`", result=False)
    transfer: str = knob(
        "mask",
        one_of(TRANSFERS),
        "mask: over this run's own initial weights | signs: those with the ticket's signs | weights: the ticket's own",
    )

    def check(self, layers: Layers, plan: Plan | None) -> None:
        found = read(Path(self.ticket))
        if wrong := list(mismatches(found, layers)):
            raise UserError(f"method.ticket={self.ticket} does not fit this network: {'; '.join(wrong)}")

    def notes(self, layers: Layers) -> Iterator[str]:
        for name in redrawn(read(Path(self.ticket)), layers):
            yield f"{name} has another size than in the ticket: it is drawn anew and left dense"

    def search(self, task: Task, dense: Ticket, plan: Plan) -> Search:
        found = read(Path(self.ticket))
        yield Round(0, dense, plan)
        mask = {
            name: alive if name in redrawn(found, task.layers) else like(found.mask[name], alive)
            for name, alive in dense.mask.items()
        }
        kept = {name: int(alive[0].sum()) for name, alive in mask.items()}
        weights = self.start(task, found, dense.weights)
        yield Round(1, Ticket(weights, mask), plan, kept=kept, found_by={})

    def start(self, task: Task, found: Portable, own: Tree) -> Tree:
        """What training starts from, by what is transferred; of layers that are drawn anew, this run's own."""
        if self.transfer == "mask":
            return own
        theirs = found.weights or self.drawn(task, found)
        both = {
            name for name, tensor in own.items() if name in theirs and tensor[0].shape == theirs[name].shape
        }
        if self.transfer == "weights":
            return own | {name: like(theirs[name], own[name]) for name in both}
        return own | {
            name: torch.copysign(own[name], like(theirs[name], own[name]))
            for name in both & found.mask.keys()
        }

    def drawn(self, task: Task, found: Portable) -> Tree:
        """The ticket's initial weights, drawn again from its seed's stream; raises UserError if they are others."""
        initial = replace(task, seeds=(int(found.about["seed"]),)).initial()
        weights = {name: stack[0] for name, stack in initial.items()}
        if digest(weights) != found.about["weights"]:
            raise UserError(
                f"method.transfer={self.transfer} needs the weights of {self.ticket}, which this network does not "
                "draw again: make it with `ltx ticket --weights`"
            )
        return weights


def like(tensor: Tensor, stack: Tensor) -> Tensor:
    """A tensor for every replicate of a stack [R, *shape], in memory of its own."""
    return tensor.to(stack.device, stack.dtype).expand_as(stack).clone()


def redrawn(found: Portable, layers: Layers) -> list[str]:
    """Output layers of another size than the ticket's."""
    shapes = found.mask
    return [
        name
        for name, kind in layers.kinds.items()
        if kind == "output" and name in shapes and shapes[name].numel() != layers.sizes[name]
    ]


def mismatches(found: Portable, layers: Layers) -> Iterator[str]:
    """What does not fit, layer by layer."""
    other = redrawn(found, layers)
    for name in layers.prunable:
        if name not in found.mask:
            yield f"the ticket has no {name}"
        elif name not in other and found.mask[name].numel() != layers.sizes[name]:
            yield f"{name} has {layers.sizes[name]:,} weights here, {found.mask[name].numel():,} in the ticket"
    for name in found.mask:
        if name not in layers.prunable:
            yield f"{name} of the ticket may not be pruned here"
