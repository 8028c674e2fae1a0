"""How small a ticket can be made: what is left of its network when everything dead has been taken out."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ltx.core.task import Task
from ltx.core.ticket import Trained, Tree
from ltx.pruning.compact import Compactor
from ltx.pruning.size import Size, size

COLUMNS = (
    "architecture dense_parameters parameters dense_macs macs "
    "dense_bytes compact_bytes bitmask_bytes csr_bytes"
).split()


class Sizes:
    """Measures the networks of a run, whose structure is taken apart once."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @cached_property
    def compactor(self) -> Compactor:
        return Compactor(self.task.network(), self.task.data.shape)

    @cached_property
    def dense(self) -> Size:
        return size(self.task.network().eval(), self.task.data.shape)

    def rows(self, trained: Trained) -> list[tuple[Any, ...]]:
        """The `COLUMNS` of what was trained, a row per replicate.

        Bytes: of the whole network, of the compact one, and of the compact one's mask and values.
        """
        return [
            self.row({name: tensor[r] for name, tensor in trained.final.items()})
            for r in range(self.task.replicates)
        ]

    def row(self, weights: Tree) -> tuple[Any, ...]:
        small = self.compactor.compact(weights)
        left, dense = size(small.network, self.task.data.shape), self.dense
        return (
            small.architecture,
            *(dense.parameters, left.parameters, dense.macs, left.macs),
            *(dense.dense_bytes, left.dense_bytes, left.bitmask_bytes, left.csr_bytes),
        )
