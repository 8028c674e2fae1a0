"""What a search is told of a run: the measure that the configuration names, from validation data alone."""

import math

import numpy as np
import pandas as pd
import pytest
from conftest import TINY

import ltx
from ltx.config.compose import compose
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.report.objective import WORST, Objective, objective
from ltx.study.reopen import reopen

# Two seeds, a control that must not count, and a dense network of mean accuracy 0.8.
CURVES = """\
role,draw,level,seed,step,train_loss,val_loss,val_accuracy,test_accuracy
ticket,0,0,0,0,,2.0,0.1,0.1
ticket,0,0,0,10,1.0,0.5,0.8,0.2
ticket,0,0,0,20,0.5,0.7,0.9,0.3
ticket,0,0,1,0,,2.0,0.1,0.4
ticket,0,0,1,10,1.0,0.6,0.7,0.5
ticket,0,0,1,20,0.5,0.4,0.8,0.6
ticket,0,1,0,0,,2.0,0.1,0.7
ticket,0,1,0,10,1.0,0.25,0.86,0.8
ticket,0,1,0,20,0.5,0.25,0.5,0.9
ticket,0,1,1,0,,2.0,0.1,0.15
ticket,0,1,1,10,1.0,0.75,0.74,0.25
ticket,0,1,1,20,0.5,0.8,0.6,0.35
ticket,0,2,0,10,1.0,0.5,0.79,0.45
ticket,0,2,1,10,1.0,0.5,0.79,0.55
reinit,0,2,0,10,1.0,0.0,1.0,1.0
reinit,0,2,1,10,1.0,0.0,1.0,1.0
"""
LEVELS = """\
config,method,role,draw,level,seed,density,weights_remaining,early_stop_step,early_stop_test_accuracy,\
final_test_accuracy,final_train_accuracy,diverged
c,imp,ticket,0,0,0,1.0,100,10,0.1,0.1,0.9,0
c,imp,ticket,0,0,1,1.0,100,20,0.1,0.1,0.9,0
c,imp,ticket,0,1,0,0.5,50,10,0.1,0.1,0.9,0
c,imp,ticket,0,1,1,0.5,50,10,0.1,0.1,0.9,0
c,imp,ticket,0,2,0,0.25,25,10,0.1,0.1,0.9,0
c,imp,ticket,0,2,1,0.25,25,10,0.1,0.1,0.9,0
c,imp,reinit,0,2,0,0.25,25,10,0.1,0.1,0.9,0
c,imp,reinit,0,2,1,0.25,25,10,0.1,0.1,0.9,0
"""


@pytest.fixture
def run(tmp_path):
    """A run's folder with the tables above."""
    (tmp_path / "curves.csv").write_text(CURVES)
    (tmp_path / "levels.csv").write_text(LEVELS)
    return tmp_path


VALUES = [
    (Objective(), 0.79),
    (Objective(level=0), 0.8),  # the first seed stops at step 10, the second at 20
    (Objective("early_stop_val_loss", level=0), 0.45),
    (Objective("final_val_accuracy", level=0), 0.85),
    (Objective("final_val_loss", level=0), 0.55),
    (Objective(level=1), 0.8),  # the first of two equal losses
    (Objective("final_val_loss", level=1), 0.525),
    (Objective("matching_density"), 0.5),
    (Objective("matching_density", tolerance=0.01), 0.25),  # 0.79 = 0.80 - 0.01 as people count
    (Objective("matching_density", tolerance=0.009), 0.5),
]


@pytest.mark.parametrize(("wanted", "value"), VALUES)
def test_it_is_the_mean_over_the_seeds_of_the_tickets(wanted, value, run):
    assert objective(run, wanted) == pytest.approx(value)


@pytest.mark.parametrize("wanted", [wanted for wanted, _ in VALUES])
def test_test_data_cannot_change_it(wanted, run):
    before = objective(run, wanted)
    for name in ("curves", "levels"):
        table = pd.read_csv(run / f"{name}.csv")
        for column in [column for column in table if "test" in column]:
            table[column] = np.random.default_rng(0).random(len(table))
        table.to_csv(run / f"{name}.csv", index=False)
    assert objective(run, wanted) == before


def harm(run, level, seed):
    """Let a network diverge."""
    for name in ("levels", "curves"):
        table = pd.read_csv(run / f"{name}.csv")
        row = (table.role == "ticket") & (table.level == level) & (table.seed == seed)
        table.loc[row, "diverged" if name == "levels" else "val_loss"] = 1 if name == "levels" else math.nan
        table.to_csv(run / f"{name}.csv", index=False)


def test_a_network_that_diverged_counts_as_the_worst(run):
    harm(run, 1, 0)
    assert objective(run, Objective(level=1)) == pytest.approx(0.74 / 2)
    assert objective(run, Objective("final_val_accuracy", level=1)) == pytest.approx(0.3)
    assert objective(run, Objective("early_stop_val_loss", level=1)) == math.inf
    assert objective(run, Objective("matching_density")) == 1.0
    assert objective(run, Objective(level=0)) == pytest.approx(0.8)


def test_nothing_matches_a_dense_network_that_diverged(run):
    harm(run, 0, 1)
    assert objective(run, Objective("matching_density", tolerance=0.5)) == 1.0


@pytest.mark.parametrize("measure", WORST)
def test_it_is_never_a_nan(measure, run):
    for level in (0, 1, 2):
        for seed in (0, 1):
            harm(run, level, seed)
    assert objective(run, Objective(measure)) == WORST[measure]


def test_a_level_that_the_run_lacks_is_one_line(run):
    with pytest.raises(
        UserError, match=r"objective.level=9 is not possible: the run in .* has levels 0, 1, 2$"
    ):
        objective(run, Objective(level=9))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("objective.measure=val_accuracy", "objective.measure=val_accuracy does not exist; did you mean"),
        ("objective.measure=early_stop_test_accuracy", "did you mean early_stop_val_accuracy"),
        ("objective.level=-1", "objective.level=-1 is not possible: it must be 0"),
        ("objective.level=last", "objective.level=last is not possible: it must be a whole number or null"),
        ("objective.tolerance=1", "objective.tolerance=1.0 is not possible"),
        ("objective.tolerance=0.1", "only objective.measure=matching_density has one"),
        (
            "objective.measure=matching_density objective.level=2",
            "matching_density is found among all levels",
        ),
        ("objective.metric=x", "unknown key objective.metric"),
    ],
)
def test_a_mistake_is_one_line_before_data_are_touched(typed, words):
    with pytest.raises(UserError) as caught:
        compose(typed.split())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_does_not_change_the_run_s_name():
    plain = compose(TINY).folder("f")
    asked = ["objective.measure=matching_density", "objective.tolerance=0.01", "tracker=wandb"]
    assert compose([*TINY, *asked]).folder("f") == plain


def test_a_real_run_agrees_with_its_tables(tmp_path):
    folder = execute(compose([*TINY, "objective.measure=early_stop_val_loss", f"out={tmp_path}"]))
    levels = pd.read_csv(folder / "levels.csv").query("role == 'ticket' and level == 2")
    wanted = reopen(folder).objective
    assert wanted == Objective("early_stop_val_loss")
    assert objective(folder, wanted) == pytest.approx(levels.early_stop_val_loss.mean())
    results = ltx.load(folder)
    assert results.objective() == objective(folder, wanted)
    assert results.objective(measure="final_val_loss", level=1) == objective(
        folder, Objective("final_val_loss", 1)
    )
