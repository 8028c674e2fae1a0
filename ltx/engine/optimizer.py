"""torch's own optimizers, one replicate beside the other, by the kernels that they run themselves.

Called without torch.optim, whose bookkeeping costs a small network's step as much again and whose first use imports
a compiler for 1.3 s; the kernels, and so every bit, are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.ticket import Tree

ADAPTIVE = {"adam": torch._fused_adam_, "adamw": torch._fused_adamw_}
"""Optimizers that remember the gradients' moments, by the kernel that moves by them."""
BETAS, EPSILON = (0.9, 0.999), 1e-8  # PyTorch's defaults, which LTH does not state


@torch.no_grad()
def clip(gradients: Tree, norm: float) -> None:
    """Scale each replicate's gradients [R, ...], in place, to at most this norm, as torch's clip_grad_norm_ does."""
    rows = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()])
    scale = (norm / (rows.norm(dim=0) + 1e-6)).clamp_(max=1)
    for gradient in gradients.values():
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


class Optimizer:
    """The plan's optimizer over stacks [R, ...], each replicate's slice being a parameter of its own.

    A fused optimizer rounds the last few elements of a tensor otherwise than the others: where a tensor ends
    must not depend on who trains beside it.
    """

    def __init__(
        self,
        plan: Plan,
        leaves: Tree,
        gradients: Tree,
        blocks: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """`blocks`: by leaf, what it and its gradient are views of, alike, where several are moved in one piece."""
        self.plan, self.leaves = plan, leaves
        self.blocks = blocks or {name: (leaf, gradients[name]) for name, leaf in leaves.items()}
        self.values = {id(values): (values.detach(), gradient) for values, gradient in self.blocks.values()}
        self.slots: dict[str, dict[int, Tensor]] = {}  # by name, then by block
        self.running = list(range(len(next(iter(leaves.values())))))
        self._list()

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the leaves, in place, by their gradients at a learning rate."""
        first = not self.slots
        if first:
            self._begin()
        values, gradients, *slots = self.lists
        if adaptive := ADAPTIVE.get(self.plan.optimizer):
            averages, squares, steps = slots
            torch._foreach_add_(steps, 1)
            adaptive(
                values, gradients, averages, squares, [], steps,
                amsgrad=False, lr=rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=self.plan.weight_decay,
                eps=EPSILON, maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip
        else:
            torch._fused_sgd_(
                values, gradients, slots[0] if slots else [],
                weight_decay=self.plan.weight_decay, momentum=self.plan.momentum, lr=rate, dampening=0.0,
                nesterov=self.plan.nesterov, maximize=False, is_first_step=first and bool(slots),
                grad_scale=None, found_inf=None,
            )  # fmt: skip

    def _begin(self) -> None:
        """Room for what is remembered; nothing yet."""
        names = ["exp_avg", "exp_avg_sq"] if self.plan.optimizer in ADAPTIVE else []
        names = ["momentum_buffer"] if self.plan.optimizer == "sgd" and self.plan.momentum else names
        for name in names:
            self.slots[name] = {key: torch.zeros_like(values) for key, (values, _) in self.values.items()}
        if self.plan.optimizer in ADAPTIVE:
            self.slots["step"] = {
                key: torch.zeros(len(values), device=values.device)
                for key, (values, _) in self.values.items()
            }
        self._list()

    def _list(self) -> None:
        """The rows of those who are running, as the kernels take them."""
        stacks = [[pair[i] for pair in self.values.values()] for i in range(2)]
        stacks += [list(slot.values()) for slot in self.slots.values()]
        self.lists = [[stack[r] for stack in some for r in self.running] for some in stacks]

    def drop(self, r: int) -> None:
        """Leave one replicate's leaves as they are from now on; what is remembered of them stays."""
        self.running.remove(r)
        self._list()

    def forget(self, where: Tree) -> None:
        """Remember nothing of the marked entries (bool [R, ...] by leaf): as of a weight that was never there."""
        for name, marked in where.items():
            for slot in self.slots.keys() - {"step"}:
                self._of(name, slot).masked_fill_(marked, 0)

    def _of(self, name: str, slot: str) -> Tensor:
        """A leaf's part of a slot: it lies there as the leaf lies among the values."""
        leaf, stack = self.leaves[name], self.slots[slot][id(self.blocks[name][0])]
        if slot == "step":
            return stack
        offset = leaf.storage_offset() - self.blocks[name][0].storage_offset()
        return stack.as_strided(leaf.shape, leaf.stride(), offset)

    def state(self) -> Tree:
        """What it remembers, as a flat tree `leaf|slot`, each [R, ...]; empty before the first step."""
        return {f"{name}|{slot}": self._of(name, slot).clone() for name in self.leaves for slot in self.slots}

    def restore(self, saved: Tree) -> None:
        """Remember again what `state` gave."""
        if saved and not self.slots:
            self._begin()
        for key, stack in saved.items():
            name, slot = key.rsplit("|", 1)
            if slot in self.slots:
                self._of(name, slot).copy_(stack)
