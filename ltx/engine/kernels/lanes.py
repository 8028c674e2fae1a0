"""How a batch lies in memory for the kernels: examples innermost, in blocks of 16."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.engine.kernels.library import LOAD, STORE, Image, Library

BLOCK = 16


@dataclass(frozen=True)
class Lanes:
    """Where the numbers of [batch, channels, height, width] lie; strides count numbers.

    Images lie as [blocks, channels, height + 2 border, width + 2 border, 16], each block of examples by itself so
    that its pixels stay in cache; the border is zero and stands for a convolution's padding. Units lie as
    [channels, blocks, 16], so that a weight's whole batch is one piece.
    """

    batch: int
    channels: int
    height: int = 1
    width: int = 1
    border: int = 0
    together: bool = False  # a unit's blocks side by side

    @property
    def blocks(self) -> int:
        return -(-self.batch // BLOCK)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one replicate's tensor."""
        if self.together:
            return self.channels, self.blocks, BLOCK
        return self.blocks, self.channels, self.height + 2 * self.border, self.width + 2 * self.border, BLOCK

    @property
    def row(self) -> int:
        """From a pixel to the one below it."""
        return BLOCK * (self.width + 2 * self.border)

    @property
    def channel(self) -> int:
        return BLOCK * self.blocks if self.together else self.row * (self.height + 2 * self.border)

    @property
    def block(self) -> int:
        return BLOCK if self.together else self.channel * self.channels

    @property
    def corner(self) -> int:
        """From the first number to that of the first pixel."""
        return self.border * (self.row + BLOCK)

    def zeros(self, replicates: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(replicates, *self.shape, dtype=dtype)

    def inside(self, tensor: Tensor) -> Tensor:
        """A view [..., blocks, channels, height, width, 16] without the border."""
        if self.together:
            return tensor.transpose(-3, -2)[..., None, None, :]
        if not self.border:
            return tensor
        here = slice(self.border, -self.border)
        return tensor[..., here, here, :]

    def matrix(self, tensor: Tensor) -> Tensor:
        """One replicate's units as [channels, 16 blocks]: a view if they lie together, else a copy."""
        return self.inside(tensor).permute(1, 2, 3, 0, 4).reshape(self.channels, -1)

    def rows(self, matrix: Tensor) -> Tensor:
        """A matrix [channels, 16 blocks] seen as [blocks, channels, 1, 1, 16]."""
        return matrix.view(self.channels, self.blocks, 1, 1, BLOCK).transpose(0, 1)

    def examples(self, tensor: Tensor) -> Tensor:
        """One replicate's images as [16 blocks, channels, height, width], channels last in memory."""
        inside = self.inside(tensor).permute(0, 4, 2, 3, 1)
        return inside.reshape(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)

    def blocked(self, examples: Tensor) -> Tensor:
        """Images [16 blocks, channels, height, width] seen as [blocks, channels, height, width, 16]."""
        seen: Tensor = examples.unflatten(0, (self.blocks, BLOCK)).permute(0, 2, 3, 4, 1)
        return seen


class Port:
    """Where examples go into lanes [R, ...] and come out again."""

    def __init__(self, lanes: Lanes, tensor: Tensor, library: Library | None) -> None:
        self.lanes, self.tensor, self.library = lanes, tensor, library
        self.wide, places = tensor.dtype == torch.float64, "channels blocks height width".split()
        self.ports = (Image * len(tensor))(
            *[
                Image(
                    y=one.data_ptr() + lanes.corner * one.element_size(),
                    yc=lanes.channel,
                    yb=lanes.block,
                    yh=lanes.row,
                    **{place: getattr(lanes, place) for place in places},
                )
                for one in tensor
            ]
        )

    def load(self, examples: Tensor) -> None:
        """Examples [R, n <= batch, ...] into lanes, zero where one is missing."""
        examples = examples.to(self.tensor.dtype)
        if self.library is None:
            self._copy_in(examples)
        else:
            rows = [one.contiguous() for one in examples]
            self._run(LOAD, rows)

    def store(self, count: int) -> Tensor:
        """The first examples' numbers, [R, count, channels * height * width]."""
        if self.library is None:
            inside = self.lanes.inside(self.tensor).permute(0, 1, 5, 2, 3, 4)
            return inside.reshape(len(self.tensor), self.lanes.blocks * BLOCK, -1)[:, :count].contiguous()
        numbers = self.lanes.channels * self.lanes.height * self.lanes.width
        found = self.tensor.new_empty(len(self.tensor), count, numbers)
        self._run(STORE, list(found))
        return found

    def _run(self, kernel: int, rows: list[Tensor]) -> None:
        assert self.library is not None
        for port, row in zip(self.ports, rows, strict=True):
            port.x, port.batch = row.data_ptr(), len(row)
        self.library.run(kernel, self.wide, self.ports)

    def _copy_in(self, examples: Tensor) -> None:
        lanes, inside = self.lanes, self.lanes.inside(self.tensor)
        padded = inside.new_zeros(
            len(inside), lanes.blocks * BLOCK, lanes.channels, lanes.height, lanes.width
        )
        padded[:, : examples.shape[1]] = examples.reshape(*examples.shape[:2], *padded.shape[2:])
        inside.copy_(padded.unflatten(1, (lanes.blocks, BLOCK)).permute(0, 1, 3, 4, 5, 2))
