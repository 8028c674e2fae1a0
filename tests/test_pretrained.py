"""A network that comes trained: its file is checked tensor by tensor, is part of the run's name, and runs nothing."""

import pickle
import shutil

import pytest
import torch
from conftest import TINY, compose_task
from helpers import ticket_on_disk
from safetensors.torch import save_file
from torch import nn

from ltx.config.compose import compose

SMALL = (*TINY, "method.levels=1", "controls=[]")
SHAPES = {"1.weight": (16, 64), "1.bias": (16,), "3.weight": (10, 16), "3.bias": (10,)}


def values(**changes):
    """Tensors of TINY's network; a change of None leaves one out."""
    draw = torch.Generator().manual_seed(7)
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    tensors |= {name.replace("_", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.fixture
def file(tmp_path):
    save_file(values(), tmp_path / "trained.safetensors")
    return tmp_path / "trained.safetensors"


def dense(*words):
    return compose_task(*SMALL, *words)[0].dense().weights


@pytest.mark.parametrize("name", ["trained.safetensors", "trained.pt"])
def test_every_replicate_begins_with_the_tensors_of_the_file(tmp_path, name):
    (save_file if name.endswith("s") else torch.save)(values(), tmp_path / name)
    found = dense(f"model.weights={tmp_path / name}")
    assert all(torch.equal(found[name][r], values()[name]) for name in SHAPES for r in range(2))


def test_what_is_fresh_is_drawn_by_seed(file):
    own, found = dense(), dense(f"model.weights={file}", "model.fresh=[3.*]")
    assert torch.equal(found["3.weight"], own["3.weight"])
    assert not torch.equal(found["3.weight"][0], found["3.weight"][1])
    assert torch.equal(found["1.weight"][1], values()["1.weight"])


def test_a_run_begins_with_them_and_its_controls_are_drawn_anew(ltx, file, tmp_path):
    said = ltx("run", *TINY, "method.levels=1", f"model.weights={file}", f"out={tmp_path}")
    assert said.code == 0, said.err
    assert "seeds differ by batches, augmentation and dropout" in said.err
    (folder,) = tmp_path.glob("digits_lenet/*")
    _, first = ticket_on_disk(folder / "level_01" / "ticket")
    _, other = ticket_on_disk(folder / "level_01" / "reinit")
    assert torch.equal(first["1.weight"][0], first["1.weight"][1])
    assert not torch.equal(other["1.weight"][0], other["1.weight"][1])
    _, dense = ticket_on_disk(folder / "level_00" / "ticket")
    assert all(torch.equal(dense[name][0], values()[name]) for name in SHAPES)
    assert ltx("verify", folder).code == 0
    packed = ltx("ticket", folder, "--level", 1, "--out", tmp_path / "one.safetensors")
    assert "with its weights" in packed.out  # its seed does not draw them again
    file.unlink()
    said = ltx("verify", folder)
    assert said.code == 0, said.err
    assert "the weights that it began with are not at hand" in said.out
    assert ltx("export", folder, "--to", "safetensors").code == 0


def test_the_content_is_part_of_the_name_and_the_path_is_not(file, tmp_path):
    def name(*words):
        return compose([*SMALL, *words]).tag("the data's")

    moved = tmp_path / "elsewhere" / "other.safetensors"
    moved.parent.mkdir()
    shutil.copy(file, moved)
    link = tmp_path / "link.safetensors"  # as a hub's cache has them
    link.symlink_to(moved)
    assert len({name(f"model.weights={path}") for path in (file, moved, link)} | {name()}) == 2
    save_file(values(**{"3_bias": torch.zeros(10)}), moved)
    assert name(f"model.weights={moved}") != name(f"model.weights={file}")
    assert name(f"model.weights={file}", "model.fresh=[3.*]") != name(f"model.weights={file}")


def test_all_that_does_not_fit_is_one_line_before_data_are_read(ltx, tmp_path, monkeypatch):
    from ltx.data.images import Digits

    monkeypatch.setattr(Digits, "load", lambda _: pytest.fail("data were read"))
    infinite = torch.full((16,), torch.inf)
    wrong = {"3_bias": None, "head_scale": torch.ones(1), "1_weight": torch.ones(16, 65), "1_bias": infinite}
    save_file(values(**wrong), tmp_path / "w")
    said = ltx("run", *SMALL, f"model.weights={tmp_path / 'w'}", f"out={tmp_path}")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.endswith(
        "does not fit this network: it has no 3.bias; it has also head.scale; 1.weight is [16, 64] here, [16, 65] "
        "there, 1.bias holds numbers that are not finite (model.fresh=[PATTERN] draws tensors anew)\n"
    )


class Ran:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


NO_TENSORS = "write the path of a safetensors file, or of a state dict that torch.save wrote"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("model.weights=away", "model.weights=away cannot be read: No such file or directory"),
        ("model.weights=text", NO_TENSORS),
        ("model.weights=program", NO_TENSORS),
        ("model.weights=nested", NO_TENSORS),
        ("model.weights=good model.fresh=[4.*]", "model.fresh=4.* does not exist; "),
        ("model.fresh=[3.*]", "it goes with model.weights=FILE"),
    ],
)
def test_mistakes_are_one_line_and_run_nothing(ltx, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no tensors")
    (tmp_path / "program").write_bytes(pickle.dumps({"1.weight": Ran(tmp_path / "ran")}))
    torch.save({"state_dict": values()}, tmp_path / "nested")
    save_file(values(), tmp_path / "good")
    said = ltx("run", *SMALL, *words.split())
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert line in said.err
    assert not (tmp_path / "ran").exists()


NETS = """
import torch
from torch import nn

class Tied(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64), nn.Linear(64, classes))
        self[3].weight = self[1].weight

def fixed(shape, classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(-1, 1, 8 * 64).view(8, 64))
        network[3].weight.zero_()
    return network
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "prenets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("nets")
def test_a_tied_tensor_goes_by_each_of_its_names_and_counts_of_batches_may_be_missing(tmp_path):
    import prenets

    tied = prenets.Tied((1, 8, 8), 10)
    stored = {name: tensor.clone() for name, tensor in tied.state_dict().items()}
    for left_out in ("1.weight", "3.weight"):
        kept = {name: t for name, t in stored.items() if name not in (left_out, "2.num_batches_tracked")}
        save_file(kept, tmp_path / "w")
        words = ("model=custom", "model.path=prenets:Tied", f"model.weights={tmp_path / 'w'}", "replicates=1")
        found = compose_task("method.levels=1", *words)[0].dense().weights
        assert torch.equal(found["1.weight"][0], tied[1].weight)


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("control", ["reinit", "random", "shuffle"])
def test_new_initial_weights_of_a_network_that_draws_none_are_refused(ltx, tmp_path, control):
    words = (
        "model=custom",
        "model.path=prenets:fixed",
        "method.levels=1",
        "recipe.steps=2",
        f"out={tmp_path}",
    )
    said = ltx("run", *words, f"controls=[{control}]", "replicates=1")
    if control == "shuffle":
        assert said.code == 0, said.err
        return
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"controls=[{control}] is not possible: 1.weight has the same values for every seed" in said.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_torchvision_weights_come_in_with_a_new_head(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(3)
    theirs = squeezenet1_1()
    save_file(theirs.state_dict(), tmp_path / "w")
    words = [
        "model=torchvision:squeezenet1_1",
        f"model.weights={tmp_path / 'w'}",
        "model.fresh=[classifier.1.*]",
    ]
    run = compose([*words, "dataset=cifar10", "recipe.steps=1"]).run
    from ltx.models.pretrained import brought

    found = brought(run.model, run.model.build((3, 32, 32), 10))
    assert "classifier.1.weight" not in found
    assert torch.equal(found["features.0.weight"], theirs.features[0].weight)
    assert isinstance(theirs, nn.Module)
