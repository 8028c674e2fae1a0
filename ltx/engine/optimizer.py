"""torch's own optimizers, one replicate beside the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.ticket import Tree


def optimizer(plan: Plan, weights: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The plan's optimizer over stacks [R, *shape], each replicate's slice being a tensor of its own.

    A fused optimizer rounds the last few elements of a tensor otherwise than the others: where a tensor ends
    must not depend on who trains beside it.
    """
    return fused(plan, [leaf(weight, r) for weight in weights for r in range(len(weight))])


def fused(plan: Plan, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Adam (PyTorch's defaults for beta and epsilon, which LTH does not state) or SGD, one kernel a step."""
    if plan.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=plan.lr,
        momentum=plan.momentum,
        nesterov=plan.nesterov,
        weight_decay=plan.weight_decay,
        fused=True,
    )


def leaf(weight: Tensor, r: int) -> Tensor:
    """One replicate's weights and gradient: views, to be changed in place."""
    assert weight.grad is not None
    view = weight.detach()[r]
    view.grad = weight.grad[r]
    return view


def set_lr(opt: torch.optim.Optimizer, lr: float) -> None:
    for group in opt.param_groups:
        group["lr"] = lr


def state(opt: torch.optim.Optimizer, names: Sequence[str]) -> Tree:
    """The optimizer's tensors as a flat tree `weight|slot`, each [R, ...]."""
    slots = [opt.state[leaf] for leaf in opt.param_groups[0]["params"]]
    replicates = len(slots) // len(names)
    return {
        f"{name}|{slot}": torch.stack([slots[i * replicates + r][slot] for r in range(replicates)])
        for i, name in enumerate(names)
        for slot, value in slots[i * replicates].items()
        if isinstance(value, Tensor)
    }


def restore(opt: torch.optim.Optimizer, names: Sequence[str], saved: Tree) -> None:
    """Put back what `state` gave."""
    leaves = opt.param_groups[0]["params"]
    replicates = len(leaves) // len(names)
    for key, stack in saved.items():
        name, slot = key.rsplit("|", 1)
        first = names.index(name) * replicates
        for leaf, value in zip(leaves[first : first + replicates], stack, strict=True):
            opt.state[leaf][slot] = value.clone()
