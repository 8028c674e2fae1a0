"""The command line end to end, on digits."""

import subprocess
import sys

import pandas as pd
import pytest
from conftest import TINY

from ltx import __version__
from ltx.engine.kernels.library import best


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder, made by the command itself."""
    out = tmp_path_factory.mktemp("cli")
    command = [sys.executable, "-m", "ltx", "run", *TINY, f"out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.rglob("manifest.json")).parent, done


def test_run_ends_with_its_table_and_says_where_the_figures_are(finished):
    folder, done = finished
    assert "digits_lenet" in done.stdout
    assert "% weights" in done.stdout
    assert "Smallest matching ticket" in done.stdout
    assert done.stdout.strip().endswith(f"figures and tables: {folder}")
    assert f"results go to {folder}" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("level ")]
    assert [line.split()[1:3] for line in lines] == [
        *(["0", "ticket"], ["1", "ticket"], ["1", "reinit"], ["2", "ticket"], ["2", "reinit"]),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "manifest.json", "levels.csv", "curves.csv", "layers.csv"),
        *("accuracy_vs_sparsity.png", "accuracy_vs_sparsity.svg"),
        *("accuracy_vs_sparsity.csv", "accuracy_vs_sparsity.md"),
        *("level_00/ticket/ticket.safetensors", "level_00/ticket/trained.safetensors"),
        *("level_02/reinit/ticket.safetensors", "level_02/reinit/trained.safetensors"),
    ],
)
def test_run_leaves_every_file_behind(name, finished):
    assert (finished[0] / name).stat().st_size > 0


def test_nothing_else_is_left_where_the_command_was_given(finished, tmp_path, monkeypatch, ltx):
    monkeypatch.chdir(tmp_path)
    assert ltx("run", *TINY, "method.levels=1", "controls=[]").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["digits_lenet"]


def test_show_tells_what_a_run_is(finished, ltx):
    said = ltx("show", finished[0])
    assert said.code == 0
    for words in ("digits_lenet: imp on digits", "complete", "1,184 weights", "0, 1", "passed, none failed"):
        assert words in said.out


def test_list_names_everything_with_a_line_each(ltx):
    said = ltx("list")
    assert said.code == 0
    for name in ("digits_lenet", "imp", "oneshot", "lenet", "resnet20", "mnist", "cifar10", "reinit"):
        line = next(line for line in said.out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 2, line


def test_plot_draws_runs_anew_wherever_they_are(finished, tmp_path, ltx):
    said = ltx("plot", finished[0].parent, "--out", tmp_path, "--pdf", "--tolerance", "0.01")
    assert said.code == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    assert {f"accuracy_vs_sparsity.{kind}" for kind in ("png", "svg", "pdf", "csv", "md")} <= drawn
    assert set(said.out.split()) == {str(path) for path in tmp_path.iterdir()}
    summary = pd.read_csv(tmp_path / "accuracy_vs_sparsity.csv")
    levels = pd.read_csv(finished[0] / "levels.csv").query("role == 'ticket' and level == 1")
    row = summary[(summary.level == 1) & summary.line.str.contains("ticket")].iloc[0]
    assert row.early_stop_test_accuracy_mean == pytest.approx(levels.early_stop_test_accuracy.mean())
    assert row.n == 2


def test_version(ltx):
    said = ltx("--version")
    built = said.out.removeprefix(f"ltx {__version__}, sparse kernels: ").strip()
    assert said.code == 0
    assert built == (best().name if best() else "not compiled")


def test_cfg_job_shows_the_configuration_and_runs_nothing(tmp_path, monkeypatch, ltx):
    monkeypatch.chdir(tmp_path)
    said = ltx("run", "config=mnist_lenet", "--cfg", "job", "recipe.steps=7")
    assert said.code == 0
    assert "steps: '7'" in said.out
    assert "lr: 0.0012" in said.out
    assert not list(tmp_path.iterdir())


def test_overrides_and_flags_mix_in_any_order(tmp_path, monkeypatch, ltx):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "config").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [digits_lenet]\nrecipe: {steps: 11}\n"
    (tmp_path / "own" / "config" / "mine.yaml").write_text(text)
    said = ltx("run", "seed=3", "-cd", "own", "config=mine", "--cfg", "job", "replicates=2")
    assert said.code == 0
    assert "steps: '11'" in said.out
    assert "seed: 3" in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "recipe.stepz=3"], "unknown key recipe.stepz: did you mean recipe.steps?"),
        (["run", "+key=1"], "unknown key key"),
        (["run", "mnist_lenet"], "did you mean config=mnist_lenet?"),
        (["run", "--cfg", "job", "recipe.stepz=3"], "unknown key recipe.stepz"),
        (["sweep", "recipe.stepz=3", "seed=1,2"], "unknown key recipe.stepz"),
        (["run", "device=gpu"], "device=gpu is not possible: choose auto, cpu"),
        (["run", "--nonsense"], "unknown flag --nonsense"),
        (["run", "-cd", ".", "-cd", "."], "-cd is given twice"),
        (["run", "-cp", "/nowhere"], "--config-path is not possible"),
        (["run", "-cn", "nosuch"], "--config-name is not possible"),
        (["run", "--experimental-rerun=x"], "--experimental-rerun is not possible"),
        (["run", "--resolve"], "--resolve goes with --cfg job"),
        (["run", "++hydra.mode=MULTIRUN"], "++hydra.mode=MULTIRUN is not possible"),
        (["run", "replicates=1000000000000"], "replicates=1000000000000 is not possible: so many networks"),
        (
            ["run", "recipe.steps=10000000000", "recipe.eval_every=1", "recipe.eval_spacing=0"],
            "recipe.eval_every=1 is not possible: curves of",
        ),
        (["sweep", "seed=1,2", "seed=3,4"], "seed is given twice"),
        (["sweep", "hydra.sweep.dir=x"], "hydra.sweep.dir=x is not possible"),
        (["sweep", "hydra.launcher._target_=os.abort"], "hydra.launcher._target_=os.abort is not possible"),
        (["plot", "a" * 5000], "File name too long"),
        (["table", ".", "--tolerance", "nan"], "--tolerance=nan is not possible"),
        (["table", ".", "--tolerance", "x"], "Invalid value for '--tolerance'"),
        (["nosuch"], "No such command 'nosuch'"),
        (["run", "-cd"], "expected one argument"),
        (["run", "-cd", "nowhere"], "nowhere is not a folder"),
        (["show", "nowhere"], "nowhere is not a run"),
        (["plot", "nowhere"], "no such folder: nowhere"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(words, told, ltx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = ltx(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("ltx: ")
    assert said.err.count("\n") == 1
    assert told in said.err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_before_anything_has_begun_is_one_line(ltx, monkeypatch):
    def pressed(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ltx.sweep.launch.launch", pressed)
    said = ltx("run")
    assert (said.code, said.err) == (130, "ltx: stopped\n")


def test_a_mistake_in_a_process_of_its_own_exits_with_2():
    command = [sys.executable, "-m", "ltx", "run", "seed=many"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "ltx: seed=many is not possible: it must be a whole number\n"
