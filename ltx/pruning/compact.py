"""A masked network made as small as its mask allows without changing what it computes.

A channel that nothing reads goes. One that no weight makes is a constant: it is folded into the biases of what
reads it, and goes. What went may leave others unread or unmade, so this is repeated until nothing changes. Found
by dead-unit elimination, as for "408-100-69" in RigL's appendix B (Evci et al. 2020).

BatchNorm counts as in evaluation. A constant that zero padding would interrupt at the borders is no constant
there: all such channels of a group are merged into one, which is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ltx.core.ticket import Tree
from ltx.errors import UserError
from ltx.models.base import filled
from ltx.pruning.channels import Group, Groups, Places, bundles, cut
from ltx.streams import drawing

TOLERANCE = 1e-8
"""How far the outputs may differ, in float64 and of the outputs' size; what differs more is not compacted."""


@dataclass(frozen=True)
class Compact:
    """What a masked network comes to, in float64 on the CPU and in evaluation mode."""

    network: nn.Module
    inputs: Tensor  # [inputs] bool: of those that the first layer reads, which it uses
    widths: dict[str, int]  # outputs of each convolution and dense layer, in network order
    why: str = ""  # why nothing was cut, if the network's channels cannot be followed

    @property
    def architecture(self) -> str:
        """The first layer's inputs, then the width of every layer but the last: "408-100-69"."""
        return "-".join(map(str, [int(self.inputs.sum()), *list(self.widths.values())[:-1]]))


