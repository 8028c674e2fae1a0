"""Scores to masks. Pure functions over stacked trees; counts are exact and ties fall to the lower index."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ltx.core.ticket import Tree


def top(scores: Tensor, alive: Tensor, count: int) -> Tensor:
    """Mask [R, n] of the `count` highest-scored living entries of each row; scores and alive are [R, n].

    A stable sort, so that equal scores are kept from the lowest index on and never one too many is pruned
    (a threshold prunes ties together). NaN, the score of a diverged replicate, counts as lowest.
    """
    assert count <= int(alive.sum(1).min()), "only what lives can be kept"
    ranked = torch.where(alive, scores.nan_to_num(nan=-torch.finfo(scores.dtype).max), -torch.inf)
    best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(alive).scatter_(1, best, True)


def by_layer(scores: Tree, mask: Tree, kept: dict[str, int]) -> Tree:
    """Keep exactly `kept[name]` weights of each layer."""
    return {
        name: top(scores[name].flatten(1), alive.flatten(1), kept[name]).view_as(alive)
        for name, alive in mask.items()
    }


def globally(scores: Tree, mask: Tree, kept: int) -> Tree:
    """Keep exactly `kept` weights of all layers together."""
    flat = torch.cat([scores[name].flatten(1) for name in mask], dim=1)
    alive = torch.cat([alive.flatten(1) for alive in mask.values()], dim=1)
    parts = top(flat, alive, kept).split([alive[0].numel() for alive in mask.values()], dim=1)
    return {name: part.reshape(alive.shape) for (name, alive), part in zip(mask.items(), parts, strict=True)}


def connected(scores: Tree, kept: int) -> Tree:
    """Keep exactly `kept` of all entries together, the best of each part among them: [R, n] each."""
    every = {name: torch.ones_like(part, dtype=torch.bool) for name, part in scores.items()}
    first = {name: torch.where(top(part, every[name], 1), torch.inf, part) for name, part in scores.items()}
    return globally(first, every, max(kept, len(scores)))


def emptied(mask: Tree) -> list[str]:
    """Names of layers in which some replicate has no weight left: the network no longer connects."""
    return [name for name, alive in mask.items() if not alive.flatten(1).any(1).all()]


def packed(masks: Tensor) -> Tensor:
    """Bits of a bool tensor along its last axis, uint8."""
    return torch.from_numpy(np.packbits(masks.numpy(), axis=-1))


def unpacked(bits: Tensor, channels: int | None = None) -> Tensor:
    """The bool tensor that `packed` packed; without a number of channels, with zeros at its end."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1, count=channels)).bool()
