"""The engine against a plain PyTorch loop, and against itself in other batches."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_task
from helpers import halved

from ltx.core.session import Session
from ltx.core.ticket import Curve, Hooks, Round, Ticket
from ltx.engine.executors import Separate, Stacked, choose
from ltx.engine.train import train
from ltx.engine.training import Training
from ltx.streams import derive, order

LENET = ("model=lenet", "model.hidden=[30,20]")
CONV = ("model=conv2", "model.width=0.05", "model.dropout=0.5")
RESNET = ("model=resnet20", "model.width=0.1")


def trained(task, plan, ticket, **round):
    return train(task, Round(1, ticket, plan, **round), Session())


# -- against the loop that people write -----------------------------------------------------------------------


def plain_loop(task, plan, ticket, r):
    """One network with torch's modules and optimizers, its gradients masked before each step."""
    network = task.network()
    network.load_state_dict({name: tensor[r] for name, tensor in ticket.weights.items()})
    masks = [(p, ticket.mask[name][r]) for name, p in network.named_parameters() if name in ticket.mask]
    if plan.optimizer != "sgd":
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[plan.optimizer]
        optimizer = kind(network.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            network.parameters(), plan.lr, plan.momentum, 0, plan.weight_decay, plan.nesterov
        )
    data = task.data
    with torch.no_grad():
        for p, mask in masks:
            p *= mask
    for step in range(plan.steps):
        epoch, position = divmod(step, plan.epoch)
        indices = order(task.seeds[r], epoch, len(data.train))[position * plan.batch_size :][
            : plan.batch_size
        ]
        images = (
            data.train.inputs[indices] / 255 - data.prepare.mean.view(-1, 1, 1)
        ) / data.prepare.std.view(-1, 1, 1)
        for group in optimizer.param_groups:
            group["lr"] = plan.lr_at(step)
        optimizer.zero_grad()
        torch.manual_seed(derive(task.seeds[r], "dropout", step))
        smoothing = task.goal.label_smoothing
        F.cross_entropy(network(images), data.train.targets[indices], label_smoothing=smoothing).backward()
        for p, mask in masks:
            p.grad *= mask
        if plan.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
        optimizer.step()
    return network.state_dict()


