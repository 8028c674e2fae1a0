"""A tracker mirrors what the csv files say, exactly once, and can neither change nor break a run."""

import json
import sqlite3
import time
from importlib import metadata

import pandas as pd
import pytest
import torch
from conftest import TINY, spawn
from helpers import assert_same, interrupt_at

import ltx.experiment.tracking
from ltx.config.compose import compose
from ltx.errors import Interrupted
from ltx.experiment.execute import execute
from ltx.experiment.tracking import TRACKERS

accelerate = pytest.importorskip("accelerate", reason="the extra ltx[track] is not installed")
SMALL = (*TINY, "method.levels=1")
MEASURES = ["train_loss", "val_loss", "val_accuracy", "test_accuracy"]
MEASURES += ["val_balanced_accuracy", "test_balanced_accuracy"]


def go(out, tracker, *overrides):
    return execute(compose([*SMALL, *overrides, f"tracker={tracker}", f"out={out}"]))


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    torch.set_num_threads(1)
    return execute(compose([*SMALL, f"out={tmp_path_factory.mktemp('untracked')}"]))


class Recorder:
    """A tracker that remembers what it is told, across the runs of one test."""

    requires_logging_directory = False
    rows, configs, finished = [], [], []

    def __init__(self, project, **arguments):
        self.project = project

    def start(self): ...

    def store_init_configuration(self, values):
        self.configs.append(values)

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished.append(True)


@pytest.fixture
def recorder(monkeypatch):
    """What is installed as wandb is a Recorder, or what a test makes of it."""
    from accelerate import tracking

    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1" if name == "wandb" else version(name))
    kind = type("Told", (Recorder,), {"rows": [], "configs": [], "finished": []})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", kind)
    return kind


def means(folder):
    """The curves' means over seeds, as {(role, level, step): {measure: mean}}."""
    curves = pd.read_csv(folder / "curves.csv").groupby(["role", "level", "step"])[MEASURES].mean()
    return {key: row.dropna().to_dict() for key, row in curves.iterrows()}


def evaluations(rows):
    """What a Recorder was told of evaluations, in the form of `means`."""
    found = {}
    for _, row in rows:
        role = next(iter(row)).split("/")[0]
        values = {name.removeprefix(f"{role}/"): value for name, value in row.items()}
        if "step" in values:
            key = (role, int(values["level"]), int(values["step"]))
            assert key not in found, f"{key} was logged twice"
            found[key] = {name: values[name] for name in MEASURES if name in values}
    return found


def close(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-5), key


# -- what is mirrored -----------------------------------------------------------------------------------------


def test_every_evaluation_and_every_round_s_outcome_is_mirrored_in_rising_steps(recorder, tmp_path):
    folder = go(tmp_path, "wandb")
    steps = [step for step, _ in recorder.rows]
    assert steps == sorted(set(steps))
    assert steps == [0, 10, 20, 30, 31, 32, 42, 52, 62, 63, 64, 74, 84, 94, 95]
    close(evaluations(recorder.rows), means(folder))
    assert recorder.finished == [True]
    levels = pd.read_csv(folder / "levels.csv")
    (told,) = [row for _, row in recorder.rows if row.get("reinit/final_train_accuracy")]
    (rows,) = [rows for _, rows in levels[levels.level == 1].groupby("role") if rows.role.iloc[0] == "reinit"]
    same = ["density", "early_stop_step", "early_stop_val_loss", "early_stop_test_accuracy"]
    same += ["final_test_accuracy", "final_train_accuracy"]
    for name in same:
        assert told[f"reinit/{name}"] == pytest.approx(rows[name].mean(), rel=1e-5), name
    assert told["reinit/level"] == 1
    assert told["reinit/diverged"] == 0


