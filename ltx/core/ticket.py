"""The nouns: what is trained (Ticket), one question put to the trainer (Round), and its answer (Trained).

Shapes: R replicates come first, always. A Tree maps parameter and buffer names to tensors [R, *shape].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ltx.core.recipe import Plan

Tree = dict[str, Tensor]


def copied(tree: Tree) -> Tree:
    """The same values in memory of their own: rewind weights must never alias weights in training."""
    return {name: tensor.clone() for name, tensor in tree.items()}


def below(tree: Tree, prefix: str) -> Tree:
    """The part of a flat tree under a prefix, which is taken off."""
    return {key.removeprefix(prefix): value for key, value in tree.items() if key.startswith(prefix)}


def only(tree: Tree, r: int) -> Tree:
    """One replicate of a stack, still stacked: views of R = 1."""
    return part(tree, range(r, r + 1))


def part(tree: Tree, rows: range) -> Tree:
    """Some replicates of a stack that stand side by side: views."""
    return {name: tensor[rows.start : rows.stop] for name, tensor in tree.items()}


def digest(tree: Tree) -> str:
    """SHA-256 over names, shapes and bytes; equal exactly when every bit is."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tree.items()):
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


@dataclass(frozen=True)
class Ticket:
    """Where training starts and which weights may live: R of them, stacked."""

    weights: Tree  # [R, *shape], parameters and buffers, not yet masked
    mask: Tree  # [R, *shape] bool, True = alive; prunable weights only

    @property
    def replicates(self) -> int:
        return next(iter(self.weights.values())).shape[0]

    def part(self, rows: range) -> Ticket:
        """Some replicates' that stand side by side."""
        return Ticket(part(self.weights, rows), part(self.mask, rows))

    def only(self, r: int) -> Ticket:
        """One replicate's, still stacked: R = 1."""
        return self.part(range(r, r + 1))

    def rewound(self, weights: Tree) -> Ticket:
        """The same mask over other weights."""
        return Ticket(weights, self.mask)

    def masked(self, mask: Tree) -> Ticket:
        """The same weights under another mask."""
        return Ticket(self.weights, mask)

    def start(self) -> Tree:
        """The weights that training begins with: a copy, zero where the mask is False."""
        return {
            name: torch.where(self.mask[name], tensor, 0) if name in self.mask else tensor.clone()
            for name, tensor in self.weights.items()
        }

    def kept(self) -> dict[str, Tensor]:
        """Number of weights alive in each prunable tensor, [R] int64."""
        # Row by row: on a CPU six times faster than a sum of bools along an axis.
        return {
            name: torch.stack([row.count_nonzero() for row in alive]) for name, alive in self.mask.items()
        }


@dataclass(frozen=True)
class Rows:
    """The training examples that each replicate trains on, and those that validate it instead of the split."""

    train: Tensor  # [R, n] int64, places in the training split
    val: Tensor  # [R, m] int64

    def part(self, rows: range) -> Rows:
        """Those of some replicates that stand side by side."""
        return Rows(self.train[rows.start : rows.stop], self.val[rows.start : rows.stop])

    def to(self, device: torch.device) -> Rows:
        """The same on `device`."""
        return Rows(self.train.to(device), self.val.to(device))


Measure = Callable[[str], Tree]
"""(train | val | test) -> the loss and the goal's measures of every replicate, by name, [R] on the CPU."""


@dataclass(frozen=True)
class Hooks:
    """All that a method may do inside training; each acts on stacked trees."""

    penalty: Callable[[Tree, Tree], None] | None = None
    """(weights, gradients): adds the gradient of a penalty to the gradients, in place, before masking.

    Of what is trained, as the executor has it: a network that is physically cut has smaller tensors.
    """
    project: Callable[[Tree, float, Tree], None] | None = None
    """(weights, learning rate, memo): a proximal step on what is trained, in place, after the optimizer's."""
    regrow: Callable[[int, Tree, Tree, Tree], Tree | None] | None = None
    """(step, weights, dense gradients, mask) -> another mask of some layers, or None: before every update.

    The gradients are those of the step's batch, not yet masked. A weight that comes to life starts at zero, one
    that is pruned becomes zero, and the optimizer remembers nothing of either.
    """
    watch: Callable[[int, Tree, Tree], tuple[Tree, Tensor]] | None = None
    """(epochs trained, weights, memo) -> (memo, done [R] bool): at every epoch's end; who is done stops.

    The memo is all that a watcher may remember: it is checkpointed, and comes back in `Trained`. It begins
    empty, is [R, ...] throughout and on the CPU, and its shapes depend on neither the epoch nor the replicate.
    """
    steer: Callable[[Tree, Tree, Measure], tuple[Tree, Tensor]] | None = None
    """(weights, memo, measure) -> (memo, done): like `watch`, but of all replicates in one stack.

    It may ask how good they are now, and what it remembers may change what `project` does.
    """


Key = tuple[int, str]
"""The level and name of a round."""


