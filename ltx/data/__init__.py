"""Data sets, split once and for all, by the names that `dataset=` takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ltx.data.base import Data, Dataset, Split
from ltx.data.custom import Custom
from ltx.data.download import Downloaded
from ltx.data.folder import ImageFolder
from ltx.data.images import CIFAR10, CIFAR100, MNIST, SVHN, Digits, FashionMNIST
from ltx.data.table import Table
from ltx.data.tables import BUILT_IN
from ltx.errors import unknown

KINDS: tuple[type[Dataset], ...] = (
    *(Digits, MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN),
    *BUILT_IN,
    *(Table, ImageFolder, Custom),
)
DATASETS: dict[str, type[Dataset]] = {kind.name: kind for kind in KINDS}

__all__ = ["DATASETS", "Data", "Dataset", "Split", "fetch_all"]


def fetch_all(names: Sequence[str], root: Path | None = None) -> Iterator[Path]:
    """Bring data sets into the cache, or into `root`, and name each one's folder; raises UserError."""
    kinds = {name: kind for name, kind in DATASETS.items() if issubclass(kind, Downloaded)}
    for name in names:
        if name not in kinds:
            raise unknown("dataset", name, kinds)
    for name in names:
        dataset = kinds[name](root=str(root) if root else None)
        dataset.fetch()
        yield dataset.folder
