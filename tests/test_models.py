"""Networks have the published sizes, start as promised, and refuse what they cannot do."""

import sys
from collections import Counter
from math import sqrt

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ltx.errors import UserError
from ltx.models import MODELS, Model, layer_kinds

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
OURS = sorted(MODELS.keys() - {"torchvision", "custom"})
LEAST = {
    "lenet": 1,
    "lenet5": 16,
    "conv2": 2,
    "conv4": 4,
    "conv6": 8,
    "vgg8": 4,
    "vgg": 16,
    "resnet": 1,
    "skip_mlp": 1,
}


def least(name: str) -> int:
    """The smallest side of an image that the model takes."""
    return LEAST.get(name) or LEAST[name.rstrip("0123456789")]


def narrow(name: str) -> Model:
    """The model at an eighth of its width, where it has one."""
    return MODELS[name](width=0.125) if "width" in vars(MODELS[name]()) else MODELS[name]()


def kinds_of(network: nn.Module) -> dict[str, str]:
    """The layers of a network whose last Linear is its output layer."""
    named = {module: name for name, module in network.named_modules()}
    dense = [f"{name}.weight".lstrip(".") for module, name in named.items() if type(module) is nn.Linear]
    return layer_kinds(network, dense[-1] if dense else None)


def weights(network: nn.Module) -> Counter[str]:
    """The number of weights of each kind."""
    parameters, count = dict(network.named_parameters()), Counter[str]()
    for name, kind in kinds_of(network).items():
        count[kind] += parameters[name].numel()
    return count


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("lenet", MNIST, {"dense": 265_200, "output": 1_000}),
        ("lenet5", MNIST, {"conv": 25_500, "dense": 400_000, "output": 5_000}),
        ("conv2", CIFAR, {"conv": 38_592, "dense": 4_259_840, "output": 2_560}),
        ("conv4", CIFAR, {"conv": 259_776, "dense": 2_162_688, "output": 2_560}),
        ("conv6", CIFAR, {"conv": 1_144_512, "dense": 1_114_112, "output": 2_560}),
        ("resnet20", CIFAR, {"conv": 267_696, "shortcut": 2_560, "output": 640}),
        ("vgg11", CIFAR, {"conv": 9_217_728, "output": 5_120}),
        ("vgg13", CIFAR, {"conv": 9_402_048, "output": 5_120}),
        ("vgg16", CIFAR, {"conv": 14_710_464, "output": 5_120}),
        ("vgg19", CIFAR, {"conv": 20_018_880, "output": 5_120}),
    ],
)
def test_networks_have_the_published_numbers_of_weights(name, shape, counts):
    with torch.device("meta"):
        network = MODELS[name]().build(shape, 10)
    assert weights(network) == counts
    assert f"{sum(counts.values()):,} weights" in MODELS[name].summary


@pytest.mark.parametrize("depth", [20, 32, 56, 110])
def test_a_resnets_depth_counts_its_layers_without_shortcuts(depth):
    with torch.device("meta"):
        network = MODELS[f"resnet{depth}"]().build(CIFAR, 10)
    kinds = Counter(kinds_of(network).values())
    assert kinds == {"conv": depth - 1, "shortcut": 2, "output": 1}
    assert f"{weights(network).total():,} weights" in MODELS[f"resnet{depth}"].summary


@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR, (2, 17, 33)])
@pytest.mark.parametrize("name", OURS)
def test_any_network_runs_on_any_image_that_is_large_enough(name, shape):
    model = narrow(name)
    if min(shape[1:]) < least(name):
        channels, height, width = shape
        with pytest.raises(
            UserError, match=rf"model {name} .* at least .*, got {channels}x{height}x{width}$"
        ):
            model.build(shape, 7)
    else:
        network = model.build(shape, 7)
        assert network.training
        assert network(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in OURS if least(name) > 1])
