"""From which distribution does a network's initialisation come?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ltx.knobs import knob, one_of
from ltx.models.base import ConvNet

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    # N(0, 2 / (fan_in + fan_out)), Frankle & Carbin 2019, fig. 2. Deviation: TensorFlow's Glorot normal,
    # in the authors' code, redraws values beyond two standard deviations; ours keeps the tails.
    "glorot_normal": nn.init.xavier_normal_,
    "kaiming_normal": nn.init.kaiming_normal_,  # N(0, 2 / fan_in), He et al. 2015; open_lth's default
}
BN_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "ones": nn.init.ones_,
    "uniform": nn.init.uniform_,  # U(0, 1): open_lth's default
    "half": lambda scale: nn.init.constant_(scale, 0.5),  # Network Slimming and Early-Bird
}


Network = TypeVar("Network", bound=nn.Module)


def initialise(network: Network, init: str = "glorot_normal", bn_scale: str = "ones") -> Network:
    """Redraw `network` in place: weights by `init`, BatchNorm scales by `bn_scale`, biases and shifts 0."""
    for layer in network.modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            INITS[init](layer.weight)
        elif isinstance(layer, _BatchNorm):
            BN_SCALES[bn_scale](layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return network


@dataclass(frozen=True)
class Normalised(ConvNet):
    """A convolutional network with BatchNorm, whose scales and weights may start in several ways."""

    init: str = knob(
        "glorot_normal",
        one_of(INITS),
        "weights: glorot_normal (the LTH paper) or kaiming_normal (open_lth)",
    )
    bn_scale: str = knob(
        "ones",
        one_of(BN_SCALES),
        "BatchNorm scales: ones, uniform (open_lth) or half (Early-Bird, Slimming)",
    )
