"""Networks that users write: what is trained, saved and measured must be what PyTorch makes of them."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations


class Tied(nn.Module):
    """One tensor under two names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x.flatten(1))))))


class Squashed(nn.Linear):
    """A Linear that is another layer."""

    def forward(self, x):
        return torch.tanh(super().forward(x))


class HeadFirst(nn.Module):
    """The output layer is defined before the body."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(32, 10), nn.Linear(64, 32)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())


class Counting(nn.Module):
    """A buffer that is in no state_dict, and one that is assigned anew; both change while training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.seen += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x - self.mean) * (1 + 1 / (1 + self.seen))


class Drawing(nn.Module):
    """Noise from all three global generators, in training and, a little, in evaluation."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.bias += random.random() + np.random.rand()  # noqa: NPY002

    def forward(self, x):
        strength = 0.1 * (random.random() + np.random.rand() + float(torch.rand(())))  # noqa: NPY002
        return self.layer(x.flatten(1)) * (1 + strength * (1 if self.training else 1e-3))


class Recurrent(nn.Module):
    """An image read row by row."""

    def __init__(self):
        super().__init__()
        self.rows, self.out = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.out(self.rows(x[:, 0])[0][:, -1])


def dense(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


def tied(shape, classes):
    return Tied()


def shared(shape, classes):
    layer = nn.Linear(64, 64)
    return dense(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, classes))


def squashed(shape, classes):
    return dense(Squashed(64, 32), nn.ReLU(), nn.Linear(32, classes))


def replaced(shape, classes):
    """One layer's forward is replaced in the object itself."""
    network = dense(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))
    layer = network[1]
    layer.forward = lambda x: torch.tanh(x @ layer.weight) + layer.bias
    return network


def hooked(shape, classes):
    """A hook doubles what a layer puts out, another clips a weight's gradient."""
    network = dense(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    network[1].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    network[3].weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))
    return network


def normed(shape, classes):
    return dense(parametrizations.weight_norm(nn.Linear(64, 32)), nn.ReLU(), nn.Linear(32, classes))


def spectral(shape, classes):
    """Reparametrised, with buffers that move in training."""
    return dense(parametrizations.spectral_norm(nn.Linear(64, 32)), nn.ReLU(), nn.Linear(32, classes))


def frozen(shape, classes):
    network = dense(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    network[1].requires_grad_(requires_grad=False)
    return network


def frozen_norm(shape, classes):
    """Convolution and BatchNorm are frozen, the latter in evaluation mode; the head is trained."""
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)).requires_grad_(requires_grad=False)
    body[1].eval()
    return nn.Sequential(body, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, classes))


def rows(shape, classes):
    """Flattened from another axis on."""
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16, classes))


def without_bias(shape, classes):
    return dense(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, classes))


def head_first(shape, classes):
    return HeadFirst()


def counting(shape, classes):
    return Counting()


def drawing(shape, classes):
    return Drawing()


def recurrent(shape, classes):
    return Recurrent()


ODD = (
    "tied shared squashed replaced hooked normed spectral frozen frozen_norm rows without_bias head_first counting "
    "drawing recurrent"
).split()