def test_the_least_size_is_the_least_that_works(name):
    side = least(name)
    network = narrow(name).build((1, side, side), 3).eval()
    assert network(torch.rand(2, 1, side, side)).shape == (2, 3)
    with pytest.raises(UserError, match=f"at least {side}x{side}"):
        MODELS[name]().build((1, side, side - 1), 3)


def test_lenet_is_the_plain_stack_that_the_engine_batches():
    network = MODELS["lenet"](hidden=[5]).build(DIGITS, 3)
    assert type(network) is nn.Sequential
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in MODELS["lenet"](hidden=[]).build(DIGITS, 3)] == [nn.Flatten, nn.Linear]


def test_the_width_multiplier_scales_channels_and_hidden_units_but_not_the_output():
    network = MODELS["conv2"](width=0.25).build(CIFAR, 10)
    shapes = [tuple(network.get_parameter(name).shape) for name in kinds_of(network)]
    assert shapes == [(16, 3, 3, 3), (16, 16, 3, 3), (64, 4096), (64, 64), (10, 64)]
    assert MODELS["vgg11"](width=1e-9).build(CIFAR, 10)[0].out_channels == 1


def test_dropout_acts_in_training_only_and_is_absent_at_zero():
    network, images = MODELS["conv2"](dropout=0.5, width=0.25).build(CIFAR, 10), torch.rand(2, *CIFAR)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    assert not any(isinstance(layer, nn.Dropout) for layer in MODELS["conv2"]().build(CIFAR, 10))


@pytest.mark.parametrize("name", OURS)
def test_a_seed_decides_the_network(name):
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = narrow(name).build(CIFAR, 10)
        return nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_glorot_weights_have_the_spread_of_both_fans_and_biases_are_zero():
    torch.manual_seed(0)
    for name, shape in [("lenet", MNIST), ("conv4", CIFAR), ("vgg11", CIFAR)]:
        network = MODELS[name]().build(shape, 10)
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.numel() > 10_000:
                outputs, inputs, *kernel = parameter.shape
                expected = sqrt(2 / ((inputs + outputs) * torch.tensor(kernel).prod()))
                assert parameter.std().item() == pytest.approx(expected, rel=0.02)
                assert abs(parameter.mean().item()) < 0.02 * expected
        assert all(not bias.any() for at, bias in network.named_parameters() if at.endswith("bias"))


def test_kaiming_weights_have_the_spread_of_the_fan_in():
    torch.manual_seed(0)
    network = MODELS["resnet20"](init="kaiming_normal").build(CIFAR, 10)
    weight = network.get_parameter("stage3.1.conv1.weight")
    assert weight.std().item() == pytest.approx(sqrt(2 / (64 * 9)), rel=0.02)


