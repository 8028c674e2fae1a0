"""The line between two copies, and the command that measures it."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import compose_task
from typer.testing import CliRunner

from ltx.cli import app
from ltx.config.compose import compose
from ltx.core.session import Session
from ltx.core.task import Layers, Prunable, Task
from ltx.core.ticket import Round, Ticket
from ltx.data.base import Data, Pixels, Split
from ltx.engine.train import train
from ltx.errors import Interrupted, UserError
from ltx.experiment.execute import execute
from ltx.models.lenet import LeNet
from ltx.study import connect as command
from ltx.study.connect import beginnings, connect
from ltx.study.line import POINTS, barrier, between, doubled, halves, twins

SMALL = ["model.hidden=[20]", "recipe.steps=60", "recipe.eval_every=30", "replicates=2", "method.levels=2"]


def trained(task, plan, ticket, **round):
    return train(task, Round(0, ticket, plan, **round), Session())


def copies_of(task, plan, ticket, twin):
    """Both copies of every replicate after training."""
    return trained(twin, plan, Ticket(doubled(ticket.weights), doubled(ticket.mask)))


# -- the line -----------------------------------------------------------------------------------------------


def test_the_barrier_is_the_highest_error_above_the_mean_of_the_ends():
    error = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.4, 0.2, 0.1, 0.2]])
    torch.testing.assert_close(barrier(error), torch.tensor([0.7, 0.1]))


def test_the_barrier_of_a_parabola_is_its_height():
    alpha = torch.linspace(0, 1, POINTS)
    heights = torch.tensor([0.0, 0.25, 0.8])
    error = 0.1 + heights[:, None] * 4 * alpha * (1 - alpha)
    torch.testing.assert_close(barrier(error), heights, atol=1e-3, rtol=0)


def test_two_units_swapped_are_the_same_network_with_a_barrier_of_one_half():
    """Weights I and their permutation P: between them (0, 1) has the logits (2ab + 1/2, a² + b²)."""
    images = torch.tensor([[[[255, 0]]], [[[0, 255]]]], dtype=torch.uint8)
    split, model = Split(images, torch.tensor([0, 1])), LeNet(hidden=[2])
    data = Data(split, split, split, 2, Pixels(torch.zeros(1), torch.ones(1)), "")
    layers = Layers.of(model.build((1, 1, 2), 2), Prunable(), "3.weight")
    task = Task(model, data, layers, (0,), torch.device("cpu"))
    plan = compose_task("recipe.batch_size=2")[1]
    first = {"1.weight": torch.eye(2)[None], "1.bias": torch.zeros(1, 2)}
    first |= {"3.weight": torch.eye(2)[None], "3.bias": torch.tensor([[0.5, 0.0]])}
    second = first | {name: first[name].flip(1) for name in ("1.weight", "3.weight")}
    line = between(task, plan, first, second)
    alpha = torch.arange(POINTS) / (POINTS - 1)
    expected = 0.5 * ((2 * alpha - 1).square() < 0.5).float()
    assert torch.equal(line.test_error, expected[None])
    assert torch.equal(line.train_error, expected[None])
    assert barrier(line.test_error).tolist() == [0.5]
    torch.testing.assert_close(line.l2, torch.tensor([8.0]).sqrt())
    assert line.disagreement.tolist() == [0.0]


@pytest.fixture(scope="module")
def lenet():
    task, plan = compose_task("model.hidden=[30]", "replicates=2", "recipe.steps=40")
    return task, plan, task.dense()


def test_the_ends_of_the_line_are_the_copies(lenet):
    task, plan, dense = lenet
    outcome = copies_of(task, plan, dense, twins(task))
    line = between(task, plan, *halves(outcome.final))
    first, second = slice(0, 2), slice(2, 4)
    torch.testing.assert_close(line.train_error[:, -1], 1 - outcome.train_measure[first])
    torch.testing.assert_close(line.train_error[:, 0], 1 - outcome.train_measure[second])
    torch.testing.assert_close(line.test_error[:, -1], 1 - outcome.curve.test_measure[first, -1])
    torch.testing.assert_close(line.test_error[:, 0], 1 - outcome.curve.test_measure[second, -1])


def test_copies_with_the_same_order_are_the_same_network(lenet):
    task, plan, dense = lenet
    outcome = copies_of(task, plan, dense, replace(task, seeds=task.seeds * 2))
    line = between(task, plan, *halves(outcome.final))
    assert line.l2.tolist() == line.disagreement.tolist() == [0.0, 0.0]
    assert barrier(line.train_error).tolist() == barrier(line.test_error).tolist() == [0.0, 0.0]


def test_copies_start_alike_and_part_by_their_order_alone(lenet):
    task, plan, dense = lenet
    assert len(set(twins(task).seeds)) == 4
    outcome = copies_of(task, replace(plan, steps=1), dense, twins(task))
    first, second = halves(outcome.final)
    assert all(not torch.equal(first[name], second[name]) for name in first)
    alone = replace(task, seeds=task.seeds[:1])
    single = {name: tensor[:1] for name, tensor in dense.weights.items()}
    mask = {name: alive[:1] for name, alive in dense.mask.items()}
    again = copies_of(alone, replace(plan, steps=1), Ticket(single, mask), twins(alone))
    for name, tensor in again.final.items():  # a pair does not know its neighbours
        torch.testing.assert_close(tensor, outcome.final[name][::2])


def test_the_first_steps_are_those_of_the_run(lenet, tmp_path):
    task, plan, dense = lenet
    run = trained(task, plan, dense, keep=(0, 25))
    found = beginnings(task, plan, [0, 25], tmp_path, lambda: False)
    assert all(torch.equal(found[k][name], run.at[k][name]) for k in (0, 25) for name in dense.weights)


def test_recalibration_forgets_the_running_statistics(monkeypatch):
    monkeypatch.setattr("ltx.study.line.POINTS", 2)
    task, plan = compose_task("model=resnet20", "model.width=0.125", "recipe.batch_size=40")
    few = task.data.train.take(torch.arange(80))
    task = replace(task, data=replace(task.data, train=few, test=few))
    plan, weights = replace(plan, epoch=2), task.dense().weights
    off = {name: t + 30 if name.endswith("running_mean") else t for name, t in weights.items()}
    anew = [between(task, plan, tree, tree, recalibrate=True) for tree in (weights, off)]
    assert torch.equal(anew[0].test_error, anew[1].test_error)
    as_is = [between(task, plan, tree, tree) for tree in (weights, off)]
    assert not torch.equal(as_is[0].test_error, as_is[1].test_error)


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run, made once."""
    torch.set_num_threads(1)
    return execute(compose([*SMALL, f"out={tmp_path_factory.mktemp('run')}", "controls=[]"]))