@dataclass(frozen=True)
class Round:
    """One ticket to be trained once."""

    level: int
    ticket: Ticket
    plan: Plan
    start: int = 0  # the step at which training, schedule and data order set in
    keep: tuple[int, ...] = ()  # steps whose weights the method wants to see
    kept: Mapping[str, int] = field(
        default_factory=dict
    )  # weights that must live, by layer; "" = all together
    role: str = "ticket"  # or the name of a control
    draw: int = 0  # which of a control's draws
    of: tuple[float, ...] = ()  # what it answers of a list that the method is given: densities, ratios
    hooks: Hooks = field(default_factory=Hooks)
    patience: int = 0  # evaluations without a new least validation loss that stop a replicate; 0 = never
    tolerance: float = 1.0  # a new least loss is below this fraction of the least so far
    # An optimizer's state to begin with, `Trained.optimizer`; none: fresh in every round, as in open_lth. Deviation
    # from Renda et al. 2020, whose code restores momentum with the weights.
    warm: Tree = field(default_factory=dict)
    rows: Rows | None = None  # each replicate's own examples, of a fold or a resample; None: the splits
    keep_optimizer: bool = False  # whether the method wants to see that state at the end
    starts: tuple[int, ...] = ()  # each replicate's own start, where they differ
    channels: Tree = field(default_factory=dict)  # [R, channels] bool by group: the others are really cut
    inverse: Callable[[], Tree] | None = None  # the mask of what the method would prune first
    found_by: dict[Key, Tensor] | None = None
    """Whose steps [R] found the ticket: its search cost. None: those of all tickets of the levels before."""

    @property
    def key(self) -> Key:
        return self.level, self.name

    @property
    def apart(self) -> bool:
        """Whether replicates are trained one after the other, being unlike each other or soon to be."""
        return bool(self.starts or self.channels or self.hooks.watch)

    def part(self, rows: range) -> Round:
        """The same question about some replicates that stand side by side."""
        return replace(
            self,
            ticket=self.ticket.part(rows),
            channels=part(self.channels, rows),
            warm=part(self.warm, rows),
            rows=self.rows and self.rows.part(rows),
            starts=self.starts[rows.start : rows.stop],
        )

    def only(self, r: int) -> Round:
        """The same question about one replicate."""
        start = self.starts[r] if self.starts else self.start
        return replace(self.part(range(r, r + 1)), start=start, starts=())

    @property
    def name(self) -> str:
        """Its folder's name below the level's: `ticket`, `reinit`, `reinit_1`, ..."""
        return f"{self.role}_{self.draw}" if self.draw else self.role


OWN = ("step", "train_loss", "val_loss", "val_measure", "test_measure")
"""What is in every curve, whatever the goal."""


@dataclass(frozen=True)
class Curve:
    """What was measured while training: E evaluations of R replicates; NaN where one was not in training."""

    step: Tensor  # [E] int64
    train_loss: Tensor  # [R, E] mean over the batches since the evaluation before
    val_loss: Tensor  # [R, E]
    val_measure: Tensor  # [R, E] in the goal's own measure
    test_measure: Tensor  # [R, E]
    further: Tree = field(default_factory=dict)  # [R, E] by column, val_NAME and test_NAME: the goal's others

    @classmethod
    def of(cls, tree: Tree) -> Curve:
        """From what `tree` gave."""
        own = {key: tensor for key, tensor in tree.items() if key in OWN}
        return cls(**own, further={key: tensor for key, tensor in tree.items() if key not in OWN})

    def tree(self) -> Tree:
        """All that was measured, by column."""
        return {key: getattr(self, key) for key in OWN} | self.further

    def early_stop(self) -> Tensor:
        """Index of the evaluation with the least validation loss, found afterwards, [R] (LTH section 1, note 2)."""
        best = torch.where(self.val_loss.isfinite(), self.val_loss, torch.inf).argmin(1)
        return torch.where(self.measured().gather(1, best[:, None])[:, 0], best, self.last())

    def censored(self) -> Tensor:
        """Who was still improving, its least validation loss being the last: early stop is there or later, [R]."""
        return self.early_stop() == self.last()

    def measured(self) -> Tensor:
        """Which evaluations each replicate was there for, [R, E] bool."""
        return ~self.test_measure.isnan()

    def last(self) -> Tensor:
        """Index of each replicate's last evaluation, [R]."""
        return self.measured().long().cumsum(1).argmax(1)


def unmeasured() -> Tensor:
    """Joules [2] where no counter tells."""
    return torch.full((2,), torch.nan, dtype=torch.float64)


@dataclass(frozen=True)
class Trained:
    """What training made of a ticket."""

    final: Tree  # [R, *shape]
    mask: Tree  # [R, *shape] bool: the ticket's, unless training has changed it
    at: dict[int, Tree]  # weights at the steps that the round asked to keep
    curve: Curve
    train_measure: Tensor  # [R] the goal's measure on the whole training split, at the end
    diverged: Tensor  # [R] bool: a loss was not finite
    steps: Tensor  # [R] int64, optimizer steps spent
    seconds: float  # of training and evaluation; of replicates side by side, all of theirs together
    joules: Tensor = field(default_factory=unmeasured)  # [2] of CPU packages and GPU, NaN = no counter
    engine: str = ""  # what computed it, as far as the last bits depend on that
    memo: Tree = field(default_factory=dict)  # what a watching method remembered
    optimizer: Tree = field(default_factory=dict)  # `name|slot` [R, *shape], if the round asked to keep it
