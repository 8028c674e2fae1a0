"""One layer's surviving weights, and the three products of training with them: on the pattern alone."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array
from typing import NamedTuple

import torch
from torch import Tensor

from ltx.engine.kernels.lanes import BLOCK, Lanes
from ltx.engine.kernels.library import FORWARD, GRADIENT, SET, Library, Product


class Pattern(NamedTuple):
    """Which inputs each output reads: the weights of output o are row[o] to row[o + 1]."""

    row: Tensor  # [outputs + 1] int32
    off: Tensor  # [weights] int32, where the input lies
    which: Tensor | None = None  # [weights] int32, which value a weight has; None: in order


class Memory(NamedTuple):
    """A layer's tensors: [R, ...], or [1, ...] where the replicates take turns."""

    values: Tensor  # [R, weights or more], each replicate's own in mask order
    bias: Tensor | None  # [R, outputs]
    x: Tensor
    y: Tensor
    d_values: Tensor
    d_bias: Tensor | None
    d_x: Tensor | None  # None: nobody asks for the inputs' gradient
    d_y: Tensor
    gate: Tensor | None = None  # of d_x, for `GATE`


class Survivors:
    """R replicates of a layer: a convolution of any kernel, stride and padding; a dense layer is one of 1x1.

    Raises AssertionError where the border of an image is narrower than the kernel's reach.
    """

    def __init__(
        self,
        alive: Tensor,
        lanes: tuple[Lanes, Lanes],
        memory: Memory,
        library: Library,
        mine: Sequence[bool] = (),
        *,
        stride: int = 1,
        padding: int = 0,
        ends: tuple[int, int] = (SET, SET),
    ) -> None:
        """`alive`: bool [R, outputs, channels, height, width]; `lanes` of x and y; `ends` of y and d_x.

        `mine`: which replicates are computed here, if not all.
        """
        self.stride, self.padding, (self.x, self.y), self.library = stride, padding, lanes, library
        self.memory, self.wide = memory, memory.values.dtype == torch.float64
        self.sums = memory.values.new_empty(int(alive.flatten(1).sum(1).max()) + alive.shape[1], BLOCK)
        self.patterns: list[Pattern] = []  # the structures below point into them
        self.mine, none = mine or [True] * len(alive), torch.zeros_like(alive[0])
        masks = [mask if here else none for mask, here in zip(alive, self.mine, strict=True)]
        forth = [self._kept(self._reads(mask)) for mask in masks]
        self.products = self._array([self._forth(r, p, memory.y, ends[0]) for r, p in enumerate(forth)])
        self.gradients = self._array([self._forth(r, p, memory.d_y, SET) for r, p in enumerate(forth)])
        steps = range(stride) if memory.d_x is not None else ()
        self.turns = [(a, b) for a in steps for b in steps]
        self.inputs = self._array(
            [
                self._back(r, self._kept(self._read_by(mask, *turn)), *turn, ends[1])
                for r, mask in enumerate(masks)
                for turn in self.turns
            ]
        )

    def forward(self, r: int = 0, count: int | None = None) -> None:
        """y of replicates r, r + 1, ..., all from r on if not said otherwise."""
        self._run(FORWARD, self.products, r, count)

    def backward(self, r: int = 0, count: int | None = None) -> None:
        """The gradients of values and bias, then those of x."""
        self._run(GRADIENT, self.gradients, r, count)
        if self.turns:
            self._run(FORWARD, self.inputs, r, count, len(self.turns))

    def _run(self, kernel: int, what: Array[Product], r: int, count: int | None, each: int = 1) -> None:
        self.library.run(kernel, self.wide, what, r * each, -1 if count is None else (r + count) * each)

    # -- which weights ------------------------------------------------------------------------------------------

    def _reads(self, alive: Tensor) -> Pattern:
        """The inputs of each output, in the mask's own order."""
        output, channel, i, j = alive.nonzero(as_tuple=True)
        lead = self.x.border - self.padding
        assert lead >= 0, "the border is narrower than the padding"
        off = channel * self.x.channel + (i + lead) * self.x.row + (j + lead) * BLOCK
        return Pattern(ends_of(output, len(alive)), indices(off))

    def _read_by(self, alive: Tensor, a: int, b: int) -> Pattern:
        """The outputs that read input pixels (a, b), (a + stride, b), ... of each channel."""
        output, channel, i, j = alive.nonzero(as_tuple=True)
        down, right = a + self.padding - i, b + self.padding - j
        order = torch.argsort(channel, stable=True)
        order = order[((down % self.stride == 0) & (right % self.stride == 0))[order]]
        rows, columns = (steps[order] // self.stride + self.y.border for steps in (down, right))
        assert not len(order) or min(int(rows.min()), int(columns.min())) >= 0, "the border is too narrow"
        off = output[order] * self.y.channel + rows * self.y.row + columns * BLOCK
        return Pattern(ends_of(channel[order], alive.shape[1]), indices(off), indices(order))

    def _kept(self, pattern: Pattern) -> Pattern:
        self.patterns.append(pattern)
        return pattern

    # -- where everything lies ----------------------------------------------------------------------------------

    def _forth(self, r: int, pattern: Pattern, y: Tensor, end: int) -> Product:
        memory = self.memory
        found = self._product(r, pattern, end)
        found.x, found.y = at(memory.x, r), at(y, r, self.y.corner)
        found.bias, found.dbias = at(memory.bias, r), at(memory.d_bias, r)
        found.dvalue, found.sums = at(memory.d_values, r), at(self.sums, None)
        found.outputs, found.yc = len(pattern.row) - 1, self.y.channel
        walk(
            found,
            (self.y.blocks, self.x.block, self.y.block),
            (self.y.height, self.stride * self.x.row, self.y.row),
            (self.y.width, self.stride * BLOCK, BLOCK),
        )
        found.outputs *= self.mine[r]
        return found

    def _back(self, r: int, pattern: Pattern, a: int, b: int, end: int) -> Product:
        found = self._product(r, pattern, end)
        begin = self.x.corner + a * self.x.row + b * BLOCK
        found.x, found.y = at(self.memory.d_y, r), at(self.memory.d_x, r, begin)
        found.gate = at(self.memory.gate, r, begin)
        found.outputs, found.yc = len(pattern.row) - 1, self.x.channel
        walk(
            found,
            (self.x.blocks, self.y.block, self.x.block),
            (len(range(a, self.x.height, self.stride)), self.y.row, self.stride * self.x.row),
            (len(range(b, self.x.width, self.stride)), BLOCK, self.stride * BLOCK),
        )
        found.outputs *= self.mine[r]
        return found

    def _product(self, r: int, pattern: Pattern, end: int) -> Product:
        return Product(
            row=pattern.row.data_ptr(),
            off=pattern.off.data_ptr(),
            which=None if pattern.which is None else pattern.which.data_ptr(),
            value=at(self.memory.values, r),
            end=end,
        )

    @staticmethod
    def _array(products: list[Product]) -> Array[Product]:
        return (Product * len(products))(*products)


def ends_of(rows: Tensor, count: int) -> Tensor:
    """Where each of `count` rows begins in a sorted list of rows, and where the last one ends: [count + 1]."""
    ends = torch.zeros(count + 1, dtype=torch.int32)
    ends[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return ends


def indices(numbers: Tensor) -> Tensor:
    assert not len(numbers) or int(numbers.max()) < 2**31, "a layer is too large for 32-bit indices"
    return numbers.int()


def at(tensor: Tensor | None, r: int | None, offset: int = 0) -> int | None:
    """Address of a replicate's first number (of all, if there is but one to share), and `offset` on."""
    if tensor is None:
        return None
    shared = r is None or len(tensor) == 1
    return (tensor if shared else tensor[r]).data_ptr() + offset * tensor.element_size()


def walk(found: Product, *axes: tuple[int, int, int]) -> None:
    """Set three loops (length, step in x, step in y); the innermost makes tiles, so a short one goes outside."""
    axes = tuple(sorted(axes, key=lambda axis: axis[0] >= 4)) if axes[2][0] < 4 else axes
    (
        (found.outer, found.xb, found.yb),
        (found.height, found.xh, found.yh),
        (found.width, found.xw, found.yw),
    ) = axes
