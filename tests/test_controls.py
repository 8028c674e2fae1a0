"""A control is another network with the ticket's layer counts, the same whenever it is drawn again."""

import pandas as pd
import pytest
import torch
from conftest import compose_task

from ltx.config.compose import compose
from ltx.core.checks import Checks
from ltx.core.ticket import Round
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.pruning import masks
from ltx.pruning.controls import CONTROLS, LAYERWISE
from ltx.pruning.scores import magnitude

NETWORK = ("model.hidden=[12,8]",)


def ticket_of(task):
    """Level 1 of a search: a quarter of every layer is gone."""
    dense = task.dense()
    kept = {name: task.layers.sizes[name] * 3 // 4 for name in dense.mask}
    return dense.masked(masks.by_layer(magnitude(dense.weights), dense.mask, kept))


@pytest.fixture(scope="module")
def task():
    return compose_task(*NETWORK, "replicates=3")[0]


@pytest.fixture(scope="module")
def ticket(task):
    return ticket_of(task)


def draw_of(name, task, ticket, level, draw):
    """A control of a ticket at a level; a round's plan is of no account to it."""
    return CONTROLS[name](task, Round(level, ticket, plan=None), draw)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", LAYERWISE)
class TestEveryControl:
    def test_differs_from_its_ticket_in_every_replicate(self, name, task, ticket):
        control = draw_of(name, task, ticket, 1, 0)
        for r in range(task.replicates):
            moved = any(not torch.equal(control.mask[n][r], ticket.mask[n][r]) for n in ticket.mask)
            redrawn = any(not torch.equal(control.weights[n][r], ticket.weights[n][r]) for n in ticket.mask)
            assert moved or redrawn
        Checks().control(control, ticket, "here")

    def test_keeps_the_layer_counts(self, name, task, ticket):
        control = draw_of(name, task, ticket, 1, 0)
        assert {n: c.tolist() for n, c in control.kept().items()} == {
            n: c.tolist() for n, c in ticket.kept().items()
        }

    def test_is_the_same_whenever_it_is_drawn_again(self, name, task, ticket):
        torch.manual_seed(99)  # torch's global generator has no say
        one, other = (draw_of(name, task, ticket, 1, 0) for _ in range(2))
        assert same(one.mask, other.mask)
        assert same(one.weights, other.weights)

    @pytest.mark.parametrize(("level", "draw"), [(1, 1), (2, 0)])
    def test_differs_from_draw_to_draw_and_from_level_to_level(self, name, level, draw, task, ticket):
        one, other = draw_of(name, task, ticket, 1, 0), draw_of(name, task, ticket, level, draw)
        assert not (same(one.mask, other.mask) and same(one.weights, other.weights))

    def test_does_not_know_the_replicates_beside_it(self, name, task, ticket):
        alone = compose_task(*NETWORK, "seed=1")[0]
        control, lonely = draw_of(name, task, ticket, 1, 0), draw_of(name, alone, ticket_of(alone), 1, 0)
        for tree, other in ((control.mask, lonely.mask), (control.weights, lonely.weights)):
            assert all(torch.equal(tree[n][1], other[n][0]) for n in tree)

    def test_leaves_the_ticket_as_it_was(self, name, task, ticket):
        before = {n: t.clone() for n, t in (ticket.weights | ticket.mask).items()}
        draw_of(name, task, ticket, 1, 0)
        assert same(before, ticket.weights | ticket.mask)


def test_reinit_keeps_the_mask_and_redraws_every_weight_matrix(task, ticket):
    control = draw_of("reinit", task, ticket, 1, 0)
    assert same(control.mask, ticket.mask)
    assert all(not torch.equal(control.weights[name], ticket.weights[name]) for name in ticket.mask)


def test_shuffle_keeps_the_weights_and_moves_the_mask_of_every_layer(task, ticket):
    control = draw_of("shuffle", task, ticket, 1, 0)
    assert same(control.weights, ticket.weights)
    assert all(not torch.equal(control.mask[name], ticket.mask[name]) for name in ticket.mask)


def test_shuffle_moves_two_replicates_differently(task):
    one = torch.zeros(3, 1000, dtype=torch.bool)
    one[:, :500] = True
    dense = task.dense()
    control = draw_of("shuffle", task, dense.masked({"1.weight": one}), 1, 0)
    assert not torch.equal(control.mask["1.weight"][0], control.mask["1.weight"][1])


def test_random_redraws_weights_and_mask(task, ticket):
    control = draw_of("random", task, ticket, 1, 0)
    for name in ticket.mask:
        assert not torch.equal(control.mask[name], ticket.mask[name])
        assert not torch.equal(control.weights[name], ticket.weights[name])


def test_invert_keeps_the_weights_that_the_ticket_would_lose_first(task, ticket):
    quarter = {name: task.layers.sizes[name] - int(n[0]) for name, n in ticket.kept().items()}
    dense = task.dense()
    scores = {name: -score for name, score in magnitude(dense.weights).items()}
    smallest = masks.by_layer(scores, dense.mask, quarter)
    control = CONTROLS["invert"](task, Round(1, ticket, plan=None, inverse=lambda: smallest), 0)
    assert same(control.weights, ticket.weights)
    assert all(torch.equal(control.mask[name], ~ticket.mask[name]) for name in ticket.mask)


AT_INIT = ["config=digits_at_init", *NETWORK, "recipe.steps=4", "recipe.eval_every=4", "replicates=2"]


def test_the_ablations_of_a_method_at_initialisation_are_one_run(tmp_path):
    words = [*AT_INIT, "method=snip", "method.densities=[0.5,0.1]", "controls=[shuffle,reinit,invert]"]
    levels = pd.read_csv(execute(compose([*words, "control_draws=2", f"out={tmp_path}"])) / "levels.csv")
    counts = levels[levels.level == 2].groupby("role").weights_remaining
    assert counts.unique().map(len).eq(1).all()  # as many weights, each in its own place
    # Nothing of an inversion is drawn, so that two draws would be one network counted twice.
    assert counts.size().to_dict() == {"invert": 2, "reinit": 4, "shuffle": 4, "ticket": 2}


def test_a_ticket_of_trained_weights_has_no_inversion():
    with pytest.raises(UserError, match=r"controls=.*compared with reinit, shuffle, random only"):
        compose(["method=imp", "controls=[invert]"])
