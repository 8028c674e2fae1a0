"""What a network is to be good at: the loss that training descends, and the measures that are told of it.

Outputs are float32 [..., N, K]: a row of K numbers for each of N examples. Targets are what the data give for
them: classes int64 [..., N], or numbers float32 [..., N, K].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Goal(ABC):
    """A loss and the measures of a network's outputs, for R replicates at once."""

    summary: ClassVar[str]  # one line for `ltx list`
    measure: ClassVar[str]  # names the columns val_<measure>, early_stop_test_<measure>, ...
    higher: ClassVar[bool] = True  # whether more of it is better
    percent: ClassVar[bool] = False  # whether it is a fraction that people read in percent
    further: ClassVar[tuple[str, ...]] = ()  # other measures, told beside it

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each example, [...] from outputs [..., K]."""

    @abstractmethod
    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the measures need of examples, [R, S] float64 from outputs [R, n, K]: summed over all chunks."""

    @abstractmethod
    def measures(self, tally: Tensor, count: int) -> dict[str, Tensor]:
        """From the tally [R, S] of `count` examples: `loss`, the measure and the further ones, [R] each."""

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of one network's batch, outputs [B, K], for autograd."""
        return self.loss(outputs, targets).mean()

    def backward(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss [R] of outputs [R, B, K], and its gradient [R, B, K]: by autograd, unless written out."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            loss = self.loss(leaf, targets).mean(1)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def shown(self, value: float, digits: int = 1) -> str:
        """A value of the measure as people read it: `97.3 %`, or `r2 0.412`."""
        return f"{100 * value:.{digits}f} %" if self.percent else f"{self.measure} {value:.{digits + 2}f}"

    def column(self, key: str) -> str:
        """The name outside of what a curve calls `val_measure`, `test_measure`: `val_accuracy`, ..."""
        return re.sub("_measure$", f"_{self.measure}", key)

    def described(self) -> dict[str, object]:
        """What a reader of the files needs to know about the columns that it names."""
        return {
            "measure": self.measure,
            "higher": self.higher,
            "unit": "%" if self.percent else "",
            "further": list(self.further),
        }


@dataclass(frozen=True)
class Classification(Goal):
    """Cross-entropy of the softmax; the fraction of examples whose largest output is their class."""

    summary: ClassVar[str] = "cross-entropy; accuracy, and balanced accuracy in the files"
    measure: ClassVar[str] = "accuracy"
    percent: ClassVar[bool] = True
    further: ClassVar[tuple[str, ...]] = ("balanced_accuracy",)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
        return losses.view_as(targets)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def backward(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is (probability - one-hot) / B."""
        target = targets.unsqueeze(2)
        log_probability = torch.log_softmax(outputs, 2)
        loss = log_probability.gather(2, target).mean((1, 2)).neg_()
        minus = outputs.new_full((1,), -1.0).expand(target.shape)
        return loss, log_probability.exp_().scatter_add_(2, target, minus).div_(targets.shape[1])

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of losses, and for each class how many examples there were and how many were found."""
        targets = targets.expand(outputs.shape[:2])
        losses = self.loss(outputs, targets).sum(1, keepdim=True, dtype=torch.float64)
        found = (outputs.argmax(2) == targets).double()
        there = losses.new_zeros(len(outputs), outputs.shape[2])
        right = there.scatter_add(1, targets, found)
        return torch.cat([losses, there.scatter_add(1, targets, torch.ones_like(found)), right], 1)

    def measures(self, tally: Tensor, count: int) -> dict[str, Tensor]:
        """Balanced: the mean over the classes that are there of the fraction found of each."""
        loss, (there, right) = tally[:, 0], tally[:, 1:].chunk(2, 1)
        return {
            "loss": (loss / count).float(),
            "accuracy": (right.sum(1) / count).float(),
            "balanced_accuracy": (right / there).nanmean(1).float(),
        }


GOALS: dict[str, type[Goal]] = {"classification": Classification}