def test_the_tracker_is_told_the_configuration_once_as_scalars(recorder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(Interrupted):
            go(tmp_path, "wandb")
    folder = go(tmp_path, "wandb")
    (config,) = recorder.configs
    assert config["run"] == folder.name
    assert config["recipe.lr"] == 0.0012
    assert config["model.hidden"] == "[16]"
    assert config["recipe.nesterov"] is False
    assert all(isinstance(value, bool | int | float | str) for value in config.values())


def test_evaluations_of_networks_that_diverged_are_left_out(recorder, tmp_path):
    go(tmp_path, "wandb", "recipe.optimizer=sgd", "recipe.lr=1e30", "controls=[]")
    ends = [row for _, row in recorder.rows if "ticket/diverged" in row]
    assert [row["ticket/diverged"] for row in ends] == [2, 2]
    assert not any("ticket/early_stop_val_loss" in row for row in ends)
    # Before the first step all is well.
    assert ["ticket/val_loss" in row for _, row in recorder.rows[:4]] == [True, False, False, False]


def test_rounds_whose_replicates_are_trained_one_by_one_are_mirrored_as_means(recorder, tmp_path):
    early_bird = ("config=digits_early_bird", "replicates=2", "recipe.steps=3ep", "recipe.eval_every=1ep")
    more = ("recipe.drops=[]", "model.width=0.25", "method.ratios=[0.3]", "method.window=2", "controls=[]")
    composed = compose([*early_bird, *more, "tracker=wandb", f"out={tmp_path}"])
    folder = execute(composed)
    close(evaluations(recorder.rows), means(folder))


# -- once, however often a run is continued -------------------------------------------------------------------


@pytest.mark.parametrize("step", [17, 40, 61])
def test_a_continued_run_mirrors_what_is_new_and_nothing_twice(step, recorder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(Interrupted):
            go(tmp_path, "wandb")
    before = len(recorder.rows)
    assert 0 < before < 15
    folder = go(tmp_path, "wandb")
    assert [step for step, _ in recorder.rows] == [0, 10, 20, 30, 31, 32, 42, 52, 62, 63, 64, 74, 84, 94, 95]
    close(evaluations(recorder.rows), means(folder))


def test_a_finished_run_is_mirrored_when_it_is_asked_for_later(recorder, untracked, tmp_path, rounds):
    out = untracked.parent.parent
    assert go(out, "wandb") == untracked
    assert rounds == []
    close(evaluations(recorder.rows), means(untracked))
    assert go(out, "wandb") == untracked
    assert len(recorder.rows) == 15
    assert len(recorder.configs) == 1


# -- it is a mirror -------------------------------------------------------------------------------------------


def test_a_tracker_changes_neither_the_run_s_name_nor_a_bit_of_it(untracked, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = go(tmp_path, "tensorboard")
    assert folder.name == untracked.name
    assert_same(folder, untracked)


def broken(at):
    def fail(self, *values, **named):
        raise {"log": SystemExit("over"), "finish": OSError("disk\nfull")}.get(at, RuntimeError("no network"))

    return fail


@pytest.mark.parametrize("at", ["__init__", "start", "store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_costs_one_line(at, recorder, untracked, tmp_path, monkeypatch, ltx):
    monkeypatch.setattr(recorder, at, broken(at))
    said = ltx("run", *SMALL, "tracker=wandb", f"out={tmp_path}")
    assert said.code == 0
    lines = [line for line in said.err.splitlines() if "tracker=" in line]
    assert len(lines) == 1
    assert lines[0].startswith("tracker=wandb failed and is left alone, the run goes on: ")
    assert any(
        word in lines[0] for word in ("SystemExit: over", "OSError: disk full", "RuntimeError: no network")
    )
    assert "Traceback" not in said.err
    assert_same(next(tmp_path.rglob("levels.csv")).parent, untracked)


def test_what_a_tracker_failed_to_take_is_offered_again(recorder, tmp_path, monkeypatch, capsys):
    log = recorder.log

    def full(self, values, step):
        if step == 32:
            raise OSError("no")
        log(self, values, step)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "log", full)
        go(tmp_path, "wandb")
    assert [step for step, _ in recorder.rows] == [0, 10, 20, 30, 31]
    go(tmp_path, "wandb")
    assert [step for step, _ in recorder.rows][5:] == [32, 42, 52, 62, 63, 64, 74, 84, 94, 95]


def test_a_tracker_that_hangs_is_not_waited_for(recorder, untracked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ltx.experiment.tracking, "PATIENCE_SECONDS", 0.1)
    hanging = []
    monkeypatch.setattr(recorder, "log", lambda self, values, step: hanging.append(time.sleep(3)))
    folder = go(tmp_path, "wandb")
    assert hanging == []
    assert "tracker=wandb has not taken all metrics after 0.1 s and is left alone" in capsys.readouterr().err
    assert_same(folder, untracked)


# -- before any data are touched ------------------------------------------------------------------------------


def test_the_trackers_are_those_that_accelerate_knows():
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert set(TRACKERS) == set(LOGGER_TYPE_TO_CLASS)


def test_a_tracker_that_does_not_exist_is_one_line(ltx):
    said = ltx("run", "tracker=tensorbord")
    assert said.code == 2
    assert said.err == (
        "ltx: tracker=tensorbord does not exist; did you mean tensorboard? choose from aim, clearml, comet_ml, "
        "dvclive, mlflow, swanlab, tensorboard, trackio, wandb\n"
    )


@pytest.mark.parametrize(
    ("lacking", "line"),
    [
        ({"accelerate"}, "tracker=comet_ml needs accelerate, not installed here: pip install 'ltx[track]'"),
        ({"comet-ml"}, "tracker=comet_ml needs comet-ml, not installed here: pip install comet-ml"),
        (
            {"accelerate", "comet-ml"},
            "tracker=comet_ml needs accelerate and comet-ml, not installed here: pip install 'ltx[track]' comet-ml",
        ),
    ],
)
def test_a_missing_package_is_one_line_before_any_data_are_read(lacking, line, monkeypatch, ltx):
    def version(name):
        if name in lacking:
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr("ltx.data.images.Digits.load", lambda self: pytest.fail("data were read"))
    said = ltx("run", *SMALL, "tracker=comet_ml")
    assert said.code == 2
    assert said.err == f"ltx: {line}\n"


# -- real trackers --------------------------------------------------------------------------------------------


def test_tensorboard_reads_the_curves_back(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(Interrupted):
            go(tmp_path, "tensorboard")
    folder = go(tmp_path, "tensorboard")
    events = EventAccumulator(str(folder / "tracking" / "digits_lenet"))
    events.Reload()
    for role, starts in {"ticket": {0: 0, 1: 32}, "reinit": {1: 64}}.items():
        for measure in MEASURES:
            drawn = [(event.step, event.value) for event in events.Scalars(f"{role}/{measure}")]
            expected = [
                (starts[level] + step, values[measure])
                for (of, level, step), values in means(folder).items()
                if of == role and measure in values
            ]
            assert [step for step, _ in drawn] == [step for step, _ in expected]
            assert [value for _, value in drawn] == pytest.approx([value for _, value in expected], rel=1e-5)
    assert [event.step for event in events.Scalars("ticket/early_stop_test_accuracy")] == [31, 63]
    assert json.loads((folder / "tracking" / "tensorboard.json").read_text())["step"] == 95


INTERRUPTED = """
import os, signal, ltx.engine.training
advance, steps = ltx.engine.training.Training.step, []
def interrupted(self):
    advance(self)
    steps.append(1)
    if len(steps) == 40:
        os.kill(os.getpid(), signal.SIGINT)
ltx.engine.training.Training.step = interrupted
"""


def test_trackio_continues_one_run_in_its_database(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="trackio is not installed: pip install trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for patch, code in ((INTERRUPTED, 130), ("", 0)):
        process = spawn("run", *SMALL, "tracker=trackio", f"out={tmp_path}", patch=patch)
        _, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        assert "failed" not in err
    folder = next(tmp_path.rglob("levels.csv")).parent
    with sqlite3.connect(tmp_path / "trackio" / "digits_lenet.db") as database:
        told = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    database.close()
    assert {run for run, _, _ in told} == {folder.name}
    close(evaluations([(step, json.loads(row)) for _, step, row in told]), means(folder))


def test_wandb_takes_a_run_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    process = spawn("run", *SMALL, "tracker=wandb", f"out={tmp_path}")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "failed" not in err
    (kept,) = tmp_path.glob("*/*/tracking/wandb/offline-run-*/*.wandb")
    content = kept.read_bytes()
    assert b"ticket/val_accuracy" in content
    assert b"recipe.lr" in content
