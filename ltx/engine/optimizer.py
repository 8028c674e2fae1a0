"""torch's own optimizers, one replicate beside the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.ticket import Tree


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


class Optimizer:
    """The plan's optimizer over stacks [R, ...], each replicate's slice being a parameter of its own.

    A fused optimizer rounds the last few elements of a tensor otherwise than the others: where a tensor ends
    must not depend on who trains beside it.
    """

    def __init__(self, plan: Plan, leaves: Tree, gradients: Tree) -> None:
        self.slices = {
            name: [sliced(stack[r], gradients[name][r]) for r in range(len(stack))]
            for name, stack in leaves.items()
        }
        self.torch = fused(plan, [part for parts in self.slices.values() for part in parts])

    def step(self, rate: float) -> None:
        """Move the leaves, in place, by their gradients at a learning rate."""
        for group in self.torch.param_groups:
            group["lr"] = rate
        self.torch.step()

    def drop(self, r: int) -> None:
        """Leave one replicate's leaves as they are from now on; what is remembered of them stays."""
        dropped = {id(parts[r]) for parts in self.slices.values()}
        for group in self.torch.param_groups:
            group["params"] = [part for part in group["params"] if id(part) not in dropped]

    def forget(self, where: Tree) -> None:
        """Remember nothing of the marked entries (bool [R, ...] by leaf): as of a weight that was never there."""
        for name, marked in where.items():
            for part, entries in zip(self.slices[name], marked, strict=True):
                for value in self.torch.state[part].values():
                    if isinstance(value, Tensor) and value.shape == entries.shape:
                        value.masked_fill_(entries, 0)

    def state(self) -> Tree:
        """What it remembers, as a flat tree `leaf|slot`, each [R, ...]; empty before the first step."""
        return {
            f"{name}|{slot}": torch.stack([self.torch.state[part][slot] for part in parts])
            for name, parts in self.slices.items()
            for slot, value in self.torch.state[parts[0]].items()
            if isinstance(value, Tensor)
        }

    def restore(self, saved: Tree) -> None:
        """Remember again what `state` gave."""
        for key, stack in saved.items():
            name, slot = key.rsplit("|", 1)
            for part, value in zip(self.slices[name], stack, strict=True):
                self.torch.state[part][slot] = value.clone()


def sliced(leaf: Tensor, gradient: Tensor) -> Tensor:
    """One replicate's leaf with its gradient: views, to be changed in place."""
    view = leaf.detach()
    view.grad = gradient
    return view
