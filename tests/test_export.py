"""Exported files: they need no ltx, compute what the run's network does, and come with a card."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

from ltx.study import formats
from ltx.study.export import Wish, chosen
from ltx.study.formats import FORMATS
from ltx.study.reopen import Kept, load_task, reopen
from ltx.study.show import read_manifest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two seeds and two levels, so sparse that inputs and units die."""
    from ltx.config.compose import compose
    from ltx.experiment.execute import execute

    out = tmp_path_factory.mktemp("export")
    return execute(compose([*TINY, "method.rate=0.7", "controls=[reinit]", f"out={out}"]))


def test_outputs(run, level, seed):
    """What the run's network makes of the test split."""
    task = load_task(reopen(run), read_manifest(run))
    network = task.network().eval()
    network.load_state_dict(Kept(run, level, seed).trained)
    inputs = task.data.test.inputs
    with torch.no_grad():
        return inputs.float().numpy(), network(task.data.prepare(inputs)).numpy()


test_outputs.__test__ = False

ALONE = {
    "pt2": "import torch; f = torch.export.load(FILE).module(); logits = f(torch.from_numpy(x)).detach().numpy()",
    "onnx": "import onnxruntime as o; logits = o.InferenceSession(FILE).run(None, {'pixels': x})[0]",
    "executorch": "import torch; from executorch.runtime import Runtime; "
    "f = Runtime.get().load_program(FILE).load_method('forward'); "
    "logits = f.execute([torch.from_numpy(x)])[0].numpy()",
    "safetensors": "from safetensors.numpy import load_file; w = load_file(FILE); "
    "x = x.reshape(len(x), -1) * P['scale'][0] + P['shift'][0]; "
    "x = x[:, w['0.index']] if '0.index' in w else x; "
    "logits = np.maximum(x @ w['1.weight'].T + w['1.bias'], 0) @ w['3.weight'].T + w['3.bias']",
    "state_dict": "import torch; w = {k: v.numpy() for k, v in torch.load(FILE, weights_only=True).items()}; "
    "x = x.reshape(len(x), -1) * P['scale'][0] + P['shift'][0]; "
    "x = x[:, w['0.index']] if '0.index' in w else x; "
    "logits = np.maximum(x @ w['1.weight'].T + w['1.bias'], 0) @ w['3.weight'].T + w['3.bias']",
}


