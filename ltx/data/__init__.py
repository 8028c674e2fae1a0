"""Data sets as uint8 tensors, split once, by the names that `dataset=` takes."""

from ltx.data.base import Data, Dataset, Split
from ltx.data.folder import ImageFolder
from ltx.data.images import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST

DATASETS: dict[str, type[Dataset]] = {
    dataset.name: dataset for dataset in (Digits, MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN, ImageFolder)
}

__all__ = ["DATASETS", "Data", "Dataset", "Split"]
