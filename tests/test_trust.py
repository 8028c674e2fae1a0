"""A run's folder may come from anybody: what its configuration names is not run, and what it says is compared."""

import shutil
import sys

import pytest
import yaml
from conftest import TINY

import ltx as package
from ltx.config import identity
from ltx.config.compose import compose
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.study.reopen import reopen

SMALL = (*TINY, "method.levels=1", "controls=[]", "recipe.steps=10")
EVIL = """
from pathlib import Path
from torch import nn

Path({mark!r}).touch()

def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))

def data():
    return []
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return execute(compose([*SMALL, f"out={tmp_path_factory.mktemp('run')}"]))


@pytest.fixture
def stranger(finished, tmp_path, monkeypatch):
    """A folder in which somebody else may change the configuration, with code beside it that leaves a mark."""
    folder = tmp_path / "stranger"
    shutil.copytree(finished, folder)
    mark = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))

    def change(**choices):
        config = yaml.safe_load((finished / "config.yaml").read_text()) | choices
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder, mark

    yield change
    sys.modules.pop("evil", None)


CHOICES = {
    "model.path=evil:net": {"model": {"name": "custom", "path": "evil:net"}},
    "dataset.path=evil:data": {"dataset": {"name": "custom", "path": "evil:data"}},
}


@pytest.mark.filterwarnings("ignore:.*not what its checksum says")
@pytest.mark.parametrize("named", CHOICES)
def test_a_folder_runs_no_code_unless_it_is_trusted(named, stranger, ltx):
    folder, mark = stranger(**CHOICES[named])
    said = ltx("connect", folder)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert f"config.yaml: {named} names code" in said.err
    assert "--trust runs it" in said.err
    for ask in (lambda r: r.network(1, 0), lambda r: r.examples()):
        with pytest.raises(UserError, match="trust=True"):
            ask(package.load(folder))
    assert not mark.exists()


def test_a_folder_that_is_trusted_may_name_code(stranger):
    folder, mark = stranger(model={"name": "custom", "path": "evil:net"})
    assert reopen(folder, trust=True).model.path == "evil:net"
    assert mark.exists()


def test_a_run_of_a_network_that_a_file_sizes_can_be_asked(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "slim.yaml").write_text("defaults: [lenet]\nhidden: [5]\n")
    words = [word for word in SMALL if not word.startswith("model.")]
    run = package.run(package.compose("model=slim", *words, f"out={tmp_path}", config_dir=tmp_path))
    assert run.network(1, 0)(run.examples()[0]).shape == (360, 10)


def test_two_experiments_in_one_folder_are_told_apart(tmp_path, monkeypatch):
    """As if all that a folder's name shows of them were equal."""
    monkeypatch.setattr(identity, "SHOWN", 0)
    one, other = (compose([*SMALL, f"recipe.lr={lr}", f"out={tmp_path}"]) for lr in (0.1, 0.2))
    folder = execute(one)
    before = (folder / "levels.csv").read_bytes()
    data = one.run.dataset.load().fingerprint
    with pytest.raises(UserError, match="holds another experiment") as refused:
        execute(other)
    assert one.tag(data)[:24] in str(refused.value)
    assert other.tag(data)[:24] in str(refused.value)
    assert (folder / "levels.csv").read_bytes() == before
