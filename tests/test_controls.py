"""A control is another network with the ticket's layer counts, the same whenever it is drawn again."""

import pytest
import torch
from conftest import compose_task

from ltx import prune
from ltx.checks import Checks
from ltx.controls import CONTROLS
from ltx.scores import magnitude

NETWORK = ("model.hidden=[12,8]",)


def ticket_of(task):
    """Level 1 of a search: a quarter of every layer is gone."""
    dense = task.dense()
    kept = {name: task.layers.sizes[name] * 3 // 4 for name in dense.mask}
    return dense.masked(prune.by_layer(magnitude(dense.weights), dense.mask, kept))


@pytest.fixture(scope="module")
def task():
    return compose_task(*NETWORK, "replicates=3")[0]


@pytest.fixture(scope="module")
def ticket(task):
    return ticket_of(task)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", CONTROLS)
class TestEveryControl:
    def test_differs_from_its_ticket_in_every_replicate(self, name, task, ticket):
        rival = CONTROLS[name](task, ticket, 1, 0)
        for r in range(task.replicates):
            moved = any(not torch.equal(rival.mask[n][r], ticket.mask[n][r]) for n in ticket.mask)
            redrawn = any(not torch.equal(rival.weights[n][r], ticket.weights[n][r]) for n in ticket.mask)
            assert moved or redrawn
        Checks().control(rival, ticket, "here")

    def test_keeps_the_layer_counts(self, name, task, ticket):
        rival = CONTROLS[name](task, ticket, 1, 0)
        assert {n: c.tolist() for n, c in rival.kept().items()} == {
            n: c.tolist() for n, c in ticket.kept().items()
        }

    def test_is_the_same_whenever_it_is_drawn_again(self, name, task, ticket):
        torch.manual_seed(99)  # torch's global generator has no say
        one, other = (CONTROLS[name](task, ticket, 1, 0) for _ in range(2))
        assert same(one.mask, other.mask)
        assert same(one.weights, other.weights)

    @pytest.mark.parametrize(("level", "draw"), [(1, 1), (2, 0)])
    def test_differs_from_draw_to_draw_and_from_level_to_level(self, name, level, draw, task, ticket):
        one, other = CONTROLS[name](task, ticket, 1, 0), CONTROLS[name](task, ticket, level, draw)
        assert not (same(one.mask, other.mask) and same(one.weights, other.weights))

    def test_does_not_know_the_replicates_beside_it(self, name, task, ticket):
        alone = compose_task(*NETWORK, "seed=1")[0]
        rival, lonely = CONTROLS[name](task, ticket, 1, 0), CONTROLS[name](alone, ticket_of(alone), 1, 0)
        for tree, other in ((rival.mask, lonely.mask), (rival.weights, lonely.weights)):
            assert all(torch.equal(tree[n][1], other[n][0]) for n in tree)

    def test_leaves_the_ticket_as_it_was(self, name, task, ticket):
        before = {n: t.clone() for n, t in (ticket.weights | ticket.mask).items()}
        CONTROLS[name](task, ticket, 1, 0)
        assert same(before, ticket.weights | ticket.mask)


def test_reinit_keeps_the_mask_and_redraws_every_weight_matrix(task, ticket):
    rival = CONTROLS["reinit"](task, ticket, 1, 0)
    assert same(rival.mask, ticket.mask)
    assert all(not torch.equal(rival.weights[name], ticket.weights[name]) for name in ticket.mask)


def test_shuffle_keeps_the_weights_and_moves_the_mask_of_every_layer(task, ticket):
    rival = CONTROLS["shuffle"](task, ticket, 1, 0)
    assert same(rival.weights, ticket.weights)
    assert all(not torch.equal(rival.mask[name], ticket.mask[name]) for name in ticket.mask)


def test_shuffle_moves_two_replicates_differently(task):
    one = torch.zeros(3, 1000, dtype=torch.bool)
    one[:, :500] = True
    dense = task.dense()
    rival = CONTROLS["shuffle"](task, dense.masked({"1.weight": one}), 1, 0)
    assert not torch.equal(rival.mask["1.weight"][0], rival.mask["1.weight"][1])


def test_random_redraws_weights_and_mask(task, ticket):
    rival = CONTROLS["random"](task, ticket, 1, 0)
    for name in ticket.mask:
        assert not torch.equal(rival.mask[name], ticket.mask[name])
        assert not torch.equal(rival.weights[name], ticket.weights[name])
