"""The benchmark data sets by name: where their files lie and how they are read."""

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ltx.data.base import Data, Dataset, Split, hold_out
from ltx.data.download import Downloaded
from ltx.data.tables import shipped


@dataclass(frozen=True)
class Digits(Dataset):
    """The UCI digits that scikit-learn carries in its wheel: 1,797 images of 8 × 8, no download."""

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = "UCI handwritten digits, 1,797 of 8×8; built in, needs no download"
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    outputs: ClassVar[int] = 10
    train_size: ClassVar[int] = 1_257
    val_size: ClassVar[int] = 180
    test_size: ClassVar[int] = 360

    def load(self) -> Data:
        """Split 70 / 10 / 20 percent; the file's 17 grey levels 0..16 become 0..255 by value * 255 // 16."""
        rows = torch.from_numpy(np.loadtxt(shipped("digits.csv.gz"), delimiter=",", dtype=np.int64))
        images = (rows[:, :-1] * 255 // 16).to(torch.uint8).view(-1, 1, 8, 8)
        everything = Split(images, rows[:, -1].contiguous())
        rest, test = (everything.take(indices) for indices in hold_out(everything.targets, self.test_size))
        train, val = (rest.take(indices) for indices in hold_out(rest.targets, self.val_size))
        return Data.of_images(train, val, test, classes=self.outputs)

    def fetch(self) -> None:
        """Nothing to do: the images came with scikit-learn."""


@dataclass(frozen=True)
class MNIST(Downloaded):
    """Handwritten digits (LeCun et al. 1998), four files in the idx format."""

    name: ClassVar[str] = "mnist"
    summary: ClassVar[str] = "handwritten digits, 60,000 + 10,000 of 28×28 (LeCun et al. 1998)"
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    outputs: ClassVar[int] = 10
    train_size: ClassVar[int] = 55_000
    files: ClassVar[dict[str, str | None]] = {
        f"MNIST/raw/{part}-{kind}-ubyte": None
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    }

    def read(self) -> tuple[Split, Split]:
        """Both pairs of idx files, whose sizes are known."""
        train_images, train_labels, test_images, test_labels = self.files
        return (
            Split(self.idx(train_images, 60_000, 28, 28)[:, None], self.idx(train_labels, 60_000).long()),
            Split(self.idx(test_images, 10_000, 28, 28)[:, None], self.idx(test_labels, 10_000).long()),
        )

    def idx(self, name: str, *shape: int) -> torch.Tensor:
        """A file in the idx format (http://yann.lecun.com/exdb/mnist): magic, big-endian sizes, bytes."""
        payload = self.contents(name)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        expected = len(header) + int(np.prod(shape))
        if len(payload) != expected:
            raise self.damaged(name, f"{len(payload):,} bytes where {expected:,} belong")
        if not payload.startswith(header):
            raise self.damaged(name, f"not an idx file of shape {shape}")
        values = torch.frombuffer(payload, dtype=torch.uint8, offset=len(header)).view(shape)
        if len(shape) == 1 and int(values.max()) >= self.outputs:
            raise self.damaged(name, f"a label of {int(values.max())} among {self.outputs} classes")
        return values

    def download(self, folder: Path) -> None:
        """From torchvision's mirrors."""
        from torchvision.datasets import MNIST

        MNIST(folder, download=True)


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Zalando's articles of clothing (Xiao et al. 2017), in MNIST's format."""

    name: ClassVar[str] = "fashion_mnist"
    summary: ClassVar[str] = "articles of clothing, 60,000 + 10,000 of 28×28 (Xiao et al. 2017)"
    files: ClassVar[dict[str, str | None]] = {f"Fashion{name}": None for name in MNIST.files}

    def download(self, folder: Path) -> None:
        """From torchvision's mirror."""
        from torchvision.datasets import FashionMNIST

        FashionMNIST(folder, download=True)


@dataclass(frozen=True)
class CIFAR10(Downloaded):
    """Ten kinds of object in colour (Krizhevsky 2009), pickled by Python 2 in batches."""

    name: ClassVar[str] = "cifar10"
    summary: ClassVar[str] = "ten kinds of object, 50,000 + 10,000 of 32×32 in colour (Krizhevsky 2009)"
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    outputs: ClassVar[int] = 10
    train_size: ClassVar[int] = 45_000
    label: ClassVar[str] = "labels"
    files: ClassVar[dict[str, str | None]] = {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    }

    def read(self) -> tuple[Split, Split]:
        """All batches; the last one is the test set."""
        *train, test = (self.batch(name) for name in self.files)
        images, labels = zip(*((split.inputs, split.targets) for split in train), strict=True)
        return Split(torch.cat(images), torch.cat(labels)), test

    def batch(self, name: str) -> Split:
        """One batch's rows of 3,072 bytes, as images."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.4.0 to 2.4.4 warn of how Python 2 pickled a dtype
            # A pickle is a program; this one is the publishers', for `contents` has compared its checksum.
            entry = pickle.loads(self.contents(name), encoding="latin1")
        images = torch.tensor(entry["data"], dtype=torch.uint8).view(-1, 3, 32, 32)
        return Split(images, torch.tensor(entry[self.label], dtype=torch.int64))

    def download(self, folder: Path) -> None:
        """From torchvision's mirror."""
        from torchvision.datasets import CIFAR10

        CIFAR10(folder, download=True)


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """A hundred kinds of object in colour (Krizhevsky 2009), by their fine labels."""

    name: ClassVar[str] = "cifar100"
    summary: ClassVar[str] = "a hundred kinds of object, 50,000 + 10,000 of 32×32 in colour (Krizhevsky 2009)"
    outputs: ClassVar[int] = 100
    label: ClassVar[str] = "fine_labels"
    files: ClassVar[dict[str, str | None]] = {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }

    def download(self, folder: Path) -> None:
        """From torchvision's mirror."""
        from torchvision.datasets import CIFAR100

        CIFAR100(folder, download=True)


@dataclass(frozen=True)
class SVHN(Downloaded):
    """Street view house numbers, cropped to one digit (Netzer et al. 2011), without the extra set."""

    name: ClassVar[str] = "svhn"
    summary: ClassVar[str] = "house numbers, 73,257 + 26,032 of 32×32 in colour (Netzer et al. 2011)"
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    outputs: ClassVar[int] = 10
    train_size: ClassVar[int] = 68_257
    files: ClassVar[dict[str, str | None]] = {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }

    def read(self) -> tuple[Split, Split]:
        """Both Matlab files."""
        train, test = (self.matlab(name) for name in self.files)
        return train, test

    def matlab(self, name: str) -> Split:
        """One file's X [H, W, C, N] and y [N, 1], where the digit 0 is labelled 10."""
        from scipy.io import loadmat

        self.contents(name)  # for its checksum
        arrays = loadmat(self.folder / name)
        images = torch.from_numpy(arrays["X"]).permute(3, 2, 0, 1).contiguous()
        return Split(images, torch.from_numpy(arrays["y"].astype(np.int64)).flatten() % 10)

    def download(self, folder: Path) -> None:
        """From torchvision's mirror."""
        from torchvision.datasets import SVHN

        for split in ("train", "test"):
            SVHN(folder, split=split, download=True)
