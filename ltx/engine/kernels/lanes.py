"""How a batch lies in memory for the kernels: examples innermost, in blocks of 16."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array
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
        return examples.unflatten(0, (self.blocks, BLOCK)).permute(0, 2, 3, 4, 1)

    def images(self, examples: Sequence[Tensor], tensor: Tensor) -> Array[Image]:
        """For `load` and `store`: examples [n <= batch, channels, height, width] and lanes [R, ...]."""
        return (Image * len(examples))(
            *[
                Image(
                    x=x.data_ptr(),
                    y=tensor[r].data_ptr() + self.corner * tensor.element_size(),
                    batch=len(x),
                    blocks=self.blocks,
                    channels=self.channels,
                    height=self.height,
                    width=self.width,
                    yc=self.channel,
                    yb=self.block,
                    yh=self.row,
                )
                for r, x in enumerate(examples)
            ]
        )


def load(lanes: Lanes, examples: Tensor, tensor: Tensor, library: Library | None) -> None:
    """Examples [R, n <= batch, ...] into lanes [R, ...], zero where an example is missing."""
    wide = tensor.dtype == torch.float64
    if library is not None:
        rows = [one.contiguous() for one in examples]
        library.run(LOAD, wide, lanes.images(rows, tensor))
        return
    padded = tensor.new_zeros(len(examples), lanes.blocks * BLOCK, lanes.channels, lanes.height, lanes.width)
    padded[:, : examples.shape[1]] = examples.reshape(*examples.shape[:2], *padded.shape[2:])
    inside = lanes.inside(tensor[: len(examples)])
    inside.copy_(padded.unflatten(1, (lanes.blocks, BLOCK)).permute(0, 1, 3, 4, 5, 2))


def store(lanes: Lanes, tensor: Tensor, examples: int, library: Library | None) -> Tensor:
    """The first examples [R, n, channels * height * width] in lanes [R, ...]."""
    if library is not None:
        found = tensor.new_empty(len(tensor), examples, lanes.channels * lanes.height * lanes.width)
        library.run(STORE, tensor.dtype == torch.float64, lanes.images(list(found), tensor))
        return found
    inside = lanes.inside(tensor).permute(0, 1, 5, 2, 3, 4)
    return inside.reshape(len(tensor), lanes.blocks * BLOCK, -1)[:, :examples].contiguous()
