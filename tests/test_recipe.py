"""Recipes counted in steps: what people write, when the rate changes, when is measured."""

from dataclasses import replace

import pytest
import torch

from ltx.core.recipe import Recipe, in_steps
from ltx.errors import UserError


@pytest.mark.parametrize(
    ("text", "steps"),
    [("500", 500), ("500it", 500), ("160ep", 16_000), ("3ep20it", 320), ("3ep20", 320), (" 7 ", 7)],
)
def test_steps_may_be_written_in_epochs_and_iterations(text, steps):
    assert in_steps("recipe.steps", text, epoch=100) == steps


@pytest.mark.parametrize("text", ["", " ", "ten", "-3", "1.5", "3it20ep", "ep", "1e3"])
def test_what_is_not_a_number_of_steps_is_refused_with_its_key(text):
    with pytest.raises(UserError, match=r"^recipe\.steps=.*write 500, 160ep or 3ep20it"):
        in_steps("recipe.steps", text, epoch=100)


def test_an_epoch_drops_its_last_partial_batch():
    assert Recipe(batch_size=60, steps="2ep").plan(1_257).steps == 40


def test_the_rate_warms_up_from_zero_and_then_drops():
    recipe = Recipe(optimizer="sgd", lr=0.8, steps="10", warmup="4", drops=["6", "8"], drop_factor=0.5)
    rates = [recipe.plan(1000).lr_at(step) for step in range(10)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2])


def test_a_schedule_ends_at_zero_and_is_torch_s_own():
    linear = Recipe(lr=0.8, steps="10", warmup="2", schedule="linear").plan(1000)
    assert [linear.lr_at(step) for step in range(10)] == pytest.approx(
        [0, 0.4, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    cosine = Recipe(lr=0.8, steps="10", schedule="cosine").plan(1000)
    for step in range(10):
        assert cosine.lr_at(step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert {cosine.constant(0.3).lr_at(step) for step in range(10)} == {0.3}


def test_drops_are_of_the_schedule_that_has_them():
    with pytest.raises(UserError, match=r"recipe.drops=\['5'\] .*recipe.schedule=cosine has none"):
        Recipe(schedule="cosine", drops=["5"])


def plan(**changes):
    return replace(Recipe().plan(1000), **changes)


def test_evaluations_come_at_multiples_and_at_the_end():
    assert plan(steps=25, eval_every=10).evaluations(0) == [0, 10, 20, 25]


def test_a_rewound_training_is_measured_at_the_steps_of_the_dense_one():
    assert plan(steps=40, eval_every=10).evaluations(13) == [13, 30, 40]


def test_spaced_evaluations_thin_out_but_stay_on_multiples():
    steps = plan(steps=1000, eval_every=10, eval_spacing=0.5).evaluations(0)
    assert steps == [0, 10, 20, 30, 50, 80, 120, 180, 270, 410, 620, 930, 1000]


def test_the_paper_s_cadence_costs_what_the_config_claims():
    """mnist_lenet: every 4 % of 50,000 steps, at least 200 apart."""
    steps = plan(steps=50_000, eval_every=200, eval_spacing=0.04).evaluations(0)
    assert steps[:3] == [0, 200, 400]
    assert steps[-1] == 50_000
    assert len(steps) == 76


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"steps": "0"}, "recipe.steps=0"),
        ({"eval_every": "0"}, "recipe.eval_every=0"),
        ({"batch_size": 101}, "recipe.batch_size=101 .*100 training examples"),
        ({"warmup": "2000"}, "recipe.warmup=2000 .*1000 steps"),
        ({"drops": ["20", "10"]}, "recipe.drops=.*grow"),
        ({"drops": ["10", "10"]}, "recipe.drops=.*grow"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(knobs, message):
    with pytest.raises(UserError, match=message):
        Recipe(**knobs).plan(100)
