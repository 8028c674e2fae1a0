"""What a data set is: uint8 images and labels, split once and for all."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ltx.knobs import Knobs

SPLIT_SEED = (
    0  # every hold-out is drawn from its own generator with this seed, so splits never depend on a run
)


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] with raw pixels 0..255, and their classes int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """The examples at `indices` [M], in that order."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A loaded data set; mean and std, float32 [C], are of the training pixels scaled to [0, 1]."""

    train: Split
    val: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    fingerprint: str

    @classmethod
    def of(cls, train: Split, val: Split, test: Split, *, classes: int) -> "Data":
        """Measure the training pixels and fingerprint the three splits."""
        mean, std = pixel_statistics(train.images)
        return cls(train, val, test, classes, mean, std, fingerprint(train, val, test))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> "Data":
        """The same data on `device`."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "val", "test")}
        return replace(self, **splits, mean=self.mean.to(device), std=self.std.to(device))


@dataclass(frozen=True)
class Dataset(Knobs, ABC):
    """A data set's knobs, which are its configuration, and how to load it."""

    group = "dataset."
    name: ClassVar[str]  # as in `dataset=NAME`
    summary: ClassVar[str]  # one line for `ltx list`
    # The three below are known without touching data; None where only the data can tell.
    shape: ClassVar[tuple[int, int, int] | None]  # channels, height, width
    classes: ClassVar[int | None]
    train_size: ClassVar[int | None]  # examples left for training after the hold-out

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


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std [C] of uint8 images [N, C, H, W] scaled to [0, 1]; a constant channel has std 1."""
    # Counting the 256 values is exact, whatever the size, and never makes a float copy of the images.
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    std = ((value - mean[:, None]).square() * share).sum(1).sqrt()
    return mean.float(), torch.where((counts > 0).sum(1) > 1, std, 1.0).float()


def fingerprint(*splits: Split) -> str:
    """The first 16 hex characters of a sha256 over shapes, images and labels, split by split, in order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(tuple(split.images.shape)).encode())
        digest.update(split.images.contiguous().numpy().data)
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()[:16]
