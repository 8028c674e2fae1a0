"""The compiled kernels against torch's dense convolution, as functions of arrays."""

import pytest
import torch
import torch.nn.functional as F

from ltx.engine.kernels.lanes import Lanes, Port
from ltx.engine.kernels.library import ADD, GATE, RELU, SET, builds
from ltx.engine.kernels.survivors import Memory, Survivors

pytestmark = pytest.mark.skipif(not builds(), reason="installed without a C compiler")
PRECISION = {torch.float32: 1e-5, torch.float64: 1e-13}


class Layer:
    """One sparse layer in R replicates on random numbers, and the same by torch."""

    def __init__(self, build, dtype, *, batch, channels, outputs, side=1, kernel=1, stride=1, padding=0,
                 border=0, density=0.3, replicates=1, together=False, ends=(SET, SET), mask=None):  # fmt: skip
        draw = torch.Generator().manual_seed(0)
        new = lambda *shape: torch.randn(*shape, dtype=dtype, generator=draw)
        self.library, self.wide, self.conv = builds()[build], dtype == torch.float64, (stride, padding)
        out = (side + 2 * padding - kernel) // stride + 1
        self.x = new(replicates, batch, channels, side, side)
        self.dy = new(replicates, batch, outputs, out, out)
        shape = replicates, outputs, channels, kernel, kernel
        self.mask = torch.rand(shape, generator=draw) < density if mask is None else mask.expand(shape)
        self.weight, self.bias = new(shape) * self.mask, new(replicates, outputs)
        most = int(self.mask.flatten(1).sum(1).max())
        values = torch.zeros(replicates, most, dtype=dtype)
        for row, weight, alive in zip(values, self.weight, self.mask, strict=True):
            row[: int(alive.sum())] = weight[alive]
        self.lanes = tuple(
            Lanes(batch, c, s, s, border, together) for c, s in ((channels, side), (outputs, out))
        )
        inputs, results = self.lanes
        lanes = [place.zeros(replicates, dtype) for place in (inputs, results, inputs, results)]
        self.memory = Memory(
            values, self.bias, lanes[0], lanes[1],
            torch.zeros_like(values), torch.zeros_like(self.bias), lanes[2], lanes[3], lanes[0],
        )  # fmt: skip
        self.layer = Survivors(self.mask, self.lanes, self.memory, self.library,
                               stride=stride, padding=padding, ends=ends)  # fmt: skip
        self.load(inputs, self.x, self.memory.x)
        self.load(results, self.dy, self.memory.d_y)

    def load(self, lanes, examples, tensor):
        Port(lanes, tensor, self.library).load(examples)

    def read(self, lanes, tensor):
        found = Port(lanes, tensor, self.library).store(lanes.batch)
        return found.view(len(tensor), lanes.batch, lanes.channels, lanes.height, lanes.width)

    def results(self, *replicates):
        """y, d_x, d_values and d_bias."""
        self.layer.forward(*replicates)
        self.layer.backward(*replicates)
        memory, (x, y) = self.memory, self.lanes
        return self.read(y, memory.y), self.read(x, memory.d_x), memory.d_values, memory.d_bias

    def expected(self):
        found = []
        for x, weight, bias, dy, alive in zip(
            self.x, self.weight, self.bias, self.dy, self.mask, strict=True
        ):
            leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
            y = F.conv2d(*leaves, *self.conv)
            dx, dw, db = torch.autograd.grad(y, leaves, dy)
            values = torch.zeros(self.memory.values.shape[1], dtype=x.dtype)
            values[: int(alive.sum())] = dw[alive]
            found.append((y.detach(), dx, values, db))
        return [torch.stack(tensors) for tensors in zip(*found, strict=True)]


def same(found, expected, dtype):
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=PRECISION[dtype] * max(1, float(other.norm())))


