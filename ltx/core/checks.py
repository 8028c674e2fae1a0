"""What must hold while an experiment runs. Every check is counted; a violation stops the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from ltx.core.ticket import Ticket, Tree
from ltx.errors import InvariantError


class Checks:
    """Counts how often each promise was verified, for the manifest."""

    def __init__(self, before: dict[str, int] | None = None) -> None:
        self.passed: Counter[str] = Counter(before)  # what earlier sessions of a run have verified

    def hold(self, promise: str, kept: bool | Tensor, where: str = "") -> None:
        if not bool(kept):
            raise InvariantError(f"broken promise{' at ' + where if where else ''}: {promise}")
        self.passed[promise] += 1

    def nested(self, child: Tree, parent: Tree, where: str) -> None:
        self.hold(
            "masks are nested from level to level",
            all(bool((child[name] <= parent[name]).all()) for name in parent),
            where,
        )

    def counts(self, ticket: Ticket, kept: Mapping[str, int], where: str) -> None:
        """Every replicate has exactly the promised number of weights in each layer, or ("") in all together."""
        found = ticket.kept()
        found[""] = torch.stack(list(found.values())).sum(0)
        self.hold("kept counts are exact", all(bool((found[k] == n).all()) for k, n in kept.items()), where)

    def starts_from(self, weights: Tree, ticket: Ticket, where: str) -> None:
        """Survivors equal the ticket's weights bit for bit; everything pruned is zero."""
        self.hold(
            "survivors start bit-equal to the rewind weights and the pruned at zero",
            all(
                torch.equal(tensor, torch.where(ticket.mask[name], ticket.weights[name], 0))
                if name in ticket.mask
                else torch.equal(tensor, ticket.weights[name])
                for name, tensor in weights.items()
            ),
            where,
        )

    def zero(self, what: str, tree: Tree, mask: Tree, sound: Tensor, where: str) -> None:
        """Pruned entries are exactly zero in every replicate that has not diverged (sound [R] bool)."""
        self.hold(
            f"pruned {what} exactly zero",
            all(
                not ((tree[name] != 0) & ~alive)[sound].any() for name, alive in mask.items() if name in tree
            ),
            where,
        )

    def agree(self, ours: Tensor, theirs: Tensor, sound: Tensor, tolerance: float, where: str) -> None:
        """Outputs [R, N, K] are the network's own, up to rounding, in every sound replicate ([R] bool).

        `tolerance` is a fraction of 1 + the replicate's largest output.
        """
        largest = theirs.abs().amax((1, 2), keepdim=True)
        close = ((ours - theirs).abs() <= tolerance * (1 + largest)).flatten(1).all(1)
        self.hold("outputs are the network's own", (close | ~sound).all(), where)

    def control(self, control: Ticket, ticket: Ticket, where: str, *, layerwise: bool = True) -> None:
        """A control is another network with as many weights, in every layer or in all together."""
        same_mask = all(torch.equal(control.mask[name], alive) for name, alive in ticket.mask.items())
        same_start = all(torch.equal(control.weights[name], ticket.weights[name]) for name in ticket.mask)
        self.hold("a control differs from its ticket", not (same_mask and same_start), where)
        mine, theirs = (torch.stack(list(t.kept().values())) for t in (control, ticket))
        if layerwise:
            self.hold("a control keeps its ticket's layer counts", torch.equal(mine, theirs), where)
        else:
            self.hold("a control keeps its ticket's count", torch.equal(mine.sum(0), theirs.sum(0)), where)
