"""What a network is to be good at: losses, gradients and measures against scikit-learn and autograd."""

import json
import sys

import pandas as pd
import pytest
import torch
from conftest import TINY
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, mean_squared_error, r2_score

from ltx.config.compose import compose
from ltx.core.goal import Classification, Goal, Regression
from ltx.experiment.execute import execute


def some_outputs(n=50, k=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, n, k, generator=generator), torch.randint(0, k - 1, (3, n), generator=generator)


def test_a_written_gradient_is_autograd_s():
    outputs, targets = some_outputs()
    for goal, aims in ((Classification(), targets), (Regression(), outputs.flip(1) + 1)):
        for ours, theirs in zip(
            goal.backward(outputs, aims), Goal.backward(goal, outputs, aims), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_classification_is_measured_as_scikit_learn_does():
    """The last class is in no split: a class that is not there counts for nothing."""
    outputs, targets = some_outputs()
    goal = Classification()
    whole = goal.measures(goal.tally(outputs, targets), 50)
    halves = goal.tally(outputs[:, :20], targets[:, :20]) + goal.tally(outputs[:, 20:], targets[:, 20:])
    for name, value in goal.measures(halves, 50).items():
        torch.testing.assert_close(value, whole[name])
    for r in range(3):
        truth, found = targets[r].numpy(), outputs[r].argmax(1).numpy()
        assert float(whole["accuracy"][r]) == pytest.approx(accuracy_score(truth, found))
        assert float(whole["balanced_accuracy"][r]) == pytest.approx(balanced_accuracy_score(truth, found))
        probabilities = outputs[r].double().softmax(1).numpy()
        assert float(whole["loss"][r]) == pytest.approx(log_loss(truth, probabilities, labels=range(4)))


def test_regression_is_measured_as_scikit_learn_does():
    generator = torch.Generator().manual_seed(2)
    outputs, targets = (torch.randn(3, 50, 2, generator=generator) for _ in range(2))
    targets = outputs * 0.8 + targets
    goal = Regression()
    halves = goal.tally(outputs[:, :20], targets[:, :20]) + goal.tally(outputs[:, 20:], targets[:, 20:])
    found = goal.measures(halves, 50)
    for r in range(3):
        truth, told = targets[r].double().numpy(), outputs[r].double().numpy()
        assert float(found["r2"][r]) == pytest.approx(r2_score(truth, told), rel=1e-5)
        assert float(found["rmse"][r]) ** 2 == pytest.approx(mean_squared_error(truth, told), rel=1e-5)
    torch.testing.assert_close(goal.loss(outputs, targets).mean(1), found["loss"])


MINE = """
from dataclasses import dataclass
import torch
from ltx.core.goal import Goal

@dataclass(frozen=True)
class Pinball(Goal):
    summary = "the 90 % quantile"
    takes = "numbers"
    measure = "pinball"

    def loss(self, outputs, targets):
        error = targets - outputs
        return torch.maximum(0.9 * error, -0.1 * error).mean(-1)

class Nothing(Goal):
    takes, measure = "numbers", "nothing"

class Scalar(Pinball):
    def loss(self, outputs, targets):
        return (targets - outputs).abs().mean()

class Raises(Pinball):
    def loss(self, outputs, targets):
        raise ZeroDivisionError("no reason")

class Silent(Pinball):
    further = ("width",)

def function(): pass
"""
RUN = (
    *("run", "dataset=diabetes", "goal=custom", "model.hidden=[8]", "replicates=2", "controls=[]"),
    *("method.levels=1", "recipe.steps=400", "recipe.eval_every=100", "recipe.batch_size=32"),
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def test_a_goal_of_ones_own_is_learned_and_named(ltx, mine):
    said = ltx(*RUN, "goal.path=mine:Pinball")
    assert said.code == 0, said.err
    assert "test pinball " in said.err
    (folder,) = (path.parent for path in (mine / "results").glob("*/*/levels.csv"))
    levels, curves = pd.read_csv(folder / "levels.csv"), pd.read_csv(folder / "curves.csv")
    assert {"early_stop_test_pinball", "final_test_pinball", "final_train_pinball"} <= set(levels)
    assert curves.val_pinball.tolist() == curves.val_loss.tolist()
    last = curves.groupby(["level", "seed"]).val_pinball.agg(["first", "last"])
    assert (last["last"] < 0.7 * last["first"]).all()
    goal = json.loads((folder / "manifest.json").read_text())["goal"]
    assert goal == {"name": "Pinball", "measure": "pinball", "higher": False, "unit": "", "further": []}


def test_a_changed_goal_is_another_run(ltx, mine):
    for source in (MINE, MINE.replace("0.9", "0.8"), MINE):
        (mine / "mine.py").write_text(source)
        sys.modules.pop("mine", None)
        said = ltx(*RUN, "goal.path=mine:Pinball", "recipe.steps=2", "recipe.eval_every=1")
        assert said.code == 0, said.err
    assert "complete already" in said.err  # as it was at first
    assert len(list((mine / "results").glob("*/*/levels.csv"))) == 2


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine:function", "goal.path=mine:function must be a subclass of ltx.core.goal.Goal"),
        (
            "mine:Nothing",
            "goal.path=mine:Nothing is not complete: TypeError: Can't instantiate abstract class",
        ),
        ("mine:None", "goal.path=mine:None cannot be imported"),
        ("mine", "goal.path=mine is not possible: write package.module:function"),
        (
            "mine:Scalar",
            "goal=Scalar is not possible: its loss has the shape [] where one for each example belongs",
        ),
        ("mine:Raises", "goal=Raises does not work on these data: ZeroDivisionError: no reason"),
        ("mine:Silent", "goal=Silent is not possible: its measures lack width"),
    ],
)
def test_a_goal_that_is_none_is_one_line(ltx, path, message):
    said = ltx(*RUN, f"goal.path={path}")
    assert said.code == 2
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_goal_said_is_the_same_run_as_one_left_to_the_data(tmp_path):
    one, said = (compose([f"out={tmp_path}", *words]) for words in ([], ["goal=classification"]))
    assert one.folder("data") == said.folder("data")


def test_a_manifest_says_what_was_measured(tmp_path):
    folder = execute(compose([*TINY, "method.levels=1", f"out={tmp_path}"]))
    goal = json.loads((folder / "manifest.json").read_text())["goal"]
    assert goal == {
        "name": "classification",
        "measure": "accuracy",
        "higher": True,
        "unit": "%",
        "further": ["balanced_accuracy"],
    }
    levels = pd.read_csv(folder / "levels.csv")
    assert levels.final_test_balanced_accuracy.between(0, 1).all()
    assert (levels.final_test_balanced_accuracy - levels.final_test_accuracy).abs().max() < 0.2
