"""A network's operations in lanes: where their values lie, and what is computed in one go with what."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltx.core.ticket import Tree, below
from ltx.engine.executors.graph import Node, Shape, form, shapes, window
from ltx.engine.executors.operations import BatchNorm, Mean, Operation, Pool, Relu, Values
from ltx.engine.executors.products import Layer
from ltx.engine.kernels.lanes import Lanes
from ltx.engine.kernels.library import ADD, GATE, RELU, SET, Library
from ltx.engine.kernels.survivors import Memory


@dataclass(frozen=True)
class Parts:
    """What a network is assembled from."""

    nodes: list[Node]
    alive: Tree  # [R, *shape] bool of every layer's weight
    ways: dict[str, list[str]]  # of every layer's weight, how each replicate computes it
    leaves: Tree
    gradients: Tree
    buffers: Tree
    library: Library | None
    slots: int  # R, or 1: replicates take turns in the same memory


def consumers(nodes: list[Node]) -> list[list[int]]:
    """For each operation the places of those that read it."""
    return [[i for i, node in enumerate(nodes) if place in node.inputs] for place in range(len(nodes))]


def assemblable(nodes: list[Node], shape: Shape) -> bool:
    """Whether every gradient has room: only layers add to one that another has written."""
    made = shapes(nodes, shape)
    readers = consumers(nodes)
    kinds = [node.kind for node in nodes]
    for node, read in zip(nodes, readers, strict=True):
        if node.kind != "input" and any(kinds[i] != "product" for i in read[:-1]):
            return False
    for node in nodes:
        if isinstance(node.module, nn.Linear) and made[node.inputs[0]] != (node.module.in_features, 1, 1):
            return False
        sole = all(len(readers[i]) == 1 for i in node.inputs)
        if node.kind in ("norm", "pool", "mean", "relu", "flatten") and not sole:
            return False
        if node.kind == "flatten" and kinds[node.inputs[0]] not in ("input", "pool", "mean"):
            return False
        if node.kind == "add" and (len(node.inputs) != 2 or len(readers[node.inputs[0]]) != 1):
            return False
    return kinds[-1] == "product" and isinstance(nodes[-1].module, nn.Linear)


class Assembly:
    """The operations of R networks on batches of one size, and the values at both ends."""

    def __init__(self, parts: Parts, shape: Shape, batch: int) -> None:
        self.parts, self.nodes, self.readers = parts, parts.nodes, consumers(parts.nodes)
        self.fused = [self._fused(place) for place in range(len(self.nodes))]
        border = max([0, *(reach(node.module) for node in self.nodes)])
        self.shapes = shapes(self.nodes, shape)
        self.lanes: list[Lanes] = []
        for place in range(len(self.nodes)):
            self.lanes.append(self._lanes(place, batch, border))
        self.values = self._memory()
        self.operations: list[Operation] = [
            operation for place in range(len(self.nodes)) if (operation := self._operation(place)) is not None
        ]

    @property
    def inputs(self) -> Values:
        return self.values[0]

    @property
    def outputs(self) -> Values:
        return self.values[-1]

    def forward(self, r: int, count: int, training: bool) -> None:
        for operation in self.operations:
            operation.forward(r, count, training)

    def backward(self, r: int, count: int) -> None:
        for operation in reversed(self.operations):
            operation.backward(r, count)

    # -- where values lie ---------------------------------------------------------------------------------------

    def _lanes(self, place: int, batch: int, border: int) -> Lanes:
        node, read = self.nodes[place], [self.nodes[i].kind for i in self.readers[place]]
        channels, height, width = self.shapes[place]
        if node.kind == "input" and (read == ["flatten"] or height == width == 1):
            return Lanes(batch, channels * height * width, together=True)
        if isinstance(node.module, nn.Linear):
            return Lanes(batch, channels, together=True)
        if node.kind in ("flatten", "mean"):
            before = self.lanes[node.inputs[0]]
            return before if before.together else Lanes(batch, channels)
        if node.kind in ("relu", "norm", "add"):
            return self.lanes[node.inputs[0]]
        return Lanes(batch, channels, height, width, 0 if read == ["flatten"] else border)

    def _memory(self) -> list[Values]:
        """Values in order; gradients in reverse, in the memory of the reader's own where it writes in place."""
        nodes, slots = self.nodes, self.parts.slots
        dtype = next(iter(self.parts.leaves.values())).dtype
        ys: list[Tensor] = []
        for node, lanes in zip(nodes, self.lanes, strict=True):
            shared = node.kind == "flatten" or (node.kind == "relu" and self.fused[node.inputs[0]])
            ys.append(ys[node.inputs[0]].view(slots, *lanes.shape) if shared else lanes.zeros(slots, dtype))
        ds: list[Tensor | None] = [None] * len(nodes)
        for place in reversed(range(len(nodes))):
            node = nodes[place]
            d = ds[place]
            if d is None:
                d = ds[place] = torch.zeros_like(ys[place])
            if node.kind in ("relu", "add", "norm", "flatten"):
                first = node.inputs[0]
                ds[first] = d.view_as(ys[first])
        return [Values(lanes, y, d) for lanes, y, d in zip(self.lanes, ys, ds, strict=True) if d is not None]

    # -- what is computed ---------------------------------------------------------------------------------------

    def _fused(self, place: int) -> bool:
        """Whether the ReLU that alone reads an operation is computed with it."""
        read = self.readers[place]
        if len(read) != 1 or self.nodes[read[0]].kind != "relu":
            return False
        kind, after = self.nodes[place].kind, [self.nodes[i].kind for i in self.readers[read[0]]]
        return kind == "norm" or (kind == "product" and after in (["product"], ["pool"]))

    def _gated(self, place: int) -> bool:
        """Whether who reads this must gate its gradient: a layer's own ReLU has been computed with it."""
        node = self.nodes[place]
        before = self.nodes[node.inputs[0]].kind if node.inputs else ""
        return node.kind == "relu" and before == "product" and self.fused[node.inputs[0]]

    def _operation(self, place: int) -> Operation | None:
        node, own, library = self.nodes[place], self.values[place], self.parts.library
        inputs = [self.values[i] for i in node.inputs]
        relu = self.fused[place]
        match node.kind:
            case "product":
                return self._layer(place)
            case "norm":
                assert library is not None
                assert isinstance(node.module, nn.BatchNorm2d)
                trees = (
                    self._of(self.parts.leaves, node),
                    self._of(self.parts.gradients, node),
                    self._of(self.parts.buffers, node),
                )
                return BatchNorm(inputs[0], own, node.module, trees, library, relu=relu)
            case "pool":
                assert library is not None
                assert isinstance(node.module, nn.MaxPool2d)
                return Pool(inputs[0], own, window(node.module), library, relu=self._gated(node.inputs[0]))
            case "mean":
                return Mean(inputs[0], own)
            case "add":
                return Relu(inputs, own, relu=False)
            case "relu" if not self.fused[node.inputs[0]]:
                return Relu(inputs, own, relu=True)
        return None

    @staticmethod
    def _of(tree: Tree, node: Node) -> Tree:
        return below(tree, f"{node.name}.")

    def _layer(self, place: int) -> Operation:
        node, own = self.nodes[place], self.values[place]
        assert isinstance(node.module, nn.Linear | nn.Conv2d)
        x, before = self.values[node.inputs[0]], node.inputs[0]
        leaves, gradients = (self._of(tree, node) for tree in (self.parts.leaves, self.parts.gradients))
        gated = self._gated(before)
        wanted = self._needs_gradient(before)
        memory = Memory(
            values=leaves["weight"].flatten(1), bias=leaves.get("bias"), x=x.y, y=own.y,
            d_values=gradients["weight"].flatten(1), d_bias=gradients.get("bias"),
            d_x=x.d if wanted else None, d_y=own.d, gate=x.y if gated else None,
        )  # fmt: skip
        alive = self.parts.alive[f"{node.name}.weight"]
        last = self.readers[before][-1] == place
        return Layer(
            alive.reshape(*alive.shape[:3], *(alive.shape[3:] or (1, 1))),
            (x.lanes, own.lanes), memory, self.parts.library, self.parts.ways[f"{node.name}.weight"],
            stride=form(node.module)[1],
            padding=form(node.module)[2],
            ends=(RELU if self.fused[place] else SET, ADD if not last else GATE if gated else SET),
        )  # fmt: skip

    def _needs_gradient(self, place: int) -> bool:
        """Whether anything before a value learns."""
        node = self.nodes[place]
        return node.kind in ("product", "norm") or any(self._needs_gradient(i) for i in node.inputs)


def reach(module: nn.Module | None) -> int:
    """How wide a border a layer reads, forward or backward."""
    kernel, _, padding = form(module)
    return max(padding, kernel - 1 - padding)
