"""What masks look like: how far those of different seeds agree, and which units they cut off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltx.core.ticket import Tree

COLUMNS = ["overlap", "chance", "outputs", "dead_outputs", "inputs", "dead_inputs"]


def described(mask: Tree, sound: Tensor) -> dict[str, list[tuple[Any, ...]]]:
    """The `COLUMNS` of every layer, a row per replicate; only `sound` [R] ones are compared with."""
    return {name: rows(alive, sound.to(alive.device)) for name, alive in mask.items()}


def rows(alive: Tensor, sound: Tensor) -> list[tuple[Any, ...]]:
    """One layer's rows from its masks [R, outputs, inputs, ...]."""
    outputs, inputs = alive.shape[1:3]
    measured = (*overlap(alive, sound), dead_outputs(alive), dead_inputs(alive))
    return [
        (round(share, 6), round(chance, 6), outputs, unfed, inputs, unread)
        for share, chance, unfed, unread in zip(*(part.tolist() for part in measured), strict=True)
    ]


def overlap(alive: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each mask the others keep too, |A ∩ B| / |A|, and what chance gives, |B| / size: [R] each.

    Both are means over the other sound replicates B; NaN where there is none. Chance is the expectation for
    masks drawn at random with as many weights in the layer.
    """
    flat = alive.flatten(1).float()
    both = flat @ flat.T  # [R, R] weights that two masks keep
    kept = both.diagonal()
    others = (sound & ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)).float()
    share = others / others.sum(1, keepdim=True)
    return (share * both).sum(1) / kept, share @ kept / flat.shape[1]


def dead_outputs(alive: Tensor) -> Tensor:
    """How many output units have no living weight coming in, [R]."""
    # A byte's maximum: torch is a hundred times slower at `any` on a CPU.
    return (alive.view(torch.uint8).flatten(2).amax(2) == 0).sum(1)


def dead_inputs(alive: Tensor) -> Tensor:
    """How many input units have no living weight going out, [R]; of a grouped convolution, in no group."""
    return (alive.view(torch.uint8).amax((1, *range(3, alive.dim()))) == 0).sum(1)