RECIPES = {
    "adam": ("recipe.optimizer=adam", "recipe.lr=1.2e-3"),
    "adam with decay": ("recipe.optimizer=adam", "recipe.lr=1.2e-3", "recipe.weight_decay=1e-2"),
    "adamw, cosine": (
        *("recipe.optimizer=adamw", "recipe.lr=1.2e-3", "recipe.weight_decay=1e-2"),
        *("recipe.schedule=cosine", "recipe.warmup=2"),
    ),
    "clipped, smoothed": (
        *("recipe.optimizer=sgd", "recipe.lr=0.1", "recipe.clip_norm=0.3", "recipe.schedule=linear"),
        *("goal=classification", "goal.label_smoothing=0.1"),
    ),
    "sgd": ("recipe.optimizer=sgd", "recipe.lr=0.1"),
    "sgd with everything": (
        *("recipe.optimizer=sgd", "recipe.lr=0.05", "recipe.momentum=0.9", "recipe.nesterov=true"),
        *("recipe.weight_decay=1e-3", "recipe.warmup=2", "recipe.drops=[4,5]"),
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("model", "steps"), [(LENET, 40), (CONV, 6), (RESNET, 6)], ids=["lenet", "conv2", "resnet20"]
)
def test_the_engine_equals_a_plain_loop(recipe, model, steps):
    task, plan = compose_task(*model, *RECIPES[recipe], f"recipe.steps={steps}", "replicates=2")
    ticket = halved(task)
    outcome = trained(task, plan, ticket)
    # Adam divides a gradient by its own size: where the gradient of a weight is float noise (a bias before
    # BatchNorm has none in exact arithmetic), its sign is noise too, and each step moves it by up to lr.
    atol = 2e-5 if plan.optimizer == "sgd" or model is LENET else 2 * plan.lr * steps
    for r in range(task.replicates):
        for name, tensor in plain_loop(task, plan, ticket, r).items():
            ours = outcome.final[name][r]
            torch.testing.assert_close(ours, tensor, rtol=2e-3, atol=atol)
            if tensor.is_floating_point():  # and such noise is rare
                assert (ours - tensor).abs().median() < 1e-5, name


# -- replicates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [LENET, CONV, RESNET], ids=["stacked", "dropout", "batchnorm"])
class TestReplicates:
    def outcome(self, model, *overrides, seeds=None):
        task, plan = compose_task(*model, "recipe.steps=6", "recipe.eval_every=3", *overrides)
        return trained(replace(task, seeds=seeds), plan, halved(replace(task, seeds=seeds)))

    def test_a_replicate_does_not_know_its_neighbours(self, model):
        """The same bits, whoever trains beside it."""
        one, other = (self.outcome(model, seeds=seeds) for seeds in ((3, 4, 5), (3, 8, 9)))
        assert all(torch.equal(one.final[name][0], other.final[name][0]) for name in one.final)
        for key, values in one.curve.tree().items():
            torch.testing.assert_close(values[0], other.curve.tree()[key][0], rtol=0, atol=0, equal_nan=True)
        assert any(not torch.equal(one.final[name][1], other.final[name][1]) for name in one.final)

    @pytest.mark.parametrize("optimizer", ["recipe.optimizer=adam", "recipe.optimizer=sgd"])
    def test_a_batch_equals_single_runs(self, model, optimizer):
        """Bit for bit: the seeds of a run may be split over jobs."""
        batch = self.outcome(model, optimizer, "recipe.lr=0.01", seeds=(3, 4, 5))
        for r, seed in enumerate((3, 4, 5)):
            alone = self.outcome(model, optimizer, "recipe.lr=0.01", seeds=(seed,))
            assert all(torch.equal(batch.final[name][r], alone.final[name][0]) for name in alone.final)
            for key in ("train_loss", "val_loss", "val_measure", "test_measure"):
                beside, single = getattr(batch.curve, key)[r], getattr(alone.curve, key)[0]
                torch.testing.assert_close(beside, single, rtol=0, atol=0, equal_nan=True)

    def test_the_same_training_twice_is_the_same_bits(self, model):
        one, other = (
            self.outcome(model, "recipe.momentum=0.9", "recipe.optimizer=sgd", seeds=(0, 1)) for _ in "ab"
        )
        assert all(torch.equal(one.final[name], other.final[name]) for name in one.final)


def test_a_diverged_replicate_is_marked_and_the_others_do_not_notice():
    task, plan = compose_task(*LENET, "replicates=3", "recipe.steps=20", "recipe.eval_every=10")
    dense = task.dense()
    wild = {name: tensor.clone() for name, tensor in dense.weights.items()}
    for tensor in wild.values():
        tensor[1] = 1e30
    calm, storm = trained(task, plan, dense), trained(task, plan, dense.rewound(wild))
    assert calm.diverged.tolist() == [False, False, False]
    assert storm.diverged.tolist() == [False, True, False]
    assert all(torch.equal(calm.final[name][[0, 2]], storm.final[name][[0, 2]]) for name in calm.final)


def test_a_huge_learning_rate_is_marked_too():
    task, plan = compose_task(
        *LENET, "replicates=2", "recipe.optimizer=sgd", "recipe.lr=1e30", "recipe.steps=20"
    )
    outcome = trained(task, plan, halved(task))
    assert outcome.diverged.all()
    assert outcome.steps.tolist() == [20, 20]


# -- pruned weights -------------------------------------------------------------------------------------------


SLOTS = {  # of a weight's shape
    **dict.fromkeys(["adam", "adam with decay", "adamw, cosine"], 2),
    **dict.fromkeys(["sgd", "clipped, smoothed"], 0),
    "sgd with everything": 1,
}


def leaks(training, ticket, steps=12):
    """Whether a pruned weight or what the optimizer remembers of it was other than 0 after some step."""
    looked, wrong = 0, 0
    for _ in range(steps):
        training.step()
        remembered = training.optimizer.state()
        for name, alive in ticket.mask.items():
            beside = [value for key, value in remembered.items() if key.startswith(f"{name}|")]
            slots = [value for value in beside if value.shape == alive.shape]
            looked += len(slots)
            wrong += sum(
                bool((tensor[~alive] != 0).any()) for tensor in (training.executor.weights()[name], *slots)
            )
    return looked, wrong > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_pruned_weights_and_their_optimizer_state_are_exactly_zero_after_every_step(recipe):
    task, plan = compose_task(*LENET, *RECIPES[recipe], "recipe.steps=12", "replicates=2")
    ticket = halved(task)
    training = Training(task, Round(1, ticket, plan))
    looked, leaked = leaks(training, ticket)
    assert looked == 12 * len(ticket.mask) * SLOTS[recipe]
    assert not leaked
    for name, alive in ticket.mask.items():
        assert (training.executor.weights()[name][alive] != ticket.weights[name][alive]).any()


@pytest.mark.parametrize("recipe", ["adam", "sgd with everything"])
@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_a_forgotten_mask_would_be_seen_at_the_first_step(recipe, what):
    """The test above looks where a leak shows: in the weights, or in the optimizer if the weights are masked."""
    task, plan = compose_task(*LENET, *RECIPES[recipe], "recipe.steps=12", "replicates=2")
    ticket = halved(task)

    def project(weights, rate, memo):
        for name, alive in ticket.mask.items():
            weights[name].mul_(alive)

    hooks = Hooks(project=project if what == "optimizer" else None)
    training = Training(task, Round(1, ticket, plan, hooks=hooks))
    training.executor.alive = {}
    assert leaks(training, ticket, steps=1)[1]


def test_training_leaves_its_ticket_alone():
    task, plan = compose_task(*RESNET, "recipe.steps=3")
    ticket = halved(task)
    before = {name: tensor.clone() for name, tensor in ticket.weights.items()}
    trained(task, plan, ticket)
    assert all(torch.equal(before[name], ticket.weights[name]) for name in before)


# -- rewinding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [LENET, CONV, RESNET], ids=["stacked", "dropout", "batchnorm"])
def test_from_step_k_a_rewound_training_sees_what_the_dense_one_saw(model):
    """Plain SGD has no state, so the dense weights of step k, trained from k, end in the same bits."""
    task, plan = compose_task(
        *model,
        *("recipe.optimizer=sgd", "recipe.lr=0.05", "recipe.warmup=4", "recipe.drops=[24]"),
        *("recipe.steps=26", "recipe.eval_every=10", "replicates=2"),  # an epoch is 20 steps
    )
    dense = task.dense()
    whole = trained(task, plan, dense, keep=(0, 3, 26))
    again = trained(task, plan, Ticket(whole.at[3], dense.mask), start=3)
    assert all(torch.equal(whole.final[name], again.final[name]) for name in whole.final)
    assert all(torch.equal(whole.at[0][name], dense.weights[name]) for name in dense.weights)
    assert all(torch.equal(whole.at[26][name], whole.final[name]) for name in whole.final)
    assert again.steps.tolist() == [23, 23]
    assert again.curve.step.tolist() == [3, 20, 26]


# -- measuring ------------------------------------------------------------------------------------------------


def test_early_stop_is_the_first_least_validation_loss_and_never_a_nan():
    val_loss = torch.tensor([[3.0, 1.0, 2.0, 1.0], [torch.nan, 4.0, torch.inf, 3.0], [torch.nan] * 4])
    rest = [torch.zeros(3, 4)] * 3
    curve = Curve(torch.arange(4), rest[0], val_loss, *rest[1:])
    assert curve.early_stop().tolist() == [1, 3, 0]


@pytest.mark.parametrize("model", [LENET, CONV, RESNET], ids=["stacked", "dropout", "batchnorm"])
def test_the_curve_says_what_a_plain_evaluation_says(model):
    task, plan = compose_task(*model, "recipe.steps=5", "recipe.eval_every=2", "replicates=2")
    outcome = trained(task, plan, halved(task))
    assert outcome.curve.step.tolist() == [0, 2, 4, 5]
    data = task.data
    for r in range(2):
        network = task.network().eval()
        network.load_state_dict({name: tensor[r] for name, tensor in outcome.final.items()})
        for split, name in ((data.val, "val"), (data.test, "test"), (data.train, "train")):
            images = (split.inputs / 255 - data.prepare.mean.view(-1, 1, 1)) / data.prepare.std.view(-1, 1, 1)
            with torch.no_grad():
                logits = network(images)
            accuracy = float((logits.argmax(1) == split.targets).float().mean())
            if name == "val":
                loss = F.cross_entropy(logits, split.targets)
                torch.testing.assert_close(outcome.curve.val_loss[r, -1], loss, rtol=1e-4, atol=1e-5)
            ours = (
                outcome.train_measure[r]
                if name == "train"
                else getattr(outcome.curve, f"{name}_measure")[r, -1]
            )
            assert float(ours) == pytest.approx(accuracy, abs=1.1 / len(split))


def test_train_loss_is_the_mean_over_the_batches_since_the_last_evaluation():
    task, plan = compose_task(*LENET, "recipe.steps=10", "recipe.eval_every=5", "replicates=1")
    losses = []
    training = Training(task, Round(0, task.dense(), plan))
    backward = training.executor.backward
    training.executor.backward = lambda *batch: losses.append(backward(*batch)) or losses[-1]
    curve = training.run().curve
    assert curve.train_loss[0, 0].isnan()  # nothing was trained yet
    for e, (first, last) in enumerate(pairwise([0, 5, 10]), start=1):
        torch.testing.assert_close(curve.train_loss[0, e], torch.cat(losses[first:last]).mean())


# -- the seam -------------------------------------------------------------------------------------------------


def test_plain_dense_networks_are_stacked_and_others_are_not():
    for model, kind in ((LENET, Stacked), (CONV, Separate), (RESNET, Separate)):
        task, plan = compose_task(*model)
        round = Round(0, task.dense(), plan)
        assert choose(task, round) is kind
    task, plan = compose_task(*LENET)
    assert choose(task, Round(0, task.dense(), replace(plan, precision="bfloat16"))) is Separate


@pytest.mark.parametrize("hidden", ["[]", "[7]", "[9,8,7]"])
def test_stacked_gradients_are_autograd_s(hidden):
    task, plan = compose_task("model=lenet", f"model.hidden={hidden}", "replicates=3", "recipe.batch_size=5")
    dense = task.dense()
    images = torch.randn(3, 5, *task.data.shape)
    labels = torch.randint(0, 10, (3, 5))
    stacked, separate = (way(task, Round(0, dense, plan)) for way in (Stacked, Separate))
    losses = [way.backward(images, labels, 0) for way in (stacked, separate)]
    torch.testing.assert_close(*losses)
    for name in separate.gradients:
        torch.testing.assert_close(stacked.gradients[name], separate.gradients[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*(way.outputs(images[0]) for way in (stacked, separate)), rtol=1e-4, atol=1e-5)


def test_bfloat16_trains_to_about_the_same():
    task, plan = compose_task(*LENET, "recipe.steps=60", "recipe.precision=bfloat16")
    rough, exact = (trained(task, p, task.dense()) for p in (plan, replace(plan, precision="float32")))
    assert rough.final["1.weight"].dtype == torch.float32
    assert float((rough.curve.test_measure[0, -1] - exact.curve.test_measure[0, -1]).abs()) < 0.1


# -- hooks ----------------------------------------------------------------------------------------------------


def test_a_penalty_adds_to_the_gradient_and_a_projection_follows_the_step():
    task, plan = compose_task(*LENET, "recipe.optimizer=sgd", "recipe.lr=0.1", "recipe.steps=1")
    dense, seen = task.dense(), []

    def penalty(weights, gradients):
        gradients["1.bias"] += 5.0

    def project(weights, rate, memo):
        seen.append(rate)
        weights["3.bias"].fill_(7.0)

    plain, hooked = (trained(task, plan, dense, hooks=h) for h in (Hooks(), Hooks(penalty, project)))
    torch.testing.assert_close(hooked.final["1.bias"], plain.final["1.bias"] - 0.5)
    assert (hooked.final["3.bias"] == 7).all()
    assert seen == [0.1]