def test_batchnorm_scales_start_as_asked():
    def scales(bn_scale: str) -> torch.Tensor:
        torch.manual_seed(0)
        network = MODELS["resnet20"](bn_scale=bn_scale).build(CIFAR, 10)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert not any(norm.bias.any() for norm in norms)
        return torch.cat([norm.weight.detach() for norm in norms])

    assert scales("ones").unique().tolist() == [1]
    assert scales("half").unique().tolist() == [0.5]
    uniform = scales("uniform")
    assert 0 <= uniform.min() < 0.02
    assert 0.98 < uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("lenet", {"hidden": [0]}, r"model\.hidden=0 is not possible: it must be 1 or more"),
        ("lenet", {"hidden": [300, -1]}, r"model\.hidden=-1 is not possible: it must be 1 or more"),
        ("lenet5", {"width": 0.0}, r"model\.width=0\.0 is not possible: it must be positive"),
        ("vgg11", {"width": float("nan")}, r"model\.width=nan is not possible: it must be positive"),
        ("conv2", {"width": -1.0}, r"model\.width=-1\.0 is not possible: it must be positive"),
        ("conv2", {"dropout": 1.0}, r"model\.dropout=1\.0 is not possible: it must lie in \[0, 1\)"),
        (
            "resnet20",
            {"init": "glorot"},
            r"model\.init=glorot does not exist; did you mean glorot_normal\?",
        ),
        ("vgg11", {"init": "?"}, r"model\.init=.* choose from glorot_normal, kaiming_normal"),
        ("vgg11", {"bn_scale": "1"}, r"model\.bn_scale=1 .* choose from ones, uniform, half"),
        (
            "torchvision",
            {"arch": "resnet19"},
            r"model\.arch=resnet19 does not exist; did you mean resnet18",
        ),
        ("custom", {}, r"model\.path= is not possible: write package\.module:function"),
        (
            "custom",
            {"path": "net.py"},
            r"model\.path=net\.py is not possible: write package\.module:function",
        ),
    ],
)
def test_a_wrong_knob_is_named_with_what_is_allowed(name, knobs, message):
    with pytest.raises(UserError, match=message) as caught:
        MODELS[name](**knobs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_a_config_that_hydra_can_type_and_instantiate(name):
    config = OmegaConf.structured(MODELS[name])
    path = {"path": "a:b"} if name == "custom" else {}
    model = OmegaConf.to_object(OmegaConf.merge(config, path))
    assert type(model) is MODELS[name]
    assert type(model).__name__.lower() == name.replace("_", "")
    assert MODELS[name].summary


def test_attention_and_transposed_and_tied_weights_are_known_by_module_type():
    network = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16), nn.ConvTranspose1d(8, 8, 1), nn.Linear(8, 2)
    )
    assert kinds_of(network) == {
        "0.self_attn.in_proj_weight": "dense",
        "0.self_attn.out_proj.weight": "dense",
        "0.linear1.weight": "dense",
        "0.linear2.weight": "dense",
        "1.weight": "conv",
        "2.weight": "output",
    }
    layer = nn.Linear(4, 4)
    assert kinds_of(layer) == {"weight": "output"}
    assert kinds_of(nn.Sequential(layer, nn.BatchNorm1d(4), layer)) == {"0.weight": "output"}
    assert kinds_of(nn.Sequential(nn.Conv2d(1, 1, 1))) == {"0.weight": "conv"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", {"conv": 17, "shortcut": 3, "output": 1}),
        ("mobilenet_v2", {"conv": 52, "output": 1}),
    ],
)
def test_a_torchvision_network_reads_grey_images(name, kinds):
    network = MODELS["torchvision"](arch=name).build(MNIST, 7)
    assert network.training
    assert Counter(kinds_of(network).values()) == kinds
    assert next(network.parameters()).shape[1] == 1
    assert network(torch.rand(2, *MNIST)).shape == (2, 7)


def test_a_torchvision_network_too_deep_for_the_images_is_one_line():
    with pytest.raises(UserError, match=r"^model\.arch=alexnet cannot be built for inputs of 3x16x16: .*$"):
        MODELS["torchvision"](arch="alexnet").build((3, 16, 16), 10)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module `nets` in the working directory, which is not on the path."""
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def flat(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2] * shape[0], classes))\n"
        "def narrow(shape, classes): return flat(shape, 1)\n"
        "def pair(shape, classes): return lambda images: images\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])
    yield
    sys.modules.pop("nets", None)


@pytest.mark.usefixtures("user_module")
def test_a_custom_network_is_found_in_the_working_directory():
    network = MODELS["custom"](path="nets:flat").build(DIGITS, 3)
    assert kinds_of(network) == {"1.weight": "output"}


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:f", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("nets:g", r"cannot be imported: AttributeError: module 'nets' has no attribute 'g'"),
        ("nets:narrow", r"must turn inputs \[2, 1x8x8\] into \[2, 3\], got \[2, 1\]"),
        ("nets:pair", r"cannot be built for inputs of 1x8x8: AttributeError: .*training"),
    ],
)
def test_a_custom_network_that_fails_is_one_line(path, message):
    with pytest.raises(UserError, match=rf"^model\.path={path} {message}.*$"):
        MODELS["custom"](path=path).build(DIGITS, 3)
