"""What stands between a network's layers, in lanes: normalisation, ReLUs, sums, pools, a change of shape.

Every operation reads the `Values` of others and writes its own; `backward` turns the gradient at its own values
into that at theirs. Operations are called in the network's order, then in reverse; r and count say for which
replicates, and where those take turns they share one memory.
"""

from __future__ import annotations

from ctypes import Array
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ltx.core.ticket import Tree
from ltx.engine.kernels.lanes import Lanes
from ltx.engine.kernels.library import DENORMALISE, MOMENTS, NORMALISE, POOL, UNPOOL, Library, Norm, Window
from ltx.engine.kernels.survivors import at


@dataclass
class Values:
    """What an operation makes, and the loss's gradient there: [R, *lanes.shape], R = 1 where replicates take turns."""

    lanes: Lanes
    y: Tensor
    d: Tensor


class Operation(Protocol):
    """One step of a network, for replicates r to r + count."""

    def forward(self, r: int, count: int, training: bool) -> None: ...

    def backward(self, r: int, count: int) -> None: ...


class Relu:
    """Of one value, or of a sum of two; in the sum's backward its first value shares the gradient's memory."""

    def __init__(self, inputs: list[Values], own: Values, *, relu: bool) -> None:
        self.inputs, self.own, self.relu = inputs, own, relu

    def forward(self, r: int, count: int, training: bool) -> None:
        first, *rest = (value.y for value in self.inputs)
        if rest:
            torch.add(first, rest[0], out=self.own.y)
            first = self.own.y
        if self.relu:
            torch.clamp_min(first, 0, out=self.own.y)

    def backward(self, r: int, count: int) -> None:
        d = self.own.d
        if self.relu:
            torch.ops.aten.threshold_backward.grad_input(d, self.own.y, 0, grad_input=d)
        for value in self.inputs:
            if value.d.data_ptr() != d.data_ptr():
                value.d.copy_(d)


class Mean:
    """Over the pixels of each channel."""

    def __init__(self, x: Values, own: Values) -> None:
        self.x, self.own = x, own

    def forward(self, r: int, count: int, training: bool) -> None:
        inside = self.x.lanes.inside(self.x.y)
        self.own.lanes.inside(self.own.y).copy_(inside.mean((-3, -2), keepdim=True))

    def backward(self, r: int, count: int) -> None:
        d, lanes = self.own.lanes.inside(self.own.d), self.x.lanes
        lanes.inside(self.x.d).copy_(d / (lanes.height * lanes.width))


class Pool:
    """The largest of each window; `relu`: the values before are a ReLU's, whose gradient this one gates."""

    def __init__(self, x: Values, own: Values, size: int, library: Library, *, relu: bool) -> None:
        self.library, self.wide, self.x = library, x.y.dtype == torch.float64, x
        self.whole = not (x.lanes.height % size or x.lanes.width % size)  # no pixel lies outside the windows
        self.windows: Array[Window] = (Window * len(x.y))(
            *[
                Window(
                    x=at(x.y, r, x.lanes.corner), dx=at(x.d, r, x.lanes.corner),
                    y=at(own.y, r, own.lanes.corner), dy=at(own.d, r, own.lanes.corner),
                    xb=x.lanes.block, xc=x.lanes.channel, xh=x.lanes.row,
                    yb=own.lanes.block, yc=own.lanes.channel, yh=own.lanes.row,
                    blocks=x.lanes.blocks, channels=x.lanes.channels,
                    height=own.lanes.height, width=own.lanes.width, size=size, relu=relu,
                )
                for r in range(len(x.y))
            ]
        )  # fmt: skip

    def forward(self, r: int, count: int, training: bool) -> None:
        self.library.run(POOL, self.wide, self.windows)

    def backward(self, r: int, count: int) -> None:
        if not self.whole:
            self.x.d.zero_()
        self.library.run(UNPOOL, self.wide, self.windows)


class BatchNorm:
    """With its ReLU, if one follows; x and its own values share the gradient's memory."""

    def __init__(
        self, x: Values, own: Values, module: nn.BatchNorm2d, trees: tuple[Tree, Tree, Tree], library: Library,
        *, relu: bool,
    ) -> None:  # fmt: skip
        """`trees`: leaves, gradients and buffers [R, channels] by the module's own names for them."""
        leaves, gradients, self.buffers = trees
        self.library, self.wide, self.lanes = library, x.y.dtype == torch.float64, x.lanes
        assert module.momentum is not None
        self.momentum, self.replicates = module.momentum, len(leaves["weight"])
        self.moments = [torch.zeros_like(leaves["weight"]) for _ in range(2)]
        running = [self.buffers["running_mean"], self.buffers["running_var"]]
        self.trained, self.measured = (
            (Norm * self.replicates)(
                *[
                    Norm(
                        x=at(x.y, r, x.lanes.corner), y=at(own.y, r, x.lanes.corner),
                        d=at(own.d, r, x.lanes.corner),
                        weight=at_row(leaves["weight"], r), bias=at_row(leaves["bias"], r),
                        dweight=at_row(gradients["weight"], r), dbias=at_row(gradients["bias"], r),
                        mean=at_row(mean, r), variance=at_row(variance, r), epsilon=module.eps,
                        b=x.lanes.block, c=x.lanes.channel, h=x.lanes.row,
                        batch=x.lanes.batch, blocks=x.lanes.blocks, channels=x.lanes.channels,
                        height=x.lanes.height, width=x.lanes.width, relu=relu,
                    )
                    for r in range(self.replicates)
                ]
            )
            for mean, variance in (self.moments, running)
        )  # fmt: skip

    def forward(self, r: int, count: int, training: bool) -> None:
        if not training:
            self.library.run(NORMALISE, self.wide, self.measured, r, r + count)
            return
        self.library.run(MOMENTS, self.wide, self.trained, r, r + count)
        self.library.run(NORMALISE, self.wide, self.trained, r, r + count)
        now, examples = slice(r, r + count), self.lanes.batch * self.lanes.height * self.lanes.width
        mean, variance = (moment[now] for moment in self.moments)
        self.buffers["running_mean"][now].lerp_(mean, self.momentum)
        self.buffers["running_var"][now].lerp_(variance * (examples / (examples - 1)), self.momentum)
        self.buffers["num_batches_tracked"][now] += 1

    def backward(self, r: int, count: int) -> None:
        self.library.run(DENORMALISE, self.wide, self.trained, r, r + count)


def at_row(stack: Tensor, r: int) -> int:
    """Where a replicate's row lies."""
    return stack[r].data_ptr()
