"""Inputs that stay in a file larger than memory: what a step or a chunk asks for is read when it asks."""

from __future__ import annotations

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

    def _read(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.file[rows.numpy()]).to(self.device)
