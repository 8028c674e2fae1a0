"""Proximal operators: what a penalty with kinks does to weights after a gradient step, exact zeros included.

Pure functions over stacks: the leading axes, replicates first, are batches; thresholds broadcast over them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(weights: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(w) · max(|w| - t, 0): the proximal operator of t · Σ|w|; any shape."""
    return weights.sign() * (weights.abs() - threshold).relu_()


def shrinkage(norms: Tensor, threshold: float | Tensor) -> Tensor:
    """max(1 - t / ‖w_g‖, 0) of every group, 0 where the norm is 0: times w_g, the proximal operator of t · Σ‖w_g‖.

    Yuan & Lin 2006. `norms` and the result are [..., groups].
    """
    return torch.where(norms > TINY, (1 - threshold / norms.clamp_min(TINY)).relu_(), 0)


TINY = torch.finfo(torch.float32).tiny
"""A norm that is no larger counts as 0: what it would be divided by is no number any more."""


def hierarchical(
    skip: Tensor, first: Tensor, threshold: float | Tensor, M: float, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """LassoNet's HIER-PROX: min ½‖v - skip‖² + ½‖u - first‖² + t · Σ‖v_j‖ over ‖u_j‖∞ ≤ M · ‖v_j‖.

    Lemhadri et al. 2021, section 4.1 and Algorithm 2. `skip` is [..., K, d], `first` [..., h, d]: column j
    holds all weights that leave feature j. `groups` [d] int64 numbers the group of each feature from 0: its
    columns come and go together. `threshold` is a number or [..., 1]. Returns v and u.

    With b = ‖v_j‖, b is the root of b - ‖skip_j‖ + t - M · Σ max(|first_ij| - M · b, 0), which rises and is
    concave: Newton's steps end, exactly, where two in turn bind as many weights. No sorting, and few steps after
    a small change. A skip weight of 0 stays 0, and its feature with it, as in lassonet 0.0.21: every
    direction would be as good.
    """
    size = first.abs()
    norm = by_feature(skip.square(), groups).sqrt()
    rest, count = norm - threshold, torch.full_like(norm, -1)
    bound = rest.relu()
    for _ in range(first.shape[-2] + 2):  # equal numbers in float32 could else take turns for ever
        binding = size > (M * spread(bound, groups)).unsqueeze(-2)
        bindings = by_feature(binding.to(size.dtype), groups)
        if bool((bindings == count).all()):
            break
        count = bindings
        bound = ((rest + M * by_feature(size * binding, groups)) / (1 + count * M**2)).relu_()
    bound = torch.where(norm > TINY, bound, 0)
    limit = (M * spread(bound, groups)).unsqueeze(-2)
    scale = spread(bound / norm.clamp_min(TINY), groups).unsqueeze(-2)
    return skip * scale, first.clamp(-limit, limit)


def by_feature(weights: Tensor, groups: Tensor | None) -> Tensor:
    """Sums of [..., n, d] over n, and over the features of each group if there are groups."""
    sums = weights.sum(-2)
    if groups is None:
        return sums
    return sums.new_zeros(*sums.shape[:-1], int(groups.max()) + 1).index_add_(-1, groups, sums)


def spread(values: Tensor, groups: Tensor | None) -> Tensor:
    """What belongs to each group, for every feature of it: [..., groups] to [..., d]."""
    return values if groups is None else values[..., groups]


def first_threshold(skip: Tensor, first: Tensor, M: float) -> Tensor:
    """The largest 2^k · 1e-6 that, applied over and over, still leaves every feature: where a path may begin, [...].

    As lassonet's `lambda_start`, groups forgotten as there: the operator is applied until no skip weight moves by
    1e-5, at most 10,000 times. It need not be: while s of its weights are bound a feature's norm falls by
    t / (1 + s M²) each time. `skip` [..., K, d] and `first` [..., h, d] must keep to the hierarchy.
    """
    norm, size = skip.square().sum(-2).sqrt(), first.abs().sort(-2, descending=True).values
    bound = torch.arange(1, first.shape[-2] + 1, device=first.device)[:, None]
    falls = (size - torch.cat([size[..., 1:, :], torch.zeros_like(size[..., :1, :])], -2)) / M
    pieces = [
        torch.zeros_like(norm)[..., None, :],
        (norm - size[..., 0, :] / M)[..., None, :],
        (1 + bound * M**2) * falls,
    ]
    spent = torch.cat(pieces, -2).cumsum(
        -2
    )  # t x times until s weights are bound, s = 0 to h, and then until 0
    share = skip.abs().amax(-2) / norm.clamp_min(TINY)  # of the largest weight in what the norm falls by
    found = torch.full(skip.shape[:-2], 1e-6, device=skip.device)
    while True:
        twice = 2 * found
        slow = ((twice[..., None] * share / 1e-5 - 1) / M**2).floor().long() + 1  # so many bound make it slow
        slow = slow.clamp(0, first.shape[-2] + 1)
        until = spent.gather(-2, slow[..., None, :])[..., 0, :].amax(-1) / twice
        gone = spent[..., -1, :].amin(-1) / twice <= until.clamp_max(10_000)
        if bool(gone.all()):
            return found
        found = torch.where(gone, found, twice)