CASES = {
    "3x3": {"batch": 60, "channels": 7, "outputs": 5, "side": 9, "kernel": 3, "padding": 1, "border": 1},
    "3x3, stride 2": {
        "batch": 17,
        "channels": 3,
        "outputs": 4,
        "side": 8,
        "kernel": 3,
        "stride": 2,
        "padding": 1,
        "border": 1,
    },
    "3x3, stride 2, odd": {
        "batch": 16,
        "channels": 3,
        "outputs": 3,
        "side": 7,
        "kernel": 3,
        "stride": 2,
        "padding": 1,
        "border": 1,
    },
    "1x1, stride 2": {"batch": 5, "channels": 4, "outputs": 6, "side": 8, "stride": 2, "border": 1},
    "5x5, no padding": {"batch": 33, "channels": 4, "outputs": 6, "side": 9, "kernel": 5, "border": 4},
    "small images, many blocks": {
        "batch": 130,
        "channels": 8,
        "outputs": 8,
        "side": 2,
        "kernel": 3,
        "padding": 1,
        "border": 1,
    },
    "dense layer": {"batch": 60, "channels": 50, "outputs": 30, "together": True, "density": 0.1},
    "dense layer behind a convolution": {"batch": 60, "channels": 50, "outputs": 30},
    "one example": {"batch": 1, "channels": 20, "outputs": 10, "together": True},
    "many replicates": {"batch": 20, "channels": 20, "outputs": 10, "together": True, "replicates": 3},
    "nothing pruned": {"batch": 40, "channels": 9, "outputs": 7, "together": True, "density": 1.0},
}


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("build", builds())
def test_products_are_those_of_the_masked_dense_layer(build, case, dtype):
    layer = Layer(build, dtype, **CASES[case])
    same(layer.results(), layer.expected(), dtype)


@pytest.mark.parametrize("alive", [(), (0,), (7, 8, 9), (59,)])
@pytest.mark.parametrize("build", builds())
def test_empty_rows_and_columns(build, alive):
    mask = torch.zeros(60, dtype=torch.bool)
    mask[list(alive)] = True
    layer = Layer(build, torch.float64, batch=20, channels=10, outputs=6, together=True,
                  mask=mask.view(1, 6, 10, 1, 1))  # fmt: skip
    same(layer.results(), layer.expected(), torch.float64)


@pytest.mark.parametrize("build", builds())
def test_how_products_end(build):
    case = {"batch": 20, "channels": 6, "outputs": 4, "side": 6, "kernel": 3, "padding": 1, "border": 1}
    plain = Layer(build, torch.float64, **case).results()
    relu = Layer(build, torch.float64, **case, ends=(RELU, GATE))
    found = relu.results()
    assert torch.equal(found[0], plain[0].clamp(min=0))
    assert torch.equal(found[1], torch.where(relu.x > 0, plain[1], 0))
    added = Layer(build, torch.float64, **case, ends=(SET, ADD))
    added.memory.d_x.fill_(1.0)
    assert torch.allclose(added.results()[1], plain[1] + 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("build", builds())
def test_nan_goes_through_a_relu(build):
    layer = Layer(build, torch.float32, batch=16, channels=4, outputs=3, density=1.0, ends=(RELU, SET))
    layer.memory.values[0, 0] = torch.nan
    assert layer.results()[0][0, :, 0].isnan().all()


@pytest.mark.parametrize("case", ["3x3, stride 2", "dense layer", "dense layer behind a convolution"])
@pytest.mark.parametrize("build", builds())
def test_bits_of_an_output_depend_on_its_example_alone(build, case):
    """Whatever shares the batch: other replicates, other examples, more of them."""
    case = CASES[case] | {"batch": 100}
    long = Layer(build, torch.float32, **case, replicates=3)
    short = Layer(build, torch.float32, **case | {"batch": 37}, mask=long.mask[2:])
    kept = short.memory.values.shape[1]
    short.memory.values.copy_(long.memory.values[2:, :kept])
    short.memory.bias.copy_(long.memory.bias[2:])
    short.load(short.lanes[0], long.x[2:, :37], short.memory.x)
    short.load(short.lanes[1], long.dy[2:, :37], short.memory.d_y)
    for one, other in zip(short.results()[:2], long.results()[:2], strict=True):
        assert torch.equal(one[0], other[2, :37])


@pytest.mark.parametrize("build", builds())
def test_replicates_may_take_turns_in_shared_memory(build):
    case = {
        "batch": 20,
        "channels": 6,
        "outputs": 4,
        "side": 6,
        "kernel": 3,
        "padding": 1,
        "border": 1,
        "replicates": 2,
    }
    together, apart = (Layer(build, torch.float32, **case) for _ in range(2))
    expected = together.results()
    for r in (1, 0):
        found = apart.results(r, 1)
        assert all(torch.equal(one[r], other[r]) for one, other in zip(found, expected, strict=True))


def test_a_border_must_reach_as_far_as_the_kernel():
    with pytest.raises(AssertionError, match="border"):
        Layer("plain", torch.float32, batch=4, channels=2, outputs=2, side=6, kernel=3, padding=1)
