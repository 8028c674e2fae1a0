"""How much each weight matters: pure functions from weights to scores, the highest kept."""

from __future__ import annotations

from ltx.ticket import Tree


def magnitude(weights: Tree) -> Tree:
    """|w| (Han et al. 2015)."""
    return {name: tensor.abs() for name, tensor in weights.items() if tensor.is_floating_point()}
