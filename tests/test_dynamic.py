"""Masks that change while training, stopping by patience, and optimizers that go on."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import compose_task
from helpers import halved

import ltx as lab
from ltx.config.compose import compose
from ltx.core.checks import Checks
from ltx.core.session import Never, Session
from ltx.core.ticket import Hooks, Round
from ltx.engine.patience import Patience
from ltx.engine.train import train
from ltx.engine.training import Training
from ltx.errors import Interrupted
from ltx.experiment.execute import execute
from ltx.methods.dynamic import SET
from ltx.pruning import masks

SMALL = (
    "model.hidden=[16]",
    "replicates=3",
    "recipe.steps=60",
    "recipe.eval_every=20",
)  # an epoch is 20 steps
CONV = ("model=conv2", "model.width=0.05", "replicates=2", "recipe.steps=6", "recipe.eval_every=3")
ADAM, SGD = "recipe.optimizer=adam", "recipe.optimizer=sgd"
MOMENTUM = (SGD, "recipe.lr=0.05", "recipe.momentum=0.9")


class Stop(Never):
    """Keeps one state, and stops the training there."""

    def __init__(self, at):
        self.at, self.asked, self.saved = at, 0, None

    def load(self):
        return self.saved

    def due(self):
        self.asked += 1
        return self.asked == self.at

    def save(self, state):
        self.saved = {key: tensor.clone() for key, tensor in state.items()}
        raise Interrupted


def resumed(task, round, at):
    """The outcome of a training that was stopped after `at` steps and taken up again."""
    kept = Stop(at)
    with pytest.raises(Interrupted):
        train(task, round, Session(checkpoint=kept))
    return train(task, round, Session(checkpoint=kept))


def same(one, other):
    trees = [{**o.final, **o.mask, **o.optimizer, **o.curve.tree(), "steps": o.steps} for o in (one, other)]
    assert trees[0].keys() == trees[1].keys()
    for key, tensor in trees[0].items():
        torch.testing.assert_close(tensor, trees[1][key], rtol=0, atol=0, equal_nan=True)


# -- masks that change ----------------------------------------------------------------------------------------


def swap(step, weights, gradients, mask):
    """At step 7 the first layer's dead and living change places."""
    first = next(iter(mask))
    return {first: ~mask[first]} if step == 7 else None


@pytest.mark.parametrize("model", [SMALL, CONV], ids=["stacked", "separate"])
@pytest.mark.parametrize("recipe", [(ADAM,), MOMENTUM], ids=["adam", "momentum"])
def test_what_comes_to_life_starts_at_zero_and_unremembered(model, recipe):
    task, plan = compose_task(*model, *recipe, "recipe.steps=12")
    ticket = halved(task)
    first = next(iter(ticket.mask))
    training = Training(task, Round(1, ticket, plan, hooks=Hooks(regrow=swap)))
    for _ in range(7):
        training.step()
    seen = {}

    def looking(step, weights, gradients, mask):
        seen["dense"] = gradients[first].clone()
        return swap(step, weights, gradients, mask)

    training.round = Round(1, ticket, plan, hooks=Hooks(regrow=looking))
    step, moved = training.optimizer.step, {}
    training.optimizer.step = lambda rate: moved.update(training._remembered()) or step(rate)
    training.step()
    assert (seen["dense"][~ticket.mask[first]] != 0).any()  # the method sees where growth would help
    slots = [value for key, value in moved.items() if key.startswith(f"{first}|") and value.dim() > 1]
    assert slots
    assert all((slot == 0).all() for slot in slots)
    weights = training.executor.weights()[first]
    assert (weights[ticket.mask[first]] == 0).all()
    assert (weights[~ticket.mask[first]] != 0).any()
    assert torch.equal(training.mask[first], ~ticket.mask[first])


@pytest.mark.parametrize("at", [3, 7, 8, 20])
def test_a_training_whose_mask_has_changed_is_resumed_to_the_same_bits(at):
    task, plan = compose_task(*SMALL, "recipe.steps=24")
    round = Round(1, halved(task), plan, hooks=Hooks(regrow=swap), keep_optimizer=True)
    same(resumed(task, round, at), train(task, round, Session()))


