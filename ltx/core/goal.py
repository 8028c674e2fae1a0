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

from ltx.knobs import Knobs, knob, within


@dataclass(frozen=True)
class Choice(Knobs, ABC):
    """What `goal=NAME` chooses."""

    prefix = "goal."
    summary: ClassVar[str]  # one line for `ltx list`

    @abstractmethod
    def of(self, kind: str) -> Goal:
        """The goal, for data that are for `kind` unless a run says otherwise; raises UserError."""


@dataclass(frozen=True)
class Goal(Choice):
    """A loss and the measures of a network's outputs, for R replicates at once.

    A goal of one's own needs a loss; then it is measured by its mean, and what is less is better.
    """

    takes: ClassVar[str]  # classes | numbers: what targets it can have
    measure: ClassVar[str]  # names the columns val_<measure>, early_stop_test_<measure>, ...
    higher: ClassVar[bool] = False  # whether more of it is better
    percent: ClassVar[bool] = False  # whether it is a fraction that people read in percent
    further: ClassVar[tuple[str, ...]] = ()  # other measures, told beside it
    in_unit: ClassVar[tuple[str, ...]] = ()  # those in the unit that targets were measured in, before scaling

    def of(self, kind: str) -> Goal:
        return self

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each example, [...] from outputs [..., K]."""

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the measures need of examples, [R, S] float64 from outputs [R, n, K]: summed over all chunks."""
        return self.loss(outputs, targets).double().sum(1, keepdim=True)

    def measures(self, tally: Tensor, count: int) -> dict[str, Tensor]:
        """From the tally [R, S] of `count` examples: `loss`, the measure and the further ones, [R] each."""
        mean = (tally[:, 0] / count).float()
        return {"loss": mean, self.measure: mean}

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
    takes: ClassVar[str] = "classes"
    measure: ClassVar[str] = "accuracy"
    higher: ClassVar[bool] = True
    percent: ClassVar[bool] = True
    further: ClassVar[tuple[str, ...]] = ("balanced_accuracy",)

    label_smoothing: float = knob(
        0.0,
        within(0, 1),
        "training descends on targets that are this much uniform over the classes; measured is without it",
    )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
        return losses.view_as(targets)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Smoothed, as training has it (Szegedy et al. 2016, section 7)."""
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def backward(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is (probability - one-hot) / B."""
        if self.label_smoothing:
            return self._smoothed(outputs, targets)
        target = targets.unsqueeze(2)
        log_probability = torch.log_softmax(outputs, 2)
        loss = log_probability.gather(2, target).mean((1, 2)).neg_()
        minus = outputs.new_full((1,), -1.0).expand(target.shape)
        return loss, log_probability.exp_().scatter_add_(2, target, minus).div_(targets.shape[1])

    def _smoothed(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        classes = outputs.shape[2]
        aim = torch.full_like(outputs, self.label_smoothing / classes)
        aim.scatter_add_(2, targets.unsqueeze(2), torch.full_like(aim[..., :1], 1 - self.label_smoothing))
        log_probability = torch.log_softmax(outputs, 2)
        loss = (aim * log_probability).sum(2).mean(1).neg_()
        return loss, log_probability.exp_().sub_(aim).div_(targets.shape[1])

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of losses, and for each class how many examples there were and how many were found."""
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


@dataclass(frozen=True)
class Regression(Goal):
    """Squared error of standardised targets, a mean over the K numbers of each example."""

    summary: ClassVar[str] = "squared error; R2, and root mean squared error in the target's own unit"
    takes: ClassVar[str] = "numbers"
    measure: ClassVar[str] = "r2"
    higher: ClassVar[bool] = True
    further: ClassVar[tuple[str, ...]] = ("rmse",)
    in_unit: ClassVar[tuple[str, ...]] = ("rmse",)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(-1)

    def backward(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is 2 (output - target) / (B K)."""
        error = outputs - targets
        return error.square().mean((1, 2)), error.mul_(2 / (error.shape[1] * error.shape[2]))

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of squared errors, of targets and of their squares, for each of the K numbers."""
        outputs, targets = outputs.double(), targets.double()
        sums = ((outputs - targets).square(), targets, targets.square())
        return torch.cat([values.sum(1) for values in sums], 1)

    def measures(self, tally: Tensor, count: int) -> dict[str, Tensor]:
        """R2 is one minus the squared error over that of the split's own mean, a mean over the K numbers."""
        error, total, squares = tally.chunk(3, 1)
        mean = (error / count).mean(1)
        r2 = 1 - error / (squares - total.square() / count)
        return {"loss": mean.float(), "r2": r2.mean(1).float(), "rmse": mean.sqrt().float()}
