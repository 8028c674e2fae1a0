"""Gradual magnitude pruning: the cubic schedule, exact counts, and no seam between its two rounds."""

import pytest
import torch
from conftest import compose_task

from ltx.config.compose import compose
from ltx.core.session import Session
from ltx.core.ticket import Hooks, Round
from ltx.engine.train import train
from ltx.results import load

WORDS = ("config=digits_gmp", "model.hidden=[16]", "replicates=2", "recipe.eval_every=20")
SHORT = (*WORDS, "recipe.steps=60", "method.begin=10", "method.end=40", "method.every=10")


def rounds(*words):
    """The rounds of a search that is played without a store, each with what became of it."""
    task, plan = compose_task(*words)
    method = compose(list(words)).run.method
    search, trained, found = method.search(task, task.dense(), plan), None, []
    while True:
        try:
            round = search.send(trained)
        except StopIteration:
            return task, plan, method, found
        trained = train(task, round, Session())
        found.append((round, trained))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_ticket_goes_on_where_the_search_ended(optimizer):
    words = (*SHORT, f"recipe.optimizer={optimizer}", "recipe.lr=0.01", "method.densities=[0.1]")
    words += ("recipe.momentum=0.9",) if optimizer == "sgd" else ()
    task, plan, method, ((_, dense), (_, search), (ticket, trained)) = rounds(*words)
    hooks = Hooks(regrow=method.pruning(task, plan, 0.1))
    whole = train(task, Round(1, task.dense(), plan, hooks=hooks, keep=(40,)), Session())
    for name, tensor in search.final.items():
        assert torch.equal(tensor, whole.at[40][name]), name
    for name, start in ticket.ticket.start().items():
        alive = ticket.ticket.mask.get(name, torch.ones_like(start, dtype=torch.bool))
        assert torch.equal(start, torch.where(alive, search.final[name], 0))
        assert bool((alive <= search.mask.get(name, alive)).all())
    assert ticket.start == 40
    assert ticket.warm
    assert trained.steps.tolist() == [20, 20]
    assert dense.steps.tolist() == [60, 60]


def test_counts_follow_the_cubic():
    task, plan = compose_task(*SHORT)
    method = compose(list(SHORT)).run.method
    prune, mask, counts = method.pruning(task, plan, 0.1), task.dense().mask, {}
    for step in range(40):
        mask = prune(step, task.dense().weights, {}, mask) or mask
        counts[step] = int(mask["1.weight"][0].sum())
    size = task.layers.sizes["1.weight"]
    assert counts[9] == counts[10] == size
    assert counts[20] == counts[29] == round(size * (0.1 + 0.9 * (2 / 3) ** 3))
    assert counts[30] == counts[39] == round(size * (0.1 + 0.9 * (1 / 3) ** 3))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_run_has_its_densities(scope, tmp_path, ltx):
    said = ltx("run", *SHORT, f"method.scope={scope}", "method.densities=[0.3,0.1]", f"out={tmp_path}")
    assert said.code == 0, said.err
    levels = load(tmp_path).levels
    tickets = levels[levels.role == "ticket"]
    assert tickets.groupby("level").density.max().tolist() == pytest.approx([1, 0.3, 0.1], abs=2e-3)
    assert set(levels[levels.role == "search"].steps) == {40}
    assert set(tickets[tickets.level > 0].steps) == {20}


def test_rewound_it_is_trained_anew(tmp_path, ltx):
    said = ltx("run", *SHORT, "method.rewound=true", "method.densities=[0.1]", f"out={tmp_path}")
    assert said.code == 0, said.err
    run = load(tmp_path)[0]
    dense, ticket = run.ticket(0, seed=0), run.ticket(1, seed=0)
    for name, alive in ticket.mask.items():
        assert torch.equal(ticket.start[name], torch.where(alive, dense.start[name], 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.end=5"], "method.end=5 is not possible: it must lie after method.begin=10"),
        (["method.end=100"], "not after the end of training, step 60"),
        (["method.every=0"], "method.every=0 is not possible: it must be at least one step"),
        (["method.densities=[0.0001]"], "too few would live"),
    ],
)
def test_what_cannot_be_is_one_line(words, message, ltx):
    said = ltx("run", *SHORT, *words)
    assert said.code == 2
    assert message in said.err