def test_erdos_renyi_shares_by_the_sum_of_sides_exactly_and_never_more_than_there_is():
    shapes = {"a": (300, 784), "b": (100, 300), "c": (10, 100)}
    counts = masks.erdos_renyi(shapes, 20_000)
    assert sum(counts.values()) == 20_000
    assert counts["c"] == 1_000  # its share would be more than it has
    assert counts["a"] / counts["b"] == pytest.approx(1084 / 400, rel=1e-3)
    for kept in (1, 7, 1_000, 266_199, 266_200):
        found = masks.erdos_renyi(shapes, kept)
        assert sum(found.values()) == kept
        assert all(0 <= found[name] <= math.prod(shape) for name, shape in shapes.items())


def test_set_moves_the_weights_nearest_zero_and_keeps_every_layer_s_count():
    task, plan = compose_task(*SMALL, "method=set", "method.densities=[0.2]", "recipe.steps=100")
    method = SET(densities=[0.2], moved=0.3)
    search = method.search(task, task.dense(), plan)
    next(search)
    round = search.send(None)
    first, alive = next(iter(round.ticket.mask.items()))
    weights, hook = round.ticket.start(), round.hooks.regrow
    quiet = [step for step in range(100) if hook(step, weights, {}, round.ticket.mask) is None]
    assert sorted(set(range(100)) - set(quiet)) == [20, 40, 60, 80]
    after = hook(20, weights, {}, round.ticket.mask)
    count = round.kept[first]
    moved = int(0.3 * count + 0.5)
    assert after[first].flatten(1).sum(1).tolist() == [count] * 3
    stayed = (after[first] & alive).flatten(1).sum(1)
    assert (stayed >= count - moved).all()
    for r in range(3):
        size = weights[first][r].abs()
        gone, there = size[alive[r] & ~after[first][r]], size[alive[r] & after[first][r]]
        surely = there.sort().values[moved - count :]
        assert gone.max() <= surely.min()
    assert not torch.equal(after[first][0], after[first][1])
    assert all(
        torch.equal(a, b)
        for a, b in zip(hook(20, weights, {}, round.ticket.mask).values(), after.values(), strict=True)
    )


def test_a_run_of_set_tells_the_mask_that_training_ended_with(tmp_path):
    words = (*SMALL, "method=set", "method.densities=[0.3,0.1]", "controls=[reinit]", f"out={tmp_path}")
    folder = execute(compose(list(words)))
    levels, layers = (pd.read_csv(folder / f"{name}.csv") for name in ("levels", "layers"))
    assert set(levels[levels.level == 2].density.round(2)) == {0.1}
    assert (layers[layers.level == 1].groupby(["role", "seed"]).kept.sum() == round(0.3 * 1184)).all()
    kept = lab.load(folder).ticket(level=1, seed=0)
    assert not torch.equal(kept.mask["1.weight"], kept.start["1.weight"] != 0)
    assert ((kept.trained["1.weight"] != 0) <= kept.mask["1.weight"]).all()


# -- patience -------------------------------------------------------------------------------------------------


def test_patience_counts_evaluations_since_the_least_loss():
    patience = Patience(2, replicates=2)
    losses = [[3.0, 3.0], [4.0, 2.0], [2.9, torch.nan], [3.0, 2.0], [2.95, 1.0]]
    told = [patience.exhausted(torch.tensor(loss)).tolist() for loss in losses]
    assert told == [[False, False], [False, False], [False, False], [False, True], [True, False]]
    assert not Patience(0, 1).exhausted(torch.tensor([torch.nan])).any()