@pytest.fixture
def folder(finished, tmp_path):
    """The small run, for one test to write into."""
    return shutil.copytree(finished, tmp_path / "run")


def forbidden(*_):
    raise AssertionError("this was trained before")


def test_one_command_measures_tabulates_and_draws(folder):
    result = CliRunner().invoke(app, ["connect", str(folder), "--steps", "0,20", "--levels", "0,2"])
    assert result.exit_code == 0, result.output
    assert "| 100 | 20 | 2 |" in result.output
    out = folder / "connect"
    assert {file.suffix for file in out.iterdir()} == {".csv", ".md", ".png", ".svg", ".safetensors", ""}
    lines, barriers = pd.read_csv(out / "connect.csv"), pd.read_csv(out / "barriers.csv")
    assert list(lines) == ["level", "density", "k", "seed", "alpha", "train_error", "test_error"]
    assert len(barriers) == 2 * 2 * 2
    assert len(lines) == POINTS * len(barriers)
    assert (barriers[["train_barrier", "test_barrier"]] >= 0).all(axis=None)
    assert (barriers.l2 > 0).all()
    dense, last = (barriers[barriers.level == level].density.iloc[0] for level in (0, 2))
    levels = pd.read_csv(folder / "levels.csv")
    assert dense == 1
    assert last == pytest.approx(levels[levels.level == 2].density.iloc[0])


def test_what_was_answered_is_not_asked_again(folder, monkeypatch):
    connect(folder, levels="0,1")
    before = (folder / "connect" / "barriers.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(command, "train", forbidden)
        connect(folder, levels="0,1")
    assert (folder / "connect" / "barriers.csv").read_bytes() == before
    (folder / "connect" / "level_00_step_0.safetensors").write_bytes(b"cut short")
    asked = []
    monkeypatch.setattr(
        command, "ask", lambda *a, ask=command.ask, **k: (asked.append(a[2].name), ask(*a, **k))[1]
    )
    connect(folder, levels="0,1,2")
    assert asked == ["level_00_step_0", "level_02_step_0"]
    assert before in (folder / "connect" / "barriers.csv").read_bytes()


def test_a_stopped_measurement_keeps_what_it_has_and_continues(folder, monkeypatch):
    whole = connect(folder, levels="0,1") / "connect.csv"
    expected = whole.read_bytes()
    shutil.rmtree(folder / "connect")
    ask, calls = command.ask, []

    def stopped(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(command, "ask", stopped)
        with pytest.raises(Interrupted, match="continues"):
            connect(folder, levels="0,1")
    assert set(pd.read_csv(whole).level) == {0}
    connect(folder, levels="0,1")
    assert whole.read_bytes() == expected
    assert not list((folder / "connect").glob(".*.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "0,9"}, "--levels=0,9 is not possible: the run has levels 0 to 2"),
        ({"levels": "all"}, "--levels=all is not possible"),
        ({"steps": "0,60"}, "--steps=0,60 is not possible: training ends at step 60"),
        ({"steps": "soon"}, "--steps=soon is not a number of steps"),
        ({"recalibrate": True}, "--recalibrate=true is not possible: this network has no BatchNorm"),
        ({"device": "abacus"}, "device=abacus is not possible"),
    ],
)
def test_a_mistake_is_named_in_one_line(folder, options, message):
    with pytest.raises(UserError, match=message) as caught:
        connect(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        connect(tmp_path)
    ticket = folder / "level_02" / "ticket" / "ticket.safetensors"
    ticket.write_bytes(ticket.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"ticket.safetensors is damaged"):
        connect(folder)
    (folder / "config.yaml").write_text("model: {name: abacus}")
    with pytest.raises(UserError, match="model=abacus does not exist"):
        connect(folder)


def test_other_data_are_refused(folder):
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    fingerprint = text.split('"fingerprint": "')[1][:16]
    manifest.write_text(text.replace(fingerprint, "0" * 16))
    with pytest.raises(UserError, match="the run was trained on data 0000000000000000"):
        connect(folder)


def test_lenet_is_stable_from_initialisation(tmp_path):
    """Frankle et al. 2020, section 3: LeNet alone is stable at k = 0."""
    folder = execute(
        compose([f"out={tmp_path}", "controls=[]", "method.levels=1", "recipe.steps=150", "replicates=3"])
    )
    barriers = pd.read_csv(connect(folder) / "barriers.csv")
    lines = pd.read_csv(folder / "connect" / "connect.csv")
    assert lines.test_error.mean() < 0.05  # it has learned something
    assert barriers.groupby("level").test_barrier.mean().max() < 0.01
    assert barriers.groupby("level").train_barrier.mean().max() < 0.01
    assert (barriers.l2 > 1).all()
