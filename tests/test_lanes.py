"""Lanes: the same bits however many processes train, and whatever becomes of them."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import compose_task, spawn
from helpers import NETS, alive, assert_same, folder_of, until

from ltx.core.ticket import Hooks, Round
from ltx.experiment.lanes import divided

WORDS = ("model.hidden=[16]", "replicates=3", "method.levels=2", "controls=[reinit,shuffle]")
SHORT = (*WORDS, "recipe.steps=60", "recipe.eval_every=20")
SLOW = (
    *("model.hidden=[16]", "replicates=3", "method.levels=1", "controls=[]"),
    *("recipe.steps=2000", "recipe.eval_every=500", "checkpoint_seconds=0.1"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one lane makes of the short run."""
    out = tmp_path_factory.mktemp("alone")
    assert ended(spawn("run", *SHORT, "lanes=1", f"out={out}"))[0] == 0
    return folder_of(out)


def ended(process):
    """How a process ended, and what it said."""
    _, err = process.communicate()
    return process.returncode, err


def workers(parent):
    """The processes of a run's lanes."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ltx.experiment.lane" in line]


def training(process, out, count):
    """Wait until lanes train and have saved something; their processes."""
    until(lambda: list(Path(out).rglob("progress/state*.safetensors")) and len(workers(process.pid)) == count)
    return workers(process.pid)


@pytest.mark.parametrize("lanes", [2, 3])
def test_bits_and_tables_do_not_depend_on_lanes(lanes, whole, ltx, tmp_path):
    assert ltx("run", *SHORT, f"lanes={lanes}", f"out={tmp_path}").code == 0
    assert_same(folder_of(tmp_path), whole)
    assert ltx("verify", tmp_path).code == 0


def test_shares_are_equal_where_they_can_be():
    task, plan = compose_task(*SHORT, "replicates=5")
    round = Round(1, task.dense(), plan)
    whole, halves = range(5), [range(2), range(2, 5)]
    assert [rows for _, rows in divided(task, [round] * 4, 2)] == [whole] * 4
    assert [rows for _, rows in divided(task, [round], 2)] == halves
    assert [rows for _, rows in divided(task, [round] * 3, 2)] == halves * 3
    steered = Round(1, task.dense(), plan, hooks=Hooks(steer=lambda *_: None))
    assert [rows for _, rows in divided(task, [steered], 2)] == [whole]


@pytest.fixture(scope="module")
def slowly(tmp_path_factory):
    """What one lane makes of the longer run."""
    out = tmp_path_factory.mktemp("slowly")
    assert ended(spawn("run", *SLOW, "lanes=1", f"out={out}"))[0] == 0
    return folder_of(out)


def test_a_lane_that_is_killed_is_replaced(slowly, tmp_path):
    process = spawn("run", *SLOW, "lanes=2", f"out={tmp_path}")
    os.kill(training(process, tmp_path, 2)[0], signal.SIGKILL)
    code, err = ended(process)
    assert code == 0, err
    assert_same(folder_of(tmp_path), slowly)


def test_a_network_that_kills_its_lane_ends_the_run_with_the_reason(tmp_path, monkeypatch, ltx):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    said = ltx("run", *SHORT[1:], "model=custom", "model.path=nets:Dies", "lanes=2")
    assert said.code == 1
    assert "level 0, ticket: its process ended twice, by signal 9; was memory short?" in said.err


def test_an_error_in_a_lane_is_the_run_s_own(tmp_path, monkeypatch, ltx):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    with pytest.raises(ZeroDivisionError, match="no weight is left"):
        ltx("run", *SHORT[1:], "model=custom", "model.path=nets:Raises", "lanes=2")
    said = ltx("run", *SHORT[1:], "model=custom", "model.path=nets:Unsendable", "lanes=2")
    assert said.code == 1
    assert "Odd: this and that" in said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_lanes_end_with_their_run_which_goes_on_later(number, slowly, tmp_path, ltx):
    process = spawn("run", *SLOW, "lanes=2", f"out={tmp_path}")
    at = training(process, tmp_path, 2)
    process.send_signal(number)
    assert ended(process)[0] == (-9 if number == signal.SIGKILL else 130)
    until(lambda: not any(map(alive, at)))
    assert list(tmp_path.rglob("progress/state*.safetensors"))
    assert ltx("run", *SLOW, "lanes=2", f"out={tmp_path}").code == 0
    assert_same(folder_of(tmp_path), slowly)


@pytest.mark.parametrize("lanes", ["0", "many", "-1", "1000"])
def test_a_number_of_lanes_that_cannot_be_is_refused(lanes, ltx, tmp_path):
    said = ltx("run", f"lanes={lanes}", f"out={tmp_path}")
    assert (said.code, said.out) == (2, "")
    assert f"lanes={lanes} is not possible: choose auto or a number from 1 on" in said.err


def test_by_itself_a_run_that_is_soon_done_has_one_lane(ltx, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    began = []
    monkeypatch.setattr("ltx.experiment.lanes.Lane.__init__", lambda *_: began.append(1))
    assert ltx("run", *SHORT, f"out={tmp_path}").code == 0
    assert not began