class Pick(nn.Module):
    """The flattened inputs that a network uses."""

    def __init__(self, used: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", used.nonzero().flatten())

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, ...] to [N, used]."""
        return inputs.flatten(1).index_select(1, self.index)  # type: ignore[arg-type]


class Compactor:
    """Makes networks of one structure compact; what goes together in them is found once."""

    def __init__(self, network: nn.Module, shape: Iterable[int]) -> None:
        """`network` serves as the pattern and is not changed; `shape` is that of one input."""
        self.shape, self.pattern, self.why = tuple(shape), copy.deepcopy(network).cpu().double().eval(), ""
        try:
            found = bundles(copy.deepcopy(network), self.shape)
        except UserError as error:
            found, self.why = {}, str(error)
        self.groups: Groups = {name: group for name, group in found.items() if group.readers}

    def compact(self, weights: Tree) -> Compact:
        """The network with `weights` (its tensors [*shape], zero where pruned), without what is dead in it."""
        whole = filled(copy.deepcopy(self.pattern), weights)
        if self.why:
            return self._as_it_is(whole, self.why)
        small = copy.deepcopy(whole)
        try:
            cut(small, self.groups, settled(small, self.groups, observed(small, self.groups, self.shape)))
            network, inputs = picked(small)
            apart = distance(whole, network, self.shape)
        except Exception as error:  # a forward that counts on its widths, a weight that is made of others
            return self._as_it_is(whole, " ".join(f"{type(error).__name__}: {error}".split()))
        if apart > TOLERANCE:
            return self._as_it_is(whole, f"without what seemed dead the outputs differ by {apart:.1e}")
        return Compact(network, inputs, widths(network))

    @staticmethod
    def _as_it_is(whole: nn.Module, why: str) -> Compact:
        first = next(layer for layer in whole.modules() if isinstance(layer, _ConvNd | nn.Linear))
        return Compact(whole, torch.ones(first.weight.shape[1], dtype=torch.bool), widths(whole), why)


def layers(network: nn.Module) -> dict[str, _ConvNd | nn.Linear]:
    """The convolutions and dense layers, in network order."""
    return {name: m for name, m in network.named_modules() if isinstance(m, _ConvNd | nn.Linear)}


def widths(network: nn.Module) -> dict[str, int]:
    return {
        name: layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
        for name, layer in layers(network).items()
    }


# -- what is constant


def observed(network: nn.Module, groups: Groups, shape: Iterable[int]) -> Tree:
    """What every reader sees of two random inputs, by module: [positions, entries]."""
    seen: Tree = {}

    def look(name: str, layer: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            x = x.movedim(1, -1) if isinstance(module, _ConvNd) else x
            seen[name] = x.reshape(-1, x.shape[-1])

        hooks.append(layer.register_forward_pre_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in {name for group in groups.values() for name in group.readers}:
        look(name, network.get_submodule(name))
    run(network, shape, examples=2)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def run(network: nn.Module, shape: Iterable[int], examples: int) -> Tensor:
    """The outputs for random inputs, always the same."""
    generator = torch.Generator().manual_seed(0)
    with drawing(0, "compact"):  # a network of one's own may draw
        logits: Tensor = network(torch.randn(examples, *shape, generator=generator, dtype=torch.float64))
    return logits


def constants(seen: Tree, readers: Places) -> tuple[Tree, Tensor]:
    """The value of each entry that a reader sees [channels, k], by reader, and which channels never change."""
    values, still = {}, []
    for name, entries in readers.items():
        part = seen[name][:, entries]  # [positions, channels, k]
        values[name] = part[0]
        still.append((part == part[:1]).all(0).all(1))
    return values, torch.stack(still).all(0)


# -- to the fixed point


@torch.no_grad()
def settled(network: nn.Module, groups: Groups, seen: Tree) -> Tree:
    """Which channels of each group stay, [channels] bool; the constants among the others have been folded."""
    stay = {name: torch.ones(group.channels, dtype=torch.bool) for name, group in groups.items()}
    changed = True
    while changed:
        changed = False
        for name, group in groups.items():
            gone = dead(network, group, stay[name], seen)
            changed |= silence(network, group, gone)
            if torch.equal(gone, stay[name]):  # a layer keeps one channel, whether anything reads it or not
                gone[gone.nonzero()[0]] = False
            stay[name] &= ~gone
    return stay


def dead(network: nn.Module, group: Group, stay: Tensor, seen: Tree) -> Tensor:
    """Which of the channels that stay can go now, [channels] bool; the constants among them are folded."""
    made = used(network, group.makers, 0)
    read = used(network, group.readers, 1)
    values, still = constants(seen, group.readers)
    return (stay & ~read) | fold(network, group, stay & read & ~made & still, values)


def used(network: nn.Module, part: Places, side: int) -> Tensor:
    """Which channels have a weight that is not zero among a layer's outputs (0) or inputs (1)."""
    found = []
    for name, places in part.items():
        weight = by_side(network.get_submodule(name), side)
        found.append((weight != 0).any(1)[places].any(1))
    return torch.stack(found).any(0)


def by_side(layer: nn.Module, side: int) -> Tensor:
    """A layer's weight with its outputs (0) or inputs (1) first, [entries, the rest]; a view."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.detach().movedim(side ^ int(getattr(layer, "transposed", False)), 0).flatten(1)


def fold(network: nn.Module, group: Group, still: Tensor, values: Tree) -> Tensor:
    """Fold the constant channels `still` into the readers' biases, in place; returns which need not stay."""
    padded = [name for name in group.readers if zero_padded(network.get_submodule(name))]
    at_borders = torch.zeros_like(still)
    for name in padded:
        at_borders |= still & (values[name] != 0).any(1)
    heir = chosen(at_borders, [values[name] for name in padded])
    gone = still.clone()
    if heir is not None:
        gone[heir] = False
    elif at_borders.any():
        gone &= ~at_borders
    for name, entries in group.readers.items():
        layer = network.get_submodule(name)
        if name in padded:
            if heir is not None:
                merge(layer, entries, gone & at_borders, heir, values[name])
        else:
            absorb(layer, entries, gone, values[name])
    return gone


