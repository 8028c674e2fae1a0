"""When to stop a training that no longer gets better."""

from __future__ import annotations

import torch
from torch import Tensor

from ltx.core.ticket import Tree


class Patience:
    """Counts each replicate's evaluations since its least validation loss."""

    def __init__(self, evaluations: int, replicates: int, tolerance: float = 1.0) -> None:
        """`evaluations` without one below `tolerance` times the least so far are too many; 0 = never."""
        self.evaluations, self.tolerance = evaluations, tolerance
        self.best = torch.full((replicates,), torch.inf)
        self.waited = torch.zeros(replicates, dtype=torch.int64)

    def exhausted(self, val_loss: Tensor) -> Tensor:
        """Who has waited too long now that the loss [R] was measured, [R] bool; NaN is never better."""
        better = val_loss < self.tolerance * self.best
        self.best = torch.where(better, val_loss, self.best)
        self.waited = torch.where(better, 0, self.waited + 1)
        return (self.waited >= self.evaluations) & (self.evaluations > 0)

    def state(self) -> Tree:
        return {"best": self.best, "waited": self.waited}

    def restore(self, saved: Tree) -> None:
        self.best, self.waited = saved["best"], saved["waited"]
