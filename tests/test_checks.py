"""Every promise that a run makes is kept by a check, and each check fires when its promise is broken."""

import json

import pytest
import torch
from conftest import TINY, compose_task
from helpers import halved

import ltx.core.sealed
import ltx.experiment.loop
import ltx.experiment.store
from ltx.config.compose import compose
from ltx.core.checks import Checks
from ltx.core.ticket import Hooks, Round, Ticket, copied
from ltx.engine.training import Training
from ltx.errors import InvariantError
from ltx.experiment.execute import execute
from ltx.pruning import masks
from ltx.pruning.controls import CONTROLS

RUN = (*TINY, "recipe.steps=4", "method.levels=1", "controls=[reinit]")


def run(tmp_path):
    execute(compose([*RUN, f"out={tmp_path}"]))


def manifest(tmp_path):
    return json.loads(next(tmp_path.rglob("manifest.json")).read_text())


def test_a_sound_run_counts_every_promise(tmp_path):
    run(tmp_path)
    told = manifest(tmp_path)
    assert told["status"] == "complete"
    promises = " | ".join(told["checks"])
    for words in (
        "nested",
        "bit-equal",
        "untouched",
        "weights exactly",
        "optimizer state",
        "saved file",
        "differs",
        "network's own",
    ):
        assert words in promises
    assert all(count > 0 for count in told["checks"].values())


def test_a_start_that_is_not_the_ticket_s(monkeypatch, tmp_path):
    monkeypatch.setattr(Ticket, "start", lambda ticket: {n: t + 1e-7 for n, t in ticket.weights.items()})
    with pytest.raises(InvariantError, match="level 0, ticket: survivors start bit-equal"):
        run(tmp_path)


def test_a_start_that_is_not_masked(monkeypatch, tmp_path):
    monkeypatch.setattr(Ticket, "start", lambda ticket: copied(ticket.weights))
    with pytest.raises(InvariantError, match="level 1, ticket: survivors start bit-equal"):
        run(tmp_path)


def test_a_start_that_shares_memory_with_the_rewind_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(Ticket, "start", lambda ticket: dict(ticket.weights))
    with pytest.raises(InvariantError, match="level 0, ticket: training leaves the stored rewind weights"):
        run(tmp_path)


def leaking(hooks=None):
    """A training whose mask is forgotten."""
    task, plan = compose_task(*RUN)
    training = Training(task, Round(1, halved(task), plan, hooks=hooks or Hooks()))
    training.executor.alive = {}
    return training


def test_a_mask_that_leaks():
    with pytest.raises(InvariantError, match="pruned weights"):
        leaking().run()


def test_a_mask_that_is_put_on_the_weights_alone():
    """The usual mistake: weights are masked after each step, and momentum drags the pruned along."""
    mask = halved(compose_task(*RUN)[0]).mask

    def project(weights, rate, memo):
        for name, alive in mask.items():
            weights[name].detach().mul_(alive)

    with pytest.raises(InvariantError, match="optimizer state"):
        leaking(Hooks(project=project)).run()


def test_a_diverged_replicate_is_no_broken_promise():
    """0 times NaN is NaN: only replicates with a finite loss are held to the promise."""
    tree, mask = {"w": torch.tensor([[torch.nan], [0.0]])}, {"w": torch.tensor([[False], [False]])}
    Checks().zero("weights", tree, mask, torch.tensor([False, True]), "here")
    with pytest.raises(InvariantError):
        Checks().zero("weights", tree, mask, torch.tensor([True, True]), "here")


def test_a_control_that_does_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(CONTROLS, "reinit", lambda task, round, draw: round.ticket)
    with pytest.raises(InvariantError, match="level 1, reinit: a control differs from its ticket"):
        run(tmp_path)


def test_a_control_with_one_weight_less(monkeypatch, tmp_path):
    def thin(task, round, draw):
        ticket = round.ticket
        mask = copied(ticket.mask)
        mask["1.weight"][0].view(-1)[ticket.mask["1.weight"][0].view(-1).nonzero()[0]] = False
        return ticket.masked(mask)

    monkeypatch.setitem(CONTROLS, "reinit", thin)
    with pytest.raises(InvariantError, match="level 1, reinit: a control keeps"):
        run(tmp_path)


def test_a_mask_that_revives_the_pruned(monkeypatch, tmp_path):
    def reviving(scores, mask, kept):
        return {n: prune_(alive, kept[n]) for n, alive in mask.items()}

    def prune_(alive, count):
        flat = torch.zeros_like(alive).flatten(1)
        start = 0 if alive.all() else flat.shape[1] - count  # at the second level from the other end
        flat[:, start : start + count] = True
        return flat.view_as(alive)

    monkeypatch.setattr(masks, "by_layer", reviving)
    with pytest.raises(InvariantError, match="level 2: masks are nested"):
        execute(compose([*RUN, "method.levels=2", "controls=[]", f"out={tmp_path}"]))


def test_a_saved_file_whose_pruned_weights_are_not_zero(monkeypatch, tmp_path):
    flatten = ltx.experiment.store.flatten
    monkeypatch.setattr(
        ltx.experiment.store,
        "flatten",
        lambda *told: {k: t + 1 if k == "final/1.weight" else t for k, t in flatten(*told).items()},
    )
    with pytest.raises(InvariantError, match="level 1, ticket: pruned weights in the saved file"):
        run(tmp_path)


def test_a_saved_file_that_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(ltx.core.sealed, "to_bytes", lambda tree, metadata: b"nonsense")
    with pytest.raises(InvariantError, match="a saved round can be read back"):
        run(tmp_path)


def test_a_broken_promise_stops_the_command_loudly(monkeypatch, tmp_path, ltx):
    monkeypatch.setitem(CONTROLS, "reinit", lambda task, round, draw: round.ticket)
    promise = "broken promise at level 1, reinit: a control differs from its ticket"
    with pytest.raises(InvariantError, match=promise):  # a bug of ours: its traceback is what is wanted
        ltx("run", *RUN, f"out={tmp_path}")
    assert manifest(tmp_path)["status"] == "failed"
    assert manifest(tmp_path)["reason"] == f"InvariantError: {promise}"
