"""How much each weight matters: pure functions from weights to scores, the highest kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ltx.core.ticket import Tree
from ltx.streams import stream


def magnitude(weights: Tree) -> Tree:
    """|w| (Han et al. 2015)."""
    return {name: tensor.abs() for name, tensor in weights.items() if tensor.is_floating_point()}


def uniform(seeds: Iterable[int], like: Tree, *purpose: object) -> Tree:
    """U(0, 1) for every entry of `like` [R, *shape], from a stream of its own for each seed, purpose and layer."""

    def draw(name: str, seed: int) -> Tensor:
        return torch.rand(like[name].shape[1:], generator=stream(seed, *purpose, name))

    return {
        name: torch.stack([draw(name, seed) for seed in seeds]).to(tensor.device)
        for name, tensor in like.items()
    }


# -- after training: one layer of R replicates

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(weights that training began with, that it ended with, U(0, 1) noise) to scores, all [R, *shape]."""


def increase(initial: Tensor, final: Tensor) -> Tensor:
    """How far a weight moved away from zero."""
    return final.abs() - initial.abs()


def rank(values: Tensor) -> Tensor:
    """Each entry's place among its replicate's, 0 for the least, [R, *shape] int64."""
    return values.flatten(1).argsort(dim=1, stable=True).argsort(dim=1).view_as(values)


def same_sign(initial: Tensor, final: Tensor) -> Tensor:
    """Where training left the sign as it was."""
    return initial.sign() == final.sign()


def only(chosen: Tensor, scores: Tensor, noise: Tensor) -> Tensor:
    """The scores of the chosen; 0 for the others, which noise too small to matter ranks at random."""
    return torch.where(chosen, scores, noise * 1e-30)


# Zhou et al. 2019, Figure 2, and the authors' code for the conditions on signs. Deviation: of equal scores
# the lower index is kept, not one at random, except where such a condition makes thousands equal.
CRITERIA: dict[str, Criterion] = {
    "large_final": lambda w0, wt, noise: wt.abs(),
    "small_final": lambda w0, wt, noise: -wt.abs(),
    "large_init": lambda w0, wt, noise: w0.abs(),
    "small_init": lambda w0, wt, noise: -w0.abs(),
    # Both beyond the same percentile: the one that leaves as many as are to be kept.
    "large_init_large_final": lambda w0, wt, noise: torch.minimum(rank(w0.abs()), rank(wt.abs())).double(),
    "small_init_small_final": lambda w0, wt, noise: -torch.maximum(rank(w0.abs()), rank(wt.abs())).double(),
    "magnitude_increase": lambda w0, wt, noise: increase(w0, wt),
    "movement": lambda w0, wt, noise: (wt - w0).abs(),
    "random": lambda w0, wt, noise: noise,
    "large_final_same_sign": lambda w0, wt, noise: only(same_sign(w0, wt), wt.abs(), noise),
    "large_final_diff_sign": lambda w0, wt, noise: only(~same_sign(w0, wt), wt.abs(), noise),
    "magnitude_increase_same_sign": lambda w0, wt, noise: only(same_sign(w0, wt), increase(w0, wt), noise),
    "magnitude_increase_diff_sign": lambda w0, wt, noise: only(~same_sign(w0, wt), increase(w0, wt), noise),
}


# -- before training: one network, known by a loss that is a function of its weights

Loss = Callable[[Tree], Tensor]


def saliency(loss: Loss, weights: Tree, names: Iterable[str]) -> Tree:
    """|θ ∂L/∂θ| (SNIP: Lee et al. 2019, Algorithm 1; SynFlow: Tanaka et al. 2020, Algorithm 1)."""
    theta = leaves(weights, names)
    slopes = gradient(loss(weights | theta), theta)
    return {name: (w.detach() * slopes[name]).abs() for name, w in theta.items()}


def flow(loss: Loss, weights: Tree, names: Iterable[str]) -> Tree:
    """θ H g, of which GraSP keeps the highest: it removes those of −θ H g (Wang et al. 2020, Algorithm 1)."""
    theta = leaves(weights, names)
    slopes = gradient(loss(weights | theta), theta, again=True)
    along = torch.stack([(slope * slope.detach()).sum() for slope in slopes.values()]).sum()
    curves = gradient(along, theta)
    return {name: w.detach() * curves[name] for name, w in theta.items()}


def leaves(weights: Tree, names: Iterable[str]) -> Tree:
    """The named weights as variables to differentiate by."""
    return {name: weights[name].detach().requires_grad_() for name in names}


def gradient(value: Tensor, theta: Tree, *, again: bool = False) -> Tree:
    """∂value/∂θ, zero for what the value does not depend on; differentiable `again` or not."""
    found = torch.autograd.grad(value, list(theta.values()), create_graph=again, materialize_grads=True)
    return dict(zip(theta, found, strict=True))
