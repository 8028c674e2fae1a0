"""Compaction: the small network computes what the masked one does, and nothing dead is left in it."""

import copy

import pandas as pd
import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ltx.models import MODELS, layer_kinds
from ltx.models.foreign import TorchVision
from ltx.pruning.compact import Compactor
from ltx.pruning.size import macs, size
from ltx.study.reopen import Kept


class Odd(nn.Module):
    """Biases, a residual sum, a depthwise convolution, and channels flattened into four columns each."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8))
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.inner = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.last = nn.BatchNorm2d(8)
        self.output = nn.Linear(8 * 4, classes)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.last(self.inner(torch.relu(self.depth(x)))) + x)
        return self.output(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


BUILDS = {
    "lenet": (MODELS["lenet"](hidden=[24, 12]).build, (1, 8, 8)),
    "lenet5": (MODELS["lenet5"](width=0.3).build, (1, 16, 16)),
    "conv2": (MODELS["conv2"](width=0.1).build, (3, 8, 8)),
    "vgg8": (MODELS["vgg8"](width=0.2).build, (3, 8, 8)),
    "resnet20": (MODELS["resnet20"](width=0.3).build, (3, 8, 8)),
    "custom": (Odd, (3, 8, 8)),
}
COMPACTORS = {}


def drawn(build, shape):
    """A network in float64 none of whose statistics, shifts and biases is trivial, and its compactor."""
    network = build(shape, 10).double().eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() < 2:
            tensor.copy_(torch.rand_like(tensor) + 0.2 if "var" in name else torch.randn_like(tensor))
    return network


def sparse(network, density):
    """Each weight kept with a probability, the others zero in place; layers between differ."""
    for name in layer_kinds(network, None):
        weight = network.get_parameter(name).detach()
        weight.mul_(torch.rand_like(weight) < density * (0.5 + torch.rand(())))
    return network


def compacted(network, shape, key=None):
    if key not in COMPACTORS or key is None:
        COMPACTORS[key] = Compactor(network, shape)
    return COMPACTORS[key].compact(network.state_dict())


@pytest.mark.parametrize("name", BUILDS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), density=st.floats(0.001, 0.5))
def test_a_compact_network_computes_what_the_masked_one_does(name, seed, density):
    build, shape = BUILDS[name]
    torch.manual_seed(seed)
    network = sparse(drawn(build, shape), density)
    small = compacted(network, shape, name)
    images = 3 * torch.randn(16, *shape, dtype=torch.float64)
    with torch.no_grad():
        apart = (network(images) - small.network(images)).abs().max()
    assert not small.why
    assert apart <= 1e-9
    assert min(small.widths.values()) >= 1
    # To the fixed point: what is compact already is left as it is.
    again = compacted(small.network, shape)
    assert again.widths == small.widths


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v2", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_torchvisions_networks_are_made_compact(arch):
    shape = (3, 32, 32)
    torch.manual_seed(0)
    network = sparse(drawn(TorchVision(arch).build, shape), 0.003)
    small = compacted(network, shape)
    images = torch.randn(4, *shape, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small.network(images), network(images), rtol=1e-9, atol=1e-9)
    assert size(small.network, shape).parameters < size(network, shape).parameters


def test_a_network_that_cannot_be_followed_stays_as_it_is_and_says_why():
    shape = (3, 32, 32)
    small = compacted(sparse(TorchVision("shufflenet_v2_x0_5").build(shape, 10), 0.01), shape)
    assert "torch-pruning cannot follow" in small.why
    assert small.widths["conv1.0"] == 24


class Gated(nn.Module):
    """A constant channel that something with another number of channels multiplies is no constant."""

    def __init__(self):
        super().__init__()
        self.body, self.gate = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1)
        self.output = nn.Linear(4, 10)

    def forward(self, x):
        return self.output((self.body(x) * self.gate(x)).mean((2, 3)))


def test_what_only_looks_constant_stays():
    network = Gated().double().eval()
    with torch.no_grad():
        network.body.weight[1] = 0
    small = compacted(network, (3, 4, 4))
    images = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small.network(images), network(images))
    assert small.widths["body"] == 4


def test_a_constant_unit_becomes_a_bias_by_hand():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    network.load_state_dict(
        {
            "1.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
            "1.bias": torch.tensor([0.5, 3.0]),
            "3.weight": torch.tensor([[2.0, 10.0]]),
            "3.bias": torch.tensor([1.0]),
        }
    )
    small = compacted(network, (1, 1, 2))
    assert small.architecture == "1-1"
    assert {name: tensor.tolist() for name, tensor in small.network.state_dict().items()} == {
        "0.index": [0],
        "1.weight": [[1.0]],
        "1.bias": [0.5],
        "3.weight": [[2.0]],
        "3.bias": [31.0],
    }


def padded(padding):
    """Two convolutions; three channels between them are constants, 1, 2 and 0 after the ReLU."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=padding), nn.Flatten(), nn.LazyLinear(10)
    ).double()
    network(torch.zeros(1, 1, 5, 5, dtype=torch.float64))
    with torch.no_grad():
        network[0].weight[1:] = 0
        network[0].bias.copy_(torch.tensor([0.1, 1.0, 2.0, -1.0]))
    return network.eval()


