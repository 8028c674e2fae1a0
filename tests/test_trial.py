"""Networks are tried before they are trained: what would fail after hours is one line, exit 2, before any data."""

import odd_networks
import pytest
import torch
from odd_networks import ODD
from torch import nn

from ltx.errors import UserError
from ltx.models import MODELS
from ltx.models.trial import tried

SHAPE = (1, 8, 8)

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)
    def forward(self, x):
        return self.head(self.norm(self.body(x.flatten(1))).relu())

def plain(shape, classes): return Net()

class Pair(Net):
    def forward(self, x): return (super().forward(x), x) if self.training else super().forward(x)
def pair(shape, classes): return Pair()

class Column(Net):
    def forward(self, x): return super().forward(x)[:, :1] if self.training else super().forward(x)
def column(shape, classes): return Column()

class Whole(Net):
    def forward(self, x): return super().forward(x).argmax(1, keepdim=True).expand(-1, 10)
def whole(shape, classes): return Whole()

class Raising(Net):
    def forward(self, x): return super().forward(x) if not self.training else 1 / 0
def raising(shape, classes): return Raising()

def frozen(shape, classes): return Net().requires_grad_(False)

def by_data(shape, classes):
    net = Net()
    net.norm.weight.data = net.norm.bias.data
    return net

class Detached(Net):
    def forward(self, x): return super().forward(x).detach()
def detached(shape, classes): return Detached()
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pair", "model: in training the network must turn [2, 1, 8, 8] into [2, 10], not tuple"),
        ("column", "model: in training the network must turn [2, 1, 8, 8] into [2, 10], not [2, 1]"),
        (
            "whole",
            "model: in training the network must turn [2, 1, 8, 8] into [2, 10], not [2, 10] of whole numbers",
        ),
        ("raising", "model: the network cannot be trained: ZeroDivisionError: division by zero"),
        ("frozen", "model: nothing in the network is trained: all that its outputs depend on is frozen"),
        ("detached", "model: nothing in the network is trained: all that its outputs depend on is frozen"),
        ("by_data", "model: norm.weight and norm.bias share their memory but are not one tensor"),
        (
            "plain recipe.batch_size=1",
            "recipe.batch_size=1: the network cannot be trained: ValueError: Expected more",
        ),
    ],
)
def test_a_network_that_cannot_be_trained_is_one_line(name, said, tmp_path, monkeypatch, ltx):
    (tmp_path / "tried_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    name, *more = name.split()
    told = ltx("run", "model=custom", f"model.path=tried_nets:{name}", *more, "out=made")
    assert told.code == 2
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "made").exists()


def test_a_caller_without_gradients_does_not_matter():
    with torch.no_grad():
        assert tried(MODELS["lenet"](hidden=[4]).build(SHAPE, 3), SHAPE, 3, 60) == "3.weight"


def test_a_batch_of_one_is_fine_without_batchnorm():
    assert tried(MODELS["lenet"](hidden=[4]).build(SHAPE, 3), SHAPE, 3, 1) == "3.weight"


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_may_be_trained(name):
    output = tried(getattr(odd_networks, name)(SHAPE, 10), SHAPE, 10, 60)
    assert output == {"head_first": "head.weight", "tied": "out.weight", "counting": "layer.weight"}.get(
        name, output
    )


def test_the_output_layer_is_the_dense_layer_that_is_executed_last():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(4, 3), nn.Linear(64, 4)

        def forward(self, x):
            return self.head(self.body(x.flatten(1)))

    class Convolved(HeadFirst):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv1d(1, 1, 1)

        def forward(self, x):
            return self.last(super().forward(x)[:, None])[:, 0]

    assert tried(HeadFirst(), SHAPE, 3, 60) == "head.weight"
    assert tried(Convolved(), SHAPE, 3, 60) is None


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"torchvision", "custom"}))
def test_the_output_layer_of_ours_is_the_last(name):
    """As it was when it was found by the order of definition: rates of every shipped experiment stay."""
    shape = (3, 32, 32)
    network = MODELS[name](width=0.1) if hasattr(MODELS[name], "width") else MODELS[name]()
    network = network.build(shape, 10)
    last = [name for name, p in network.named_parameters() if p.dim() == 2][-1]
    assert tried(network, shape, 10, 60) == last


def test_a_network_that_fails_does_not_leave_its_hooks(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(UserError):
        tried(network, SHAPE, 3, 60)
    assert not network[1]._forward_hooks
    assert torch.is_grad_enabled()
