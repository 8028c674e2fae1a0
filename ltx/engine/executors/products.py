"""One layer of R networks, each replicate's by the way that its density deserves: kernel, CSR, or dense beside."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltx.engine.kernels.lanes import Lanes
from ltx.engine.kernels.library import ADD, GATE, RELU, Library
from ltx.engine.kernels.survivors import Memory, Survivors, ends_of

SAMPLED = 0.12
"""Density below which CSR's weight gradient is sampled rather than computed dense and read off: LeNet's layers,
torch 2.15, one thread."""


class Layer:
    """R replicates of a layer between lanes x and y; `ways` says for each how: kernel, csr or dense."""

    def __init__(
        self,
        alive: Tensor,
        lanes: tuple[Lanes, Lanes],
        memory: Memory,
        library: Library | None,
        ways: Sequence[str],
        *,
        stride: int,
        padding: int,
        ends: tuple[int, int],
    ) -> None:
        """`alive`: bool [R, outputs, channels, height, width]; see `Survivors`."""
        shape: dict[str, Any] = {"stride": stride, "padding": padding, "ends": ends}
        self.kernel = None
        if library is not None and "kernel" in ways:
            mine = [way == "kernel" for way in ways]
            self.kernel = Survivors(alive, lanes, memory, library, mine, **shape)
        dense = Matrix if lanes[1].together else Images
        self.others: dict[int, One] = {
            r: (Csr if way == "csr" else dense)(alive[r], lanes, at(memory, r), **shape)
            for r, way in enumerate(ways)
            if way != "kernel"
        }

    def forward(self, r: int, count: int, training: bool) -> None:
        if self.kernel:
            self.kernel.forward(r, count)
        for other in self._of(r, count):
            other.forward()

    def backward(self, r: int, count: int) -> None:
        if self.kernel:
            self.kernel.backward(r, count)
        for other in self._of(r, count):
            other.backward()

    def _of(self, r: int, count: int) -> list[One]:
        return [self.others[i] for i in range(r, r + count) if i in self.others]


def at(memory: Memory, r: int) -> Memory:
    """One replicate's part."""
    return Memory._make(None if t is None else t[0 if len(t) == 1 else r] for t in memory)


class One(ABC):
    """One replicate's layer by torch; a subclass makes the three products of examples in its own layout."""

    def __init__(
        self,
        alive: Tensor,
        lanes: tuple[Lanes, Lanes],
        memory: Memory,
        *,
        stride: int,
        padding: int,
        ends: tuple[int, int],
    ) -> None:
        self.memory, (self.x, self.y), self.stride, self.padding = memory, lanes, stride, padding
        (self.end, self.back), self.shape = ends, alive.shape
        self.where = alive.flatten().nonzero().flatten()
        self.values, self.d_values = memory.values[: len(self.where)], memory.d_values[: len(self.where)]

    @abstractmethod
    def forward(self) -> None:
        """y, in its place."""

    @abstractmethod
    def backward(self) -> None:
        """The gradients of values, bias and x, in their places."""

    def _write(self, y: Tensor) -> None:
        """y as [blocks, channels, height, width, 16]."""
        self.y.inside(self.memory.y).copy_(y.relu_() if self.end == RELU else y)

    def _write_back(self, d_x: Tensor) -> None:
        """x's gradient, as its writer shall leave it."""
        assert self.memory.d_x is not None
        to = self.x.inside(self.memory.d_x)
        if self.back == ADD:
            to.add_(d_x)
        elif self.back == GATE:
            assert self.memory.gate is not None
            to.copy_(d_x.masked_fill(self.x.inside(self.memory.gate) <= 0, 0))
        else:
            to.copy_(d_x)


