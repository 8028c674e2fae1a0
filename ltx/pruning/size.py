"""How large a network is: parameters, multiply-accumulates, and bytes in four ways of storing it.

Bytes are of what is computed with, float32: parameters and BatchNorm's statistics. What a mask leaves is stored as
RigL's appendix B counts it (Evci et al. 2020, Table 2: 31,914 bytes for 408-100-69): of a weight in which
something is pruned, a bit for every entry and the entries that are not; all other tensors whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltx.pruning.compact import layers
from ltx.streams import drawing

FLOAT = 4
"""Bytes of a number; of a column's index in CSR as well."""


@dataclass(frozen=True)
class Size:
    """What a network takes, whatever it was trained in."""

    parameters: int
    macs: int  # multiply-accumulates of one inference
    dense_bytes: int
    bitmask_bytes: int
    csr_bytes: int


def size(network: nn.Module, shape: Iterable[int]) -> Size:
    """The size of a network whose pruned weights are zero; `shape` is that of one input."""
    weights = [layer.weight.detach() for layer in layers(network).values()]
    pruned = {id(layer.weight) for layer in layers(network).values() if (layer.weight == 0).any()}
    whole = FLOAT * sum(tensor.numel() for tensor in numbers(network) if id(tensor) not in pruned)
    masked = [weight for weight in weights if (weight == 0).any()]
    bits = sum(weight.numel() for weight in masked) // 8  # rounded down, as there
    values = FLOAT * sum(int(weight.count_nonzero()) for weight in masked)
    # CSR: a column for every value, and where each row begins.
    rows = FLOAT * sum(len(weight) + 1 for weight in masked)
    return Size(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs(network, shape),
        dense_bytes=FLOAT * sum(tensor.numel() for tensor in numbers(network)),
        bitmask_bytes=whole + bits + values,
        csr_bytes=whole + 2 * values + rows,
    )


def numbers(network: nn.Module) -> Iterator[Tensor]:
    """Every tensor of numbers, once; counters and indices are none."""
    yield from network.parameters()
    yield from (tensor for tensor in network.buffers() if tensor.is_floating_point())


def macs(network: nn.Module, shape: Iterable[int]) -> int:
    """Multiply-accumulates of one inference, by PyTorch's own counter."""
    network = copy.deepcopy(network).cpu().float().eval()
    with drawing(0, "size"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2
