"""A network that comes trained: its tensors from a file, each checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ltx.errors import UserError, unknown
from ltx.files import read_bytes
from ltx.models.base import Model, tensors

LARGEST = 1 << 36  # bytes of a file
SHOWN = 6
"""Of tensors that do not fit, so many are named of each kind."""
COUNT = "num_batches_tracked"
"""A BatchNorm's buffer that older files lack and torch does not ask for either."""

Stored = dict[str, Tensor]


def read(path: str) -> Stored:
    """The tensors by name of a safetensors file or of a state dict, out of which nothing is run; raises UserError."""
    try:
        content = read_bytes(Path(path).expanduser().resolve(), LARGEST)
    except OSError as error:
        raise UserError(f"model.weights={path} cannot be read: {error.strerror or error}") from error
    try:
        return load(content)
    except SafetensorError:
        found = state_dict(content)
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise UserError(
            f"model.weights={path} is not possible: write the path of a safetensors file, or of a state dict that "
            "torch.save wrote and that holds tensors by name, nothing else"
        )
    return {str(name): tensor.detach() for name, tensor in found.items()}


def state_dict(content: bytes) -> object:
    """What torch.save wrote, if it is tensors and plain values alone; else None."""
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever a file that is something else makes of torch's reader
        return None


def brought(model: Model, network: nn.Module) -> Stored:
    """What `model.weights` holds of a network's tensors, by ltx's names, in the network's types; {} without a file.

    All that does not fit is told in one message; raises UserError.
    """
    if model.weights is None:
        return {}
    stored, fresh, own = read(model.weights), model.fresh, names(network)
    for pattern in fresh:
        if not matched(pattern, [*own, *stored]):
            raise unknown("model.fresh", pattern, own)
    asked = {name: also for name, also in own.items() if not any(fnmatch(name, p) for p in fresh)}
    wrong = "; ".join(misfits(network, asked, stored, fresh))
    if wrong:
        raise UserError(
            f"model.weights={model.weights} does not fit this network: {wrong} "
            "(model.fresh=[PATTERN] draws tensors anew)"
        )
    mine = tensors(network)
    pairs = ((name, also) for name, also in asked.items() if also & stored.keys())
    return {name: held(also, stored).to(mine[name].dtype) for name, also in pairs}


def names(network: nn.Module) -> dict[str, set[str]]:
    """By the first name of each tensor that a state dict would hold, all names that it goes by: a tied one has more."""
    kept, known = network.state_dict(keep_vars=True), tensors(network)
    return {
        name: {name} | {other for other, tensor in kept.items() if tensor is known[name]}
        for name in known
        if name in kept
    }


def matched(pattern: str, names: list[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names)


def held(also: set[str], stored: Stored) -> Tensor:
    """The tensor that is stored under one of its names."""
    return next(stored[name] for name in sorted(also) if name in stored)


def misfits(
    network: nn.Module, asked: Mapping[str, set[str]], stored: Stored, fresh: list[str]
) -> Iterator[str]:
    """What is missing, what is too much, and what has another shape or kind of number."""
    mine, every = tensors(network), set[str]().union(*names(network).values())
    missing = [
        name for name, also in asked.items() if not also & stored.keys() and not name.endswith(f".{COUNT}")
    ]
    beyond = [name for name in stored if name not in every and not any(fnmatch(name, p) for p in fresh)]
    pairs = [(name, mine[name], held(also, stored)) for name, also in asked.items() if also & stored.keys()]
    others = [said for name, own, its in pairs if (said := differs(name, own, its))]
    for words, found in (("it has no", missing), ("it has also", beyond), ("", others)):
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            yield f"{words} {', '.join(found[:SHOWN])}{more}".strip()


def differs(name: str, own: Tensor, its: Tensor) -> str:
    """How a stored tensor differs from what the network needs; nothing if it does not."""
    if own.shape != its.shape:
        return f"{name} is {list(own.shape)} here, {list(its.shape)} there"
    if own.is_floating_point() != its.is_floating_point() or own.is_complex() != its.is_complex():
        return f"{name} is {own.dtype} here, {its.dtype} there"
    return "" if its.isfinite().all() else f"{name} holds numbers that are not finite"