class Images(One):
    """A dense convolution: the survivors are put into their places and their gradients read off."""

    def __init__(self, alive: Tensor, lanes: tuple[Lanes, Lanes], memory: Memory, **shape: Any) -> None:
        super().__init__(alive, lanes, memory, **shape)
        self.weight = memory.values.new_zeros(alive.numel())

    def forward(self) -> None:
        self.dense = self.weight.index_copy_(0, self.where, self.values).view(self.shape)
        self.inputs = self.x.examples(self.memory.x)
        y = F.conv2d(self.inputs, self.dense, self.memory.bias, self.stride, self.padding)
        self._write(self.y.blocked(y))

    def backward(self) -> None:
        memory = self.memory
        d_x, d_weight, d_bias = torch.ops.aten.convolution_backward(
            self.y.examples(memory.d_y), self.inputs, self.dense, [self.shape[0]],
            [self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], 1,
            [memory.d_x is not None, True, memory.d_bias is not None],
        )  # fmt: skip
        torch.index_select(d_weight.reshape(-1), 0, self.where, out=self.d_values)
        if memory.d_bias is not None:
            memory.d_bias.copy_(d_bias)
        if memory.d_x is not None:
            self._write_back(self.x.blocked(d_x))


class Matrix(One):
    """A dense layer as products of matrices, the batch along rows."""

    def __init__(self, alive: Tensor, lanes: tuple[Lanes, Lanes], memory: Memory, **shape: Any) -> None:
        super().__init__(alive, lanes, memory, **shape)
        self.shape = alive.shape[:2]
        self._prepare(alive.flatten(1))

    def _prepare(self, alive: Tensor) -> None:
        self.weight = self.memory.values.new_zeros(alive.numel())
        self.d_weight = self.memory.values.new_zeros(alive.shape)

    def forward(self) -> None:
        self.inputs = self.x.matrix(self.memory.x)  # [inputs, B]
        y = self._product(self.inputs)
        self._write(self.y.rows(y if self.memory.bias is None else y.add_(self.memory.bias[:, None])))

    def backward(self) -> None:
        d_y = self.y.matrix(self.memory.d_y)
        self._gradient(d_y)
        if self.memory.d_bias is not None:
            torch.sum(d_y, 1, out=self.memory.d_bias)
        if self.memory.d_x is not None:
            self._write_back(self.x.rows(self._product_back(d_y)))

    def _product(self, x: Tensor) -> Tensor:
        self.dense = self.weight.index_copy_(0, self.where, self.values).view(self.shape)
        return self.dense @ x

    def _product_back(self, d_y: Tensor) -> Tensor:
        return self.dense.t() @ d_y

    def _gradient(self, d_y: Tensor) -> None:
        torch.mm(d_y, self.inputs.t(), out=self.d_weight)
        torch.index_select(self.d_weight.view(-1), 0, self.where, out=self.d_values)


class Csr(Matrix):
    """A dense layer with torch's own sparse products: what serves where the kernels were not compiled."""

    def _prepare(self, alive: Tensor) -> None:
        rows, columns = alive.nonzero(as_tuple=True)
        turned = torch.argsort(columns, stable=True)
        self.turned = turned.int()
        self.forth = csr(rows, columns, self.values, self.shape)
        self.back_values = self.values[turned]
        self.back_again = csr(columns[turned], rows[turned], self.back_values, self.shape[::-1])
        self.sampled = len(rows) < SAMPLED * alive.numel()
        if self.sampled:
            self.d_forth = csr(rows, columns, self.d_values, self.shape)
        else:
            self.d_weight = self.memory.values.new_zeros(alive.shape)

    def _product(self, x: Tensor) -> Tensor:
        return self.forth @ x

    def _product_back(self, d_y: Tensor) -> Tensor:
        torch.index_select(self.values, 0, self.turned, out=self.back_values)
        return self.back_again @ d_y

    def _gradient(self, d_y: Tensor) -> None:
        if self.sampled:
            torch.sparse.sampled_addmm(self.d_forth, d_y, self.inputs.t(), beta=0, out=self.d_forth)
        else:
            super()._gradient(d_y)


def csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A sparse matrix over `values` themselves: it changes as they do."""
    with warnings.catch_warnings():  # torch calls its own CSR a beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(ends_of(rows, shape[0]), columns.int(), values, tuple(shape))