def zero_padded(layer: nn.Module) -> bool:
    """Whether a layer sees zeros beside its inputs, or spreads them so that not all outputs see all weights."""
    if not isinstance(layer, _ConvNd):
        return False
    padding = layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)
    return layer.transposed or (padding and layer.padding_mode == "zeros")


def chosen(at_borders: Tensor, values: list[Tensor]) -> int | None:
    """The channel that all others which padding interrupts can be merged into: the largest, nowhere zero."""
    if not at_borders.any():
        return None
    size = torch.stack([value.abs().amin(1) for value in values]).amin(0)
    best = int(torch.where(at_borders, size, -1).argmax())
    return best if size[best] > 0 else None


def merge(layer: nn.Module, entries: Tensor, gone: Tensor, heir: int, values: Tensor) -> None:
    """Let the weights that read `heir` do the work of those that read the `gone` channels."""
    weight = by_side(layer, 1)  # [inputs, the rest]
    for channel in gone.nonzero().flatten().tolist():
        for mine, theirs, ratio in zip(
            entries[heir], entries[channel], values[channel] / values[heir], strict=True
        ):
            weight[mine] += weight[theirs] * ratio
    write(layer, weight)


def write(layer: nn.Module, by_input: Tensor) -> None:
    """Put weights [inputs, the rest] back."""
    dim = 1 ^ int(getattr(layer, "transposed", False))
    weight: Tensor = layer.weight  # type: ignore[assignment]
    weight.copy_(by_input.view(weight.movedim(dim, 0).shape).movedim(0, dim))


def absorb(layer: nn.Module, entries: Tensor, gone: Tensor, values: Tensor) -> None:
    """Add what the `gone` channels contribute to a layer's bias, which it is given if it has none."""
    assert isinstance(layer, _ConvNd | nn.Linear)
    weight = (
        layer.weight.flatten(2).sum(2) if isinstance(layer, _ConvNd) else layer.weight
    )  # [outputs, inputs]
    constant = weight[:, entries[gone].flatten()] @ values[gone].flatten()
    if constant.any():
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(constant))
        layer.bias += constant


def silence(network: nn.Module, group: Group, gone: Tensor) -> bool:
    """Zero the weights that make or read the channels; returns whether any was not, so that others may be dead."""
    changed = False
    for side, part in enumerate((group.makers, group.readers)):
        for name, places in part.items():
            layer = network.get_submodule(name)
            entries = places[gone].flatten()
            changed |= bool(by_side(layer, side)[entries].any())
            dim = side ^ int(getattr(layer, "transposed", False))
            weight: Tensor = layer.weight  # type: ignore[assignment]
            weight.index_fill_(dim, entries, 0)
    return changed


# -- the inputs, and the proof


def picked(network: nn.Module) -> tuple[nn.Module, Tensor]:
    """The network that picks out the inputs which its first dense layer uses, and which those are.

    Only where that layer reads the flattened inputs themselves; an image's channels are not counted out.
    """
    first = next(iter(layers(network).values()))
    used = torch.ones(first.weight.shape[1], dtype=torch.bool)
    parts = list(network.children()) if isinstance(network, nn.Sequential) else []
    if len(parts) < 2 or not isinstance(parts[0], nn.Flatten) or parts[1] is not first:
        return network, used
    used = (first.weight != 0).any(0)
    used[0] |= not used.any()
    first.weight, first.in_features = nn.Parameter(first.weight.detach()[:, used]), int(used.sum())
    return network if used.all() else nn.Sequential(Pick(used), *parts[1:]), used


def distance(whole: nn.Module, small: nn.Module, shape: Iterable[int]) -> float:
    """How far two networks' outputs for random inputs are apart, of the outputs' size."""
    mine, theirs = run(whole, shape, examples=4), run(small, shape, examples=4)
    if mine.shape != theirs.shape or not mine.isfinite().all():
        return float("inf") if mine.isfinite().all() else 0.0
    return float((mine - theirs).abs().max() / mine.abs().max().clamp(min=1))
