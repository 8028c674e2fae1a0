"""Training that costs what the surviving weights cost.

Leaves are the survivors' values: products are made with them alone (ltx/engine/kernels), gradients exist for them
alone, and so does the optimizer's state. Whatever a layer is not worth it for is computed dense beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Tree
from ltx.engine.executors.assembly import Assembly, Parts, assemblable
from ltx.engine.executors.base import Executor, network_of
from ltx.engine.executors.graph import Node, as_image, read, shapes
from ltx.engine.kernels.lanes import BLOCK, Port
from ltx.engine.kernels.library import best
from ltx.errors import demand
from ltx.models.base import tensors

BREAK_EVEN = {"kernel": 0.4, "csr": 0.25}
"""Densities below which a layer is computed from its survivors: see benchmarks/sparse.py, which prints them.

Measured once and written here, never timed at run time: the same command chooses the same everywhere."""


WORTH = 0.9
"""What part of the dense products' time the survivors' may take for a network to be computed so: the rest is lost
where dense layers beside change the layout."""


class Sparse(Executor):
    """R networks by their survivors, in lanes: 16 examples innermost."""

    name = "sparse"

    @classmethod
    def suits(cls, network: nn.Module, task: Task, round: Round) -> bool:
        """On a CPU, without hooks that need dense gradients, if it is worth it for any layer."""
        hooks = round.hooks
        if task.engine == "dense" or task.device.type != "cpu" or round.plan.precision != "float32":
            return False
        if hooks.penalty or hooks.project or hooks.regrow or round.channels:
            return False
        nodes = graph(network, task.data.shape)
        return nodes is not None and all(worth(nodes, task, round.ticket.mask))

    def __init__(self, task: Task, round: Round) -> None:
        network = network_of(task, round)
        nodes = graph(network, task.data.shape)
        assert nodes is not None
        self.goal, self.batch = task.goal, round.plan.batch_size
        self.stack, self.mask = round.ticket.start(), dict(round.ticket.mask)
        self.running = [True] * round.ticket.replicates
        self.where = {
            name: [one.flatten().nonzero().flatten() for one in alive] for name, alive in self.mask.items()
        }
        trained = {name: self.stack[name] for name, t in tensors(network).items() if t.requires_grad}
        self.block, self.leaves = in_one_block(self.part(trained))
        self.d_block = torch.zeros_like(self.block)
        self.gradients = {
            name: self.d_block.as_strided(leaf.shape, leaf.stride(), leaf.storage_offset())
            for name, leaf in self.leaves.items()
        }
        self.library = best()
        stacked = not any(isinstance(node.module, nn.Conv2d) for node in nodes)
        layers = [f"{node.name}.weight" for node in nodes if node.kind == "product"]
        self.ways = ways_of(nodes, task, self.mask)
        parts = Parts(
            nodes=nodes,
            alive={
                name: self.mask.get(name, torch.ones_like(self.stack[name], dtype=torch.bool))
                for name in layers
            },
            ways=self.ways,
            leaves=self.leaves,
            gradients=self.gradients,
            buffers={name: tensor for name, tensor in self.stack.items() if name not in self.leaves},
            library=self.library,
            slots=len(self.running) if stacked else 1,
        )
        self.assembly = Assembly(parts, as_image(task.data.shape), self.batch)
        used = sorted({way for ways in self.ways.values() for way in ways} - {"dense"})
        self.build = ", ".join(
            f"kernel {self.library.name} {self.library.digest}" if way == "kernel" and self.library else way
            for way in used
        )
        inputs, outputs = self.assembly.inputs, self.assembly.outputs
        self.images = Port(inputs.lanes, inputs.y, self.library)
        self.results = Port(outputs.lanes, outputs.y, self.library)
        self.slopes = Port(outputs.lanes, outputs.d, self.library)
        # Small networks are computed together, call by call; large ones one after the other, in the same memory.
        self.turns = [(0, len(self.running))] if stacked else [(r, 1) for r in range(len(self.running))]

    def blocks(self) -> dict[str, tuple[Tensor, Tensor]]:
        return dict.fromkeys(self.leaves, (self.block, self.d_block))

    @torch.no_grad()
    def backward(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        losses = []
        for r, count in self.turns:
            now = slice(r, r + count)
            if not any(self.running[now]):
                losses.append(inputs.new_zeros(count))
                continue
            self.images.load(inputs[now])
            self.assembly.forward(r, count, True)
            loss, gradient = self.goal.backward(self.results.store(inputs.shape[1]), targets[now])
            self.slopes.load(gradient)
            self.assembly.backward(r, count)
            losses.append(loss)
        return torch.cat(losses)

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        return torch.cat([self._outputs(r, count, inputs) for r, count in self.turns])

    def _outputs(self, r: int, count: int, inputs: Tensor) -> Tensor:
        found = []
        for some in inputs.split(self.batch):
            self.images.load(some.expand(count, *some.shape))
            self.assembly.forward(r, count, False)
            found.append(self.results.store(len(some)))
        return torch.cat(found, 1)

    def weights(self) -> Tree:
        return self.stack | self.whole(self.leaves)

    def load(self, weights: Tree, mask: Tree | None = None) -> None:
        assert mask is None or all(torch.equal(mask[name], alive) for name, alive in self.mask.items())
        for name, leaf in self.part(weights).items():
            self.leaves[name].copy_(leaf)
        for name in self.stack.keys() - self.leaves.keys():
            self.stack[name].copy_(weights[name])

    def whole(self, tree: Tree) -> Tree:
        return {
            name: self._spread(name, value) if name in self.mask else value for name, value in tree.items()
        }

    def part(self, tree: Tree) -> Tree:
        return {
            name: self._gathered(name, value) if name in self.mask else value for name, value in tree.items()
        }

    def _spread(self, name: str, values: Tensor) -> Tensor:
        found = values.new_zeros(self.mask[name].shape)
        for row, value, where in zip(found.flatten(1), values, self.where[name], strict=True):
            row[where] = value[: len(where)]
        return found

    def _gathered(self, name: str, whole: Tensor) -> Tensor:
        """Survivors in mask order, then zeros up to whole blocks: where a row ends rounds no weight otherwise."""
        most = max(len(where) for where in self.where[name])
        found = whole.new_zeros(len(whole), -(-max(most, 1) // BLOCK) * BLOCK)
        for row, value, where in zip(found, whole.flatten(1), self.where[name], strict=True):
            row[: len(where)] = value[where]
        return found


def demand_engine(task: Task, plan: Plan) -> None:
    """Refuse an engine, asked for by its name, that cannot compute the task's network here; raises UserError."""
    if task.engine not in ("kernel", "csr"):
        return
    key = "engine"
    compiled = task.engine != "kernel" or best() is not None
    demand(
        compiled, key, task.engine, "the kernels were not compiled (ltx --version); choose auto, csr or dense"
    )
    demand(task.device.type == "cpu", key, task.engine, f"it needs device=cpu, not {task.device.type}")
    demand(
        plan.precision == "float32",
        key,
        task.engine,
        f"it needs recipe.precision=float32, not {plan.precision}",
    )
    frozen = ", ".join(plan.freeze)
    demand(not frozen, key, task.engine, f"recipe.freeze=[{frozen}] needs engine=dense (auto takes it)")
    nodes = graph(task.network(), task.data.shape)
    known = nodes is not None and bool(ways_of(nodes, task, {}))
    demand(known, key, task.engine, "it does not know all of this network's layers; choose auto or dense")