@pytest.mark.parametrize("model", [SMALL, CONV], ids=["stacked", "separate"])
@pytest.mark.parametrize("recipe", [(SGD, "recipe.lr=2.0"), (ADAM, "recipe.lr=0.3")])
class TestPatience:
    WORDS = ("recipe.steps=80", "recipe.eval_every=4", "recipe.batch_size=40")

    def outcome(self, model, recipe, patience, seeds=None, **more):
        task, plan = compose_task(*model, *recipe, *self.WORDS, "replicates=4")
        task = replace(task, seeds=seeds or task.seeds)
        return task, Round(1, halved(task), plan, patience=patience, **more)

    def test_who_has_stopped_moves_no_more_and_the_others_do_not_notice(self, model, recipe):
        task, round = self.outcome(model, recipe, patience=2, keep=tuple(range(81)))
        stopped = train(task, round, Session())
        free = train(*self.outcome(model, recipe, patience=0, keep=tuple(range(81))), Session())
        assert len(set(stopped.steps.tolist())) > 1 or (stopped.steps < 80).all()
        for r, steps in enumerate(stopped.steps.tolist()):
            for name, tensor in stopped.final.items():
                assert torch.equal(tensor[r], free.at[steps][name][r]), name
            there = stopped.curve.measured()[r]
            assert int(stopped.curve.step[there][-1]) == steps
            assert torch.equal(stopped.curve.val_loss[r][there], free.curve.val_loss[r][: int(there.sum())])

    def test_stopping_is_the_same_alone_and_beside_others(self, model, recipe):
        task, round = self.outcome(model, recipe, patience=2)
        together = train(task, round, Session())
        for r, seed in enumerate(task.seeds):
            alone = train(*self.outcome(model, recipe, patience=2, seeds=(seed,)), Session())
            assert alone.steps.tolist() == [together.steps[r]]
            assert all(torch.equal(together.final[name][r], alone.final[name][0]) for name in alone.final)

    def test_it_is_resumed_to_the_same_bits(self, model, recipe):
        task, round = self.outcome(model, recipe, patience=2, keep_optimizer=True)
        straight = train(task, round, Session())
        for at in (5, int(straight.steps.min()) + 1):
            if at < int(straight.steps.max()):
                same(resumed(task, round, at), straight)


def test_a_projection_does_not_move_who_has_stopped():
    task, plan = compose_task(*SMALL)

    def project(weights, rate, memo):
        for tensor in weights.values():
            tensor.mul_(0.5)

    training = Training(task, Round(1, halved(task), plan, hooks=Hooks(project=project)))
    training.step()
    training.done = torch.tensor([True, False, False])
    training._retire()
    before = {name: tensor.clone() for name, tensor in training.executor.weights().items()}
    training.step()
    after = training.executor.weights()
    assert all(torch.equal(before[name][0], after[name][0]) for name in before)
    assert all(not torch.equal(before[name][1], after[name][1]) for name in before)


# -- optimizers that go on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [(ADAM, "recipe.lr=0.01"), MOMENTUM], ids=["adam", "momentum"])
def test_a_training_in_two_rounds_with_one_optimizer_is_one_training(recipe):
    task, plan = compose_task(*SMALL, *recipe, "recipe.steps=30")
    ticket = halved(task)
    whole = train(task, Round(1, ticket, plan, keep_optimizer=True), Session())
    first = train(task, Round(1, ticket, replace(plan, steps=13), keep_optimizer=True), Session())
    again = ticket.rewound(first.final)
    second = train(
        task, Round(1, again, plan, start=13, warm=first.optimizer, keep_optimizer=True), Session()
    )
    cold = train(task, Round(1, again, plan, start=13), Session())
    assert all(torch.equal(whole.final[name], second.final[name]) for name in whole.final)
    assert all(torch.equal(whole.optimizer[key], second.optimizer[key]) for key in whole.optimizer)
    assert not all(torch.equal(whole.final[name], cold.final[name]) for name in whole.final)


def test_a_warm_optimizer_remembers_nothing_of_what_is_pruned():
    task, plan = compose_task(*SMALL, ADAM)
    dense = train(task, Round(0, task.dense(), plan, keep_optimizer=True), Session())
    checks = Checks()
    train(task, Round(1, halved(task), plan, warm=dense.optimizer), Session(checks))
    assert checks.passed["pruned optimizer state exactly zero"] > 0