@pytest.mark.parametrize(("padding", "left"), [(0, 1), (1, 2)])
def test_constants_that_zero_padding_interrupts_share_one_channel(padding, left):
    network = padded(padding)
    small = compacted(network, (1, 5, 5))
    assert small.widths["0"] == left
    images = torch.randn(4, 1, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small.network(images), network(images), rtol=1e-12, atol=1e-12)


def test_a_layer_that_has_died_keeps_one_unit_and_the_outputs_their_value():
    network = MODELS["lenet"](hidden=[5, 4]).build((1, 2, 2), 3).double()
    nn.init.uniform_(network[1].bias, 1, 2)
    nn.init.zeros_(network[1].weight)
    small = compacted(network, (1, 2, 2))
    assert list(small.widths.values()) == [1, 1, 3]
    images = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small.network(images), network(images))


# -- sizes


def rigl(inputs, first, second, living):
    """LeNet-300-100 of which so many units and weights of the hidden layers live, its output layer not pruned."""
    network = MODELS["lenet"]().build((1, 28, 28), 10).double()
    nn.init.uniform_(network[5].weight, 1, 2)
    mask = [torch.zeros(300, 784), torch.zeros(100, 300)]
    for layer, (outputs, width) in zip(mask, [(first, inputs), (second, first)], strict=True):
        for i in range(max(outputs, width)):  # every unit has a way in and a way out
            layer[i % outputs, i % width] = 1
    spare = living - sum(int(layer.sum()) for layer in mask)
    block = mask[0][:first, :inputs]
    free = (block == 0).nonzero()[:spare]
    mask[0][free[:, 0], free[:, 1]] = 1
    with torch.no_grad():
        for layer, alive in zip((network[1], network[3]), mask, strict=True):
            layer.weight.copy_(alive * (1 + torch.rand_like(layer.weight)))
        network[5].weight[:, second:] = 0
    return network


@pytest.mark.parametrize(
    ("widths", "living", "told"), [((408, 100, 69), 5619, 31914), ((375, 62, 51), 2570, 16113)]
)
def test_rigls_networks_have_the_bytes_of_its_table(widths, living, told):
    """Evci et al. 2020, Table 2: sparsity 0.870 and 0.886, 12.6 and 6.2 thousand operations."""
    network = rigl(*widths, living)
    small = compacted(network, (1, 28, 28))
    found = size(small.network, (1, 28, 28))
    assert small.architecture == "-".join(map(str, widths))
    assert found.bitmask_bytes == told
    assert found.dense_bytes == 4 * found.parameters


def test_sizes_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 3)).double()
    nn.init.ones_(network[0].weight)
    with torch.no_grad():
        network[0].weight[0, 0, 0] = 0
    found = size(network, (1, 3, 3))
    assert found.parameters == 8 + 2 + 24 + 3
    assert found.macs == 4 * 8 + 24
    assert found.dense_bytes == 4 * 37
    assert found.bitmask_bytes == 4 * 29 + 1 + 4 * 6
    assert found.csr_bytes == 4 * 29 + 4 * 6 + 4 * 6 + 4 * 3


def test_multiply_accumulates_are_torchvisions():
    assert macs(TorchVision("resnet18").build((3, 224, 224), 1000).eval(), (3, 224, 224)) == 1_814_073_344


def test_the_network_that_is_made_compact_is_not_touched():
    network = sparse(drawn(*BUILDS["vgg8"]), 0.05)
    before = copy.deepcopy(network.state_dict())
    compacted(network, BUILDS["vgg8"][1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# -- in every run


def test_a_run_tells_how_small_its_tickets_can_be_made(ltx, tmp_path):
    run = ltx("run", *TINY, "method.rate=0.6", f"out={tmp_path}")
    assert run.code == 0, run.err
    (folder,) = tmp_path.glob("digits_lenet/*")
    table = pd.read_csv(folder / "size.csv", dtype={"architecture": str})
    dense = table[table.level == 0]
    assert dense.architecture.tolist() == ["64-16"] * 2
    assert dense.parameters.tolist() == [64 * 16 + 16 + 16 * 10 + 10] * 2
    assert dense.compact_bytes.tolist() == dense.csr_bytes.tolist() == [4 * 1210] * 2
    last = table[(table.level == 2) & (table.role == "ticket")]
    assert (last.parameters < last.dense_parameters).all()
    for row, seed in zip(last.itertuples(), (0, 1), strict=True):
        weights = Kept(folder, level=2, seed=seed).trained
        inputs = int((weights["1.weight"] != 0).any(0).sum())
        assert row.architecture == f"{inputs}-16"
        assert row.macs == inputs * 16 + 160
    sentence = f"Without what is dead in its last tickets 64-16 becomes {last.architecture.iloc[0]} (seed 0)"
    assert sentence in run.out
    assert sentence in ltx("show", folder).out
