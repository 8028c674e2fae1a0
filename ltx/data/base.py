"""What a data set is: inputs of any shape and their targets, split once and for all."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ltx.knobs import Knobs

SPLIT_SEED = 0
"""Every hold-out is drawn from its own generator with this seed, so splits never depend on a run: all seeds validate
on the same examples, and intervals over seeds hold no variance of the split."""
CHUNK = 2000  # examples that are looked at in one go, few enough that a layer's outputs stay in cache
CHUNK_NUMBERS = (
    CHUNK * 3 * 32 * 32
)  # and no more numbers than these, 25 MB as float32: data may not fit in memory


class Inputs(Protocol):
    """The inputs of N examples, [N, *shape]: a tensor, or what is read of a file when it is asked for."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __getitem__(self, rows: Tensor, /) -> "Inputs": ...
    def index_select(self, dim: int, index: Tensor) -> Tensor: ...
    def narrow(self, dim: int, start: int, length: int) -> Tensor: ...
    def to(self, device: torch.device | str) -> "Inputs": ...


@dataclass(frozen=True)
class Split:
    """Inputs [N, *shape] as they are kept, and targets: classes int64 [N], or numbers float32 [N, K]."""

    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor) -> "Split":
        """The examples at `rows` [M], in that order."""
        return Split(self.inputs[rows], self.targets[rows])

    def read(self, rows: Tensor) -> Tensor:
        """The inputs at `rows`, [*rows.shape, *shape]."""
        return self.inputs.index_select(0, rows.flatten()).view(*rows.shape, *self.inputs.shape[1:])

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of all examples in order, so many at a time as are sensibly in memory."""
        size = min(CHUNK, max(1, CHUNK_NUMBERS // prod(self.inputs.shape[1:])))
        for start in range(0, len(self), size):
            count = min(size, len(self) - start)
            yield self.inputs.narrow(0, start, count), self.targets.narrow(0, start, count)

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Prepare:
    """From inputs as they are kept to what a network sees: here numbers as they are, and whole ones too."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Float32 of the same shape; whole numbers, such as tokens, stay what they are."""
        return inputs.float() if inputs.is_floating_point() else inputs

    def exact(self, inputs: Tensor) -> Tensor:
        """The same in float64, for scores whose ranks rounding must not decide."""
        return inputs.double() if inputs.is_floating_point() else inputs

    def to(self, device: torch.device | str) -> "Prepare":
        """The same on `device`."""
        return self

    def described(self) -> dict[str, list[float]]:
        """What a reader of a manifest needs to do the same."""
        return {}


@dataclass(frozen=True)
class Pixels(Prepare):
    """Pixels uint8 [..., C, H, W] normalised by channel; mean and std, float32 [C], are of pixels in [0, 1].

    Deviation from pixels in [0, 1]: one that is 0 in every image is not 0 afterwards (MNIST's 67 are -0.42), so that
    its weights train as biases do and survive pruning longer (12 % of them at 20 %, against 6 %).
    """

    mean: Tensor
    std: Tensor

    @cached_property
    def scale(self) -> Tensor:
        return (1 / (255 * self.std)).view(-1, 1, 1)

    @cached_property
    def shift(self) -> Tensor:
        return (-self.mean / self.std).view(-1, 1, 1)

    def __call__(self, inputs: Tensor) -> Tensor:
        return torch.mul(inputs, self.scale).add_(self.shift)

    def exact(self, inputs: Tensor) -> Tensor:
        mean, std = (value.double().view(-1, 1, 1) for value in (self.mean, self.std))
        return (inputs.double() / 255 - mean) / std

    def to(self, device: torch.device | str) -> "Pixels":
        return Pixels(self.mean.to(device), self.std.to(device))

    def described(self) -> dict[str, list[float]]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}


@dataclass(frozen=True)
class Data:
    """A loaded data set."""

    train: Split
    val: Split
    test: Split
    outputs: int  # of a network that learns it: classes, or numbers to predict
    prepare: Prepare
    fingerprint: str
    goal: str = "classification"  # what it is for, unless a run says otherwise
    unit: float = 1.0  # one unit of the targets in the unit that they were measured in
    names: tuple[str, ...] = ()  # of the inputs, where they are columns
    labels: tuple[str, ...] = ()  # of the classes, where they have names
    groups: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # columns that are one feature, by its name

    owners: Tensor | None = (
        None  # [N] int64 of the training examples: those of one stay on one side of a fold
    )

    @classmethod
    def of_images(cls, train: Split, val: Split, test: Split, *, classes: int) -> "Data":
        """Images uint8 [N, C, H, W] and their classes; the training pixels are measured."""
        return cls(train, val, test, classes, pixels(train), fingerprint(train, val, test))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: channels, height and width of an image, columns of a table."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device | str) -> "Data":
        """The same data on `device`."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "val", "test")}
        return replace(self, **splits, prepare=self.prepare.to(device))


@dataclass(frozen=True)
class Dataset(Knobs, ABC):
    """A data set's knobs, which are its configuration, and how to load it."""

    prefix = "dataset."
    name: ClassVar[str]  # as in `dataset=NAME`
    summary: ClassVar[str]  # one line for `ltx list`
    # What is known without touching data; None where only the data can tell.
    shape: ClassVar[tuple[int, ...] | None]  # of one input
    outputs: ClassVar[int | None]  # classes, or numbers to predict
    train_size: ClassVar[int | None]  # examples left for training after the hold-out
    goal: ClassVar[str | None] = "classification"

    @abstractmethod
    def load(self) -> Data:
        """Read the data, fetching what is missing; raises UserError."""

    @abstractmethod
    def fetch(self) -> None:
        """Bring the data into the cache so that `load` needs no network; raises UserError."""


def hold_out(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held), ascending, of a stratified draw of exactly `count` examples from labels [N]."""
    sizes = torch.bincount(labels)
    quota, remainder = sizes * count // len(labels), sizes * count % len(labels)
    # Largest remainders get what rounding down left over; ties go to the lower class.
    quota[remainder.argsort(descending=True, stable=True)[: count - int(quota.sum())]] += 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label, n in enumerate(quota.tolist()):
        held[order[labels[order] == label][:n]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def pixels(images: Split) -> Pixels:
    """Mean and std [C] of uint8 images [N, C, H, W] scaled to [0, 1]; a constant channel has std 1."""
    # Counting the 256 values is exact, whatever the size, and never makes a float copy of the images.
    counts = torch.zeros(images.inputs.shape[1], 256, dtype=torch.int64)
    for part, _ in images.chunks():
        counts += torch.stack(
            [torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)]
        )
    share = counts.double() / counts.sum(1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    std = ((value - mean[:, None]).square() * share).sum(1).sqrt()
    return Pixels(mean.float(), torch.where((counts > 0).sum(1) > 1, std, 1.0).float())


def fingerprint(*splits: Split) -> str:
    """The first 16 hex characters of a sha256 over shapes, inputs and targets, split by split, in order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(tuple(split.inputs.shape)).encode())
        for kind in (split.inputs.dtype, split.targets.dtype):
            digest.update(b"" if kind in (torch.uint8, torch.int64) else str(kind).encode())
        for part, _ in split.chunks():
            digest.update(part.contiguous().numpy().data)
        digest.update(split.targets.contiguous().numpy().data)
    return digest.hexdigest()[:16]
