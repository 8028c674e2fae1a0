"""torch's own optimizers over stacked parameters: elementwise, so a stack of R is R independent ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltx.recipe import Plan
from ltx.ticket import Tree


def optimizer(plan: Plan, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Adam (PyTorch's defaults for beta and epsilon, which LTH does not state) or SGD, fused: one kernel a step."""
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


def set_lr(opt: torch.optim.Optimizer, lr: float) -> None:
    for group in opt.param_groups:
        group["lr"] = lr


def state(opt: torch.optim.Optimizer, names: Sequence[str]) -> Tree:
    """The optimizer's tensors as a flat tree `parameter|slot`; they are the optimizer's own, not copies."""
    return {
        f"{name}|{slot}": value
        for name, slots in zip(names, (opt.state[p] for p in opt.param_groups[0]["params"]), strict=True)
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore(opt: torch.optim.Optimizer, names: Sequence[str], saved: Tree) -> None:
    """Put back what `state` gave."""
    for name, parameter in zip(names, opt.param_groups[0]["params"], strict=True):
        for key, value in saved.items():
            owner, slot = key.rsplit("|", 1)
            if owner == name:
                opt.state[parameter][slot] = value.clone()
