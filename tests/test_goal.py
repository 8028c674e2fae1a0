"""What a network is to be good at: losses, gradients and measures against scikit-learn and autograd."""

import json

import pandas as pd
import pytest
import torch
from conftest import TINY
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from ltx.config.compose import compose
from ltx.core.goal import Classification, Goal
from ltx.experiment.execute import execute


def some_outputs(n=50, k=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, n, k, generator=generator), torch.randint(0, k - 1, (3, n), generator=generator)


def test_a_written_gradient_is_autograd_s():
    outputs, targets = some_outputs()
    for ours, theirs in zip(
        Classification().backward(outputs, targets),
        Goal.backward(Classification(), outputs, targets),
        strict=True,
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


def test_one_target_serves_all_replicates():
    outputs, targets = some_outputs()
    one = targets[0]
    assert torch.equal(
        Classification().tally(outputs, one), Classification().tally(outputs, one.expand(3, -1))
    )


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
