"""Inputs that stay in a file larger than memory: what a step or a chunk asks for is read when it asks."""

from __future__ import annotations

from mmap import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Mapped:
    """Rows of a memory-mapped array [M, *shape] as the inputs of N examples; what is read goes to `device`."""

    def __init__(
        self, file: np.ndarray, rows: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.file, self.device = file, device
        self.rows = torch.arange(len(file)) if rows is None else rows

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.file.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        return torch.from_numpy(np.empty(0, self.file.dtype)).dtype

    def __getitem__(self, rows: Tensor) -> Mapped:
        """Others of the same file: nothing is read."""
        return Mapped(self.file, self.rows[rows.cpu()], self.device)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The examples at `index` [M], read."""
        assert dim == 0, "examples are rows"
        return self._read(self.rows[index.cpu()])

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """The examples from `start` on, read."""
        assert dim == 0, "examples are rows"
        return self._read(self.rows[start : start + length])

    def to(self, device: torch.device | str) -> Mapped:
        """The same, read to `device`."""
        return Mapped(self.file, self.rows, device)

    def __reduce__(self) -> tuple[Any, ...]:
        """As the file's name: a process beside this one maps it too."""
        file = root = self.file
        while isinstance(root.base, np.memmap):
            root = root.base
        if not (isinstance(root, np.memmap) and isinstance(root.base, mmap) and file.flags.c_contiguous):
            return Mapped, (np.asarray(file), self.rows, self.device)
        offset = root.offset + file.ctypes.data - root.ctypes.data  # a slice tells that of the whole
        return opened, (root.filename, file.dtype, file.shape, offset, self.rows, self.device)

    def _read(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.file[rows.numpy()]).to(self.device)


def opened(
    name: str, dtype: np.dtype, shape: tuple[int, ...], offset: int, rows: Tensor, device: torch.device | str
) -> Mapped:
    """Rows of an array in a file."""
    return Mapped(np.memmap(name, dtype, "r", offset, shape), rows, device)
