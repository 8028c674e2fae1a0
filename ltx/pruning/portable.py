"""A ticket in one small file that any machine can read: its mask as bits, and the weights that training starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ltx.core import sealed
from ltx.core.ticket import Tree, below, digest
from ltx.errors import Damaged, UserError
from ltx.files import fit
from ltx.pruning.masks import packed, unpacked

FORMAT = 1
"""Raised when a reader of the one before would misread a ticket's file."""
HEADER: dict[str, Any] = {
    "kind": str,
    "format": int,
    "layers": {str: [int]},
    "level": int,
    "role": str,
    "draw": int,
    "seed": int,
    "density": float,
    "start": int,
    "drawn": str,
    "weights": str,
    "config": dict,
    "fingerprint": str,
    "tag": str,
    "versions": {str: str},
}
"""What a ticket's file says of itself (see `ltx.files.fit`). `drawn`: the seed's stream that the weights can be drawn
from again, empty if the file has them; `weights`: their digest."""


@dataclass(frozen=True)
class Portable:
    """One seed's ticket, without an axis of replicates."""

    mask: Tree  # bool by layer, True = alive
    weights: Tree  # what training starts from, not yet masked; empty where they can be drawn again
    about: Mapping[str, Any]

    @property
    def density(self) -> float:
        """Living convolution and dense weights as a fraction of all of them, unpruned layers included."""
        return float(self.about["density"])


def save(path: Path, ticket: Portable) -> int:
    """Write a ticket's file, whole or not at all; returns its bytes."""
    tree = {f"mask/{name}": packed(alive.flatten()) for name, alive in ticket.mask.items()}
    tree |= {f"weights/{name}": tensor for name, tensor in ticket.weights.items()}
    sealed.save(path, tree, {**ticket.about, "kind": "portable", "format": FORMAT})
    return path.stat().st_size


def read(path: Path) -> Portable:
    """The ticket in a file, which executes nothing; raises UserError if it is missing, broken or too new.

    Nothing is made that is larger than what the file itself has: sizes are compared with its bytes first.
    """
    try:
        found = sealed.read(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    about = found.header
    if about.get("kind") != "portable":
        raise UserError(f"{path} is no ticket's file; `ltx ticket RUN --out FILE` makes one")
    if about.get("format") != FORMAT:
        raise UserError(f"{path} has format {about.get('format')}, this ltx reads {FORMAT}: update ltx")
    if missing := HEADER.keys() - about.keys():
        raise Damaged(path, f"it does not say its {min(missing)}")
    try:
        fit(about, HEADER)
    except ValueError as error:
        raise Damaged(path, str(error)) from error
    bits, weights = below(found.tree, "mask/"), below(found.tree, "weights/")
    layers: dict[str, list[int]] = about["layers"]
    for name, shape in layers.items():
        size = prod(shape) if all(side > 0 for side in shape) else -1
        if name not in bits or bits[name].shape != ((size + 7) // 8,):
            raise Damaged(path, f"the mask of {name} is not of shape {shape}")
        if name in weights and list(weights[name].shape) != shape:
            raise Damaged(path, f"the weights of {name} are not of shape {shape}")
    if weights and digest(weights) != about["weights"]:
        raise Damaged(path, "its weights are others than it says")
    mask = {name: unpacked(bits[name], prod(shape)).view(shape) for name, shape in layers.items()}
    return Portable(mask, weights, about)