@pytest.mark.parametrize("to", ALONE)
def test_a_file_computes_without_ltx_what_the_run_did(ltx, run, tmp_path, to):
    for package in FORMATS[to].needs:
        pytest.importorskip(package, exc_type=ImportError)
    file = tmp_path / f"net{FORMATS[to].suffix}"
    said = ltx("export", run, "--to", to, "--level", 2, "--seed", 1, "--out", file)
    assert said.code == 0, said.err
    inputs, expected = test_outputs(run, level=2, seed=1)
    np.save(tmp_path / "x.npy", inputs)
    code = (
        "import sys, json, numpy as np; sys.modules['ltx'] = None\n"
        f"FILE = {str(file)!r}; x = np.load('x.npy'); P = json.load(open(FILE + '.json'))['preprocess']\n"
        f"{ALONE[to]}\nnp.save('y.npy', logits)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "y.npy")
    assert np.abs(found - expected).max() < 1e-4
    assert (found.argmax(1) == expected.argmax(1)).all()
    card = json.loads((tmp_path / f"{file.name}.json").read_text())
    assert (card["level"], card["seed"], card["role"]) == (2, 1, "ticket")
    assert card["test"]["examples"] == len(inputs)
    assert card["test"]["agreement"] == 1
    assert card["parameters"] < 64 * 16 + 16 + 170
    assert "licence: yours to choose" in (tmp_path / f"{file.name}.md").read_text()


def test_the_run_that_holds_a_file_knows_it_and_its_measurements(ltx, run, tmp_path, monkeypatch):
    own = Path(shutil.copytree(run, tmp_path / run.parent.name / run.name))
    assert ltx("export", own, "--to", "safetensors").code == 0
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert ltx("bench", own, "--turns", 1, "--batch", 2).code == 0
    assert (own / "bench" / "bench.csv").exists()
    assert ltx("verify", own).code == 0
    next((own / "export").glob("*.safetensors")).write_bytes(b"another")
    assert ltx("verify", own).code == 1


def test_int8_is_calibrated_on_training_examples_and_nearly_as_good(ltx, run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    seen = []
    real = formats.int8
    monkeypatch.setattr("ltx.study.export.int8", lambda content, x: seen.append(x) or real(content, x))
    file = tmp_path / "small.onnx"
    said = ltx("export", run, "--to", "onnx", "--int8", "--level", 0, "--out", file)
    assert said.code == 0, said.err
    train = load_task(reopen(run), read_manifest(run)).data.train.inputs[:500]
    assert (seen[0] == train.float().numpy()).all()
    assert json.loads((tmp_path / "small.onnx.json").read_text())["test"]["agreement"] > 0.9
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer]
    whole = [one for one in weights if one.dtype == np.int8 and one.size > 1]
    assert whole
    assert (
        max(np.abs(one.astype(int)).max() for one in whole) <= 64
    )  # two products of 64 · 255 fit into int16


def test_masked_files_are_whole(ltx, run, tmp_path):
    file = tmp_path / "whole.safetensors"
    said = ltx("export", run, "--to", "safetensors", "--masked", "--out", file)
    assert said.code == 0, said.err
    from safetensors.torch import load_file

    expected = Kept(run, 2, 0).trained
    found = load_file(file)
    assert {name: torch.equal(tensor, found[name]) for name, tensor in expected.items()} == dict.fromkeys(
        expected, True
    )


MISTAKES = {
    ("--density", 0.5): "--density=0.5 is not possible: no level has it; the nearest are",
    ("--level", 9): "--level=9 is not possible: ticket has levels 0, 1, 2",
    ("--seed", 7): "--seed=7 is not possible: the run has seeds 0, 1",
    ("--role", "ticke"): "did you mean ticket?",
    ("--to", "onx"): "did you mean onnx?",
    ("--level", 1, "--matching"): "give one of --level, --density and --matching",
    ("--to", "pt2", "--int8"): "only --to onnx is written in int8",
}


@pytest.mark.parametrize("words", MISTAKES, ids=str)
def test_a_mistake_is_one_line_and_writes_nothing(ltx, run, tmp_path, words):
    out = tmp_path / "file.bin"
    said = ltx("export", run, *words, "--out", out)
    assert said.code == 2
    assert MISTAKES[words] in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights_is_one_line(ltx, run, tmp_path):
    for name in ("manifest.json", "config.yaml", "levels.csv"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    said = ltx("export", tmp_path)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert not (tmp_path / "export").exists()


def test_a_missing_runtime_says_what_to_install(ltx, run, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda package: None)
    said = ltx("export", run, "--to", "executorch")
    assert said.code == 2
    assert said.err == "ltx: --to executorch needs executorch: pip install 'ltx[executorch]'\n"


def test_the_density_asked_for_may_be_rounded(run):
    manifest = read_manifest(run)
    exact = chosen(run, manifest, Wish(level=1)).density
    assert chosen(run, manifest, Wish(density=round(exact, 3))).level == 1


def test_matching_is_chosen_on_the_validation_split(run):
    assert chosen(run, read_manifest(run), Wish(matching=True)).level in (0, 1, 2)


def test_an_operator_that_a_format_lacks_is_one_line(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(formats.UserError, match=r"torch.export cannot take this network") as caught:
        formats.pt2(formats.Deployed(Odd(), torch.ones(1), torch.zeros(1)), (1, 2, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_a_file_that_is_no_model_is_one_line(tmp_path, name):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    file = tmp_path / name
    file.write_bytes(b"nothing")
    with pytest.raises(formats.UserError, match="model") as caught:
        formats.opened(file)
    assert "\n" not in str(caught.value)
