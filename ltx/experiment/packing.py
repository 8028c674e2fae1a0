"""What of a ticket and of its training goes into files, and back: masks as bits, all else as tensors by name."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ltx.core.task import Task
from ltx.core.ticket import Curve, Ticket, Trained, Tree, below, digest
from ltx.pruning.masks import packed, unpacked


def bits(mask: Tree) -> Tree:
    """Masks [R, *shape] as bits, [R, bytes] uint8."""
    return {f"mask/{name}": packed(alive.flatten(1).cpu()) for name, alive in mask.items()}


def identity(weights: str, mask: Tree) -> str:
    """What makes two tickets the same: every weight (by their digest) and every bit of the mask."""
    return hashlib.sha256(f"{weights}{mask_digest(mask)}".encode()).hexdigest()


def ticket_identity(ticket: Ticket) -> str:
    """The same, of a whole ticket."""
    return identity(digest(ticket.weights), ticket.mask)


def mask_digest(mask: Tree) -> str:
    """The digest of masks as they are stored."""
    return digest(bits(mask))


def layer_table(task: Task, ticket: Ticket) -> dict[str, Any]:
    """Shape and kind of every layer's weights, and whether they may be pruned."""
    layers = task.layers
    return {
        name: {
            "shape": list(ticket.weights[name].shape[1:]),
            "kind": layers.kinds[name],
            "prunable": name in layers.prunable,
        }
        for name in layers.sizes
    }


def flatten(trained: Trained, mask: Tree) -> Tree:
    """A Trained as one flat tree of tensors, without the weights `at` steps on the way.

    Its mask is in it only if it is not the ticket's: if training has changed it.
    """
    own = (
        {}
        if all(torch.equal(alive, trained.mask[name]) for name, alive in mask.items())
        else bits(trained.mask)
    )
    return {
        **own,
        **{f"optimizer/{key}": tensor for key, tensor in trained.optimizer.items()},
        **{f"final/{name}": tensor for name, tensor in trained.final.items()},
        **{f"curve/{key}": value for key, value in trained.curve.tree().items()},
        **{f"memo/{name}": tensor for name, tensor in trained.memo.items()},
        "train_measure": trained.train_measure,
        "diverged": trained.diverged,
        "steps": trained.steps,
        "seconds": torch.tensor(trained.seconds, dtype=torch.float64),
        "joules": trained.joules,
    }


def unflatten(tree: Tree, at: dict[int, Tree], mask: Tree, device: torch.device) -> Trained:
    """The Trained that `flatten` took apart, weights on the device and measurements on the CPU."""
    stored = below(tree, "mask/")
    own = {  # in the ticket's order: a file's is that of the alphabet, and tables go by it
        name: unpacked(stored[name], alive[0].numel()).view_as(alive)
        for name, alive in mask.items()
        if name in stored
    }
    return Trained(
        mask={name: alive.to(device) for name, alive in own.items()} or mask,
        optimizer={key: tensor.to(device) for key, tensor in below(tree, "optimizer/").items()},
        final={name: tensor.to(device) for name, tensor in below(tree, "final/").items()},
        at=at,
        curve=Curve.of(below(tree, "curve/")),
        train_measure=tree["train_measure"],
        diverged=tree["diverged"],
        steps=tree["steps"],
        seconds=float(tree["seconds"]),
        joules=tree["joules"],
        memo=below(tree, "memo/"),
    )
