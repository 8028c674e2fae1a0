"""ltx bench: every form of a ticket, measured as its own runtime computes it, beside the dense network."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY

from ltx.study import formats

FORMS = [
    ("dense", "torch"),
    ("masked", "torch"),
    ("compacted", "torch"),
    ("dense, exported", "onnxruntime"),
    ("exported", "onnxruntime"),
    ("dense, exported", "torch.export"),
    ("exported", "torch.export"),
    ("int8", "onnxruntime"),
]
MADE = ["accuracy_vs_bytes", "accuracy_vs_latency"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one seed and two levels, so sparse that inputs and units die."""
    from ltx.config.compose import compose
    from ltx.experiment.execute import execute

    out = tmp_path_factory.mktemp("bench")
    return execute(compose([*TINY, "replicates=1", "method.rate=0.7", "controls=[]", f"out={out}"]))


@pytest.fixture
def accuracy(run):
    """What the run measured when training ended, by level."""
    return pd.read_csv(run / "levels.csv").set_index("level").final_test_accuracy


def runtimes(rows):
    return list(zip(rows.form, rows.runtime, strict=True))


def test_a_run_is_measured_in_every_form(ltx, run, accuracy, tmp_path):
    for package in formats.FORMATS["onnx"].needs:
        pytest.importorskip(package)
    said = ltx("bench", run, "--turns", 2, "--batch", 8, "--out", tmp_path)
    assert said.code == 0, said.err
    rows = pd.read_csv(tmp_path / "bench.csv")
    assert runtimes(rows) == FORMS
    dense, exact = rows.form.str.startswith("dense"), rows.form != "int8"
    assert rows.test[dense].tolist() == pytest.approx([accuracy[0]] * 3)
    assert rows.test[~dense & exact].tolist() == pytest.approx([accuracy[2]] * 4)
    assert (rows.examples == 360).all()
    assert (rows.agreement[exact] == 1).all()
    assert (rows.largest_difference[exact] < 1e-4).all()
    assert rows.macs[0] == 64 * 16 + 16 * 10 == rows.macs[1] > rows.macs[2]
    assert rows.bytes[2] < rows.bytes[1] == rows.bytes[0]
    assert (rows.calls == 20).all()
    assert (rows.one_p95 >= rows.one_median).all()
    for name in ("bytes", "macs", "peak_bytes", "one_median", "all_median", "per_second"):
        assert rows[f"{name}_ratio"].tolist() == pytest.approx((rows[name] / rows[name][0]).tolist())
    kinds = [f"{name}.{kind}" for name in MADE for kind in ("png", "svg")]
    assert {file.name for file in tmp_path.iterdir()} == {"bench.csv", "bench.md", "bench.tex", *kinds}
    assert "agrees %" in (tmp_path / "bench.md").read_text()
    assert r"\toprule" in (tmp_path / "bench.tex").read_text()
    assert "turn 1 of 2" in said.err
    assert "compacted" in said.out


def test_a_file_is_measured_on_the_run_whose_folder_holds_it(ltx, run, accuracy, tmp_path):
    file, *_ = ltx("export", run, "--to", "pt2", "--level", 1).out.splitlines()
    said = ltx("bench", file, "--turns", 1, "--batch", 2, "--out", tmp_path)
    assert said.code == 0, said.err
    rows = pd.read_csv(tmp_path / "bench.csv")
    assert runtimes(rows) == [("dense", "torch"), ("ticket-level_01-seed_0.pt2", "torch")]
    assert rows.test.tolist() == pytest.approx([accuracy[0], accuracy[1]])
    assert rows.agreement[1] == 1


def test_a_file_is_measured_on_the_run_that_is_named_beside_it(ltx, run, accuracy, tmp_path):
    """Wherever the file lies: here below the folder of another run."""
    inner = run / "copies" / "another"
    shutil.copytree(run, inner, ignore=shutil.ignore_patterns("export", "copies"))
    file, *_ = ltx("export", inner, "--to", "pt2", "--level", 2).out.splitlines()
    from ltx.study.forms import home

    named, other = tmp_path / "named", Path(file)
    assert home(other, []) == inner
    assert home(other, [named]) == named
    assert home(other, [named, inner]) == inner
    said = ltx("bench", run, file, "--turns", 1, "--batch", 2, "--out", tmp_path)
    assert said.code == 0, said.err
    shutil.rmtree(run / "copies")
    rows = pd.read_csv(tmp_path / "bench.csv")
    assert rows.network.nunique() == 1
    assert rows.test.tolist()[-1] == pytest.approx(accuracy[2])


def test_without_onnx_the_rest_is_measured_and_what_to_install_is_said(ltx, run, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    said = ltx("bench", run, "--turns", 1, "--batch", 2, "--out", tmp_path)
    assert said.code == 0, said.err
    expected = [form for form in FORMS if form[1] != "onnxruntime"]
    assert runtimes(pd.read_csv(tmp_path / "bench.csv")) == expected
    assert "pip install 'ltx[onnx]'" in said.err
    assert "pip install" in (tmp_path / "bench.md").read_text()


def test_ctrl_c_keeps_what_is_measured(ltx, run, tmp_path, monkeypatch):
    from ltx.study import bench

    left, visit = iter(range(7)), bench.visit

    def stopped(*what):
        if next(left, None) is None:
            raise KeyboardInterrupt
        visit(*what)

    monkeypatch.setattr(formats, "find_spec", lambda name: None)  # five forms
    monkeypatch.setattr(bench, "visit", stopped)
    said = ltx("bench", run, "--turns", 3, "--batch", 2, "--out", tmp_path)
    assert said.code == 130
    assert f"what was measured until then is in {tmp_path}" in said.err
    rows = pd.read_csv(tmp_path / "bench.csv")
    assert (rows.one_median > 0).all()
    assert [math.isnan(value) for value in rows.all_median] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--density", 0.5), "--density=0.5 is not possible: no level has it; the nearest are"),
        (("--level", 9), "--level=9 is not possible: ticket has levels 0, 1, 2"),
        (("--batch", 0), "--batch=0 is not possible: it must lie in [1, 4096]"),
        (("--turns", 0), "--turns=0 is not possible: it must be 1 or more"),
        (("nothing.pt2",), "there is no such file"),
        (("bad.pt2",), "bad.pt2 is no pt2 model"),
        (("README.txt",), "choose a run or a file that ends in .pt2, .onnx, .pte"),
    ],
)
def test_mistakes_are_one_line(ltx, run, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    for name in ("bad.pt2", "README.txt"):
        (tmp_path / name).write_text("no model")
    said = ltx("bench", run, *words)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert line in said.err


def test_a_run_without_weights_and_a_folder_that_is_no_run(ltx, tmp_path, run):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    said = ltx("bench", bare)
    assert said.code == 2
    assert "does not exist; the folder has the weights of no network" in said.err
    assert not (bare / "bench").exists()
    said = ltx("bench", tmp_path)
    assert said.code == 2
    assert "is not a run" in said.err
