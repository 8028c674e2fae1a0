"""How a batch lies in memory for the kernels: examples innermost, in blocks of 16."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array
from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.engine.kernels.library import Image

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
