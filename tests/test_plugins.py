"""Networks and data of the user's own: by entry point, by import path, and torchvision's by name."""

import sys
from importlib import metadata

import pytest

from ltx.config.compose import compose
from ltx.errors import UserError
from ltx.models import layer_kinds

MODULE = """
from dataclasses import dataclass
import torch
from torch import nn
from ltx.models import Model

@dataclass(frozen=True)
class Flat(Model):
    summary = "one layer"
    bias: bool = True
    def build(self, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=self.bias))

def function(): pass

def data():
    images = torch.arange(9 * 64, dtype=torch.int64).remainder(256).to(torch.uint8).view(9, 1, 8, 8)
    split = (images, torch.tensor([0, 1, 2] * 3))
    return [split, split, split]

def two():
    return data()[:2]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module `mine` in the working directory, of which a package offers three objects as models."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    offers = {"flat": "mine:Flat", "broken": "mine:Missing", "function": "mine:function"}
    points = [metadata.EntryPoint(name, value, "ltx.models") for name, value in offers.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "ltx.models" else [])
    yield
    sys.modules.pop("mine", None)


@pytest.mark.usefixtures("plugin")
def test_a_packages_network_has_keys_and_is_imported_only_when_chosen():
    compose(["model=lenet"])
    assert "mine" not in sys.modules
    composed = compose(["model=flat", "model.bias=false", "method.levels=2"])
    assert composed.config["model"] == {"name": "flat", "weights": None, "fresh": [], "bias": False}
    assert layer_kinds(composed.run.model.build((1, 8, 8), 10), "1.weight") == {"1.weight": "output"}
    with pytest.raises(UserError, match=r"unknown key model\.bia: did you mean model\.bias\?"):
        compose(["model=flat", "model.bia=false"])


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "model=mine:Missing cannot be imported: AttributeError: module 'mine' has no attribute"),
        ("function", r"model=function \(mine:function\) must be a subclass of ltx\.models\.base\.Model"),
        ("flatt", "flat"),
    ],
)
def test_a_packages_network_that_is_none_is_one_line(name, message):
    with pytest.raises(UserError, match=message):
        compose([f"model={name}"])


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("model", ["flat", "torchvision:resnet18"])
def test_an_experiments_keys_for_its_own_network_are_left_out_for_a_foreign_one(model):
    composed = compose(["config=cifar10_conv2_quick", f"model={model}", "method.levels=1"])
    assert composed.dropped == ("model.width",)


@pytest.mark.usefixtures("plugin")
def test_a_packages_network_is_called_by_its_source_too(tmp_path):
    before = compose(["model=flat", "method.levels=2"]).folder("f")
    sys.modules.pop("mine")
    (tmp_path / "mine.py").write_text(MODULE.replace('"one layer"', '"a layer"'))
    assert compose(["model=flat", "method.levels=2"]).folder("f") != before


def test_torchvisions_networks_are_chosen_by_name():
    composed = compose(["model=torchvision:resnet18", "method.levels=1"])
    assert composed.config["model"] == {
        "name": "torchvision:resnet18",
        "weights": None,
        "fresh": [],
        "arch": "resnet18",
    }
    assert ":" not in str(composed.folder("data"))
    with pytest.raises(UserError, match=r"model\.arch=resnet81 does not exist; did you mean resnet18"):
        compose(["model=torchvision:resnet81"])


@pytest.mark.usefixtures("plugin")
def test_data_of_the_users_own():
    data = compose(["dataset=custom", "dataset.path=mine:data"]).run.dataset.load()
    assert (data.shape, data.outputs, len(data.train), len(data.val), len(data.test)) == (
        (1, 8, 8),
        3,
        9,
        9,
        9,
    )


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine", r"dataset\.path=mine is not possible: write package\.module:function"),
        ("mine:none", r"dataset\.path=mine:none cannot be imported: AttributeError"),
        ("mine:function", r"dataset\.path=mine:function cannot be loaded: TypeError"),
        ("mine:two", r"must return train, validation and test, got 2"),
    ],
)
def test_data_that_are_none_are_one_line(path, message):
    with pytest.raises(UserError, match=message):
        compose(["dataset=custom", f"dataset.path={path}"]).run.dataset.load()