def in_one_block(leaves: Tree) -> tuple[Tensor, Tree]:
    """A stack [R, P] that holds every leaf [R, ...], each at a whole block of numbers; and the leaves in it."""
    rows = {name: leaf.flatten(1) for name, leaf in leaves.items()}
    lengths = [-(-row.shape[1] // BLOCK) * BLOCK for row in rows.values()]
    first = next(iter(rows.values()))
    block = first.new_zeros(len(first), sum(lengths))
    views = {}
    for (name, row), part in zip(rows.items(), block.split(lengths, 1), strict=True):
        part[:, : row.shape[1]] = row
        views[name] = part[:, : row.shape[1]].unflatten(1, leaves[name].shape[1:])
    return block, views


def graph(network: nn.Module, shape: Sequence[int]) -> list[Node] | None:
    """The network's operations on inputs of a shape, if it can be computed in lanes."""
    nodes = read(network)
    return nodes if nodes is not None and assemblable(nodes, as_image(shape)) else None


def worth(nodes: list[Node], task: Task, mask: Tree) -> list[bool]:
    """Whether each replicate costs less so; an engine asked for by its name is taken wherever anything is pruned."""
    ways = ways_of(nodes, task, mask)
    if not ways:
        return [False]
    rows = {name: densities(mask, name, task.replicates) for name in ways}
    if task.engine != "auto":
        return [any(row[r] < 1 for row in rows.values()) for r in range(task.replicates)]
    dense, ours = 0.0, torch.zeros(task.replicates)
    for node, (_, height, width) in zip(nodes, shapes(nodes, as_image(task.data.shape)), strict=True):
        if isinstance(node.module, nn.Linear | nn.Conv2d):
            products = node.module.weight.numel() * height * width
            name, dense = f"{node.name}.weight", dense + products
            for r, way in enumerate(ways[name]):
                ours[r] += products * (1 if way == "dense" else rows[name][r] / BREAK_EVEN[way])
    return (ours < WORTH * dense).tolist()


def ways_of(nodes: list[Node], task: Task, mask: Tree) -> dict[str, list[str]]:
    """For every layer's weight how each replicate computes it: from its own density and the device alone.

    An engine asked for by its name has every layer that something was pruned from; `auto` those below the break-even.
    """
    convolutions = any(isinstance(node.module, nn.Conv2d) for node in nodes)
    compiled = best() is not None
    sparse = "kernel" if task.engine == "kernel" or (task.engine == "auto" and compiled) else "csr"
    if convolutions and (sparse == "csr" or not compiled):  # CSR of convolutions never pays
        return {}
    least = BREAK_EVEN[sparse] if task.engine == "auto" else 1.0
    return {
        f"{node.name}.weight": [
            sparse if density < least or few(node.module) else "dense"
            for density in densities(mask, f"{node.name}.weight", task.replicates)
        ]
        for node in nodes
        if node.kind == "product"
    }


def few(module: nn.Module | None) -> bool:
    """Whether a convolution reads so little that changing the layout for torch's would cost more than it saves."""
    return isinstance(module, nn.Conv2d) and module.weight[0].numel() <= 64


def densities(mask: Tree, name: str, replicates: int) -> list[float]:
    """Each replicate's of one layer."""
    if name not in mask:
        return [1.0] * replicates
    return [int(one.count_nonzero()) / one.numel() for one in mask[name]]
