"""Training with the survivors alone: what the masked dense engine computes, and nothing else."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import compose_task
from helpers import SMALL, assert_same, interrupt_at

from ltx.core.session import Never, Session
from ltx.core.ticket import Round, Ticket
from ltx.engine.executors import Separate, Sparse, Stacked, choose, sparse
from ltx.engine.feed import Feed
from ltx.engine.kernels.library import best
from ltx.engine.optimizer import Optimizer
from ltx.engine.train import train
from ltx.engine.training import Training

ENGINES = [pytest.param("kernel", marks=pytest.mark.skipif(not best(), reason="no C compiler")), "csr"]
LENET = ("model.hidden=[24, 12]", "recipe.batch_size=21", "prunable.output=true", "replicates=2")
"""21 examples cannot hold ten classes equally often: a bias whose gradient is zero but for rounding is Adam's 0/0."""


def drawn(task, density, *, seed=0):
    """A ticket of random masks, other ones in every replicate."""
    dense, draw = task.dense(), torch.Generator().manual_seed(seed)
    mask = {name: torch.rand(alive.shape, generator=draw) < density for name, alive in dense.mask.items()}
    return dense.masked(mask)


def double(ticket):
    weights = {n: t.double() if t.is_floating_point() else t for n, t in ticket.weights.items()}
    return Ticket(weights, ticket.mask)


def without_rows(ticket):
    """Units that nothing reaches, inputs that nobody reads, and a layer with one weight left."""
    mask = {name: alive.clone() for name, alive in ticket.mask.items()}
    first, second, last = mask.values()
    first[0, 3], first[1, :, :7] = False, False
    second[:] = False
    second[0, 2, 5] = second[1, 11, 0] = True
    last[:, 4] = False
    return ticket.masked(mask)


def distance(task, plan, ticket, steps, *, reference=Stacked):
    """The largest differences of weights and outputs after training in float64, and the two executors."""
    feed, round = Feed(task, plan), Round(1, double(ticket), plan)
    ours, theirs = Sparse(task, round), reference(task, round)
    optimizers = [Optimizer(plan, one.leaves, one.gradients, one.blocks()) for one in (ours, theirs)]
    for step in range(steps):
        inputs, targets = feed.batch(step)
        for executor, optimizer in zip((ours, theirs), optimizers, strict=True):
            executor.backward(inputs.double(), targets, step)
            executor.mask_gradients()
            optimizer.step(plan.lr_at(step))
    pairs = [(tensor, theirs.weights()[name]) for name, tensor in ours.weights().items()]
    images = task.data.prepare(task.data.val.inputs[:70]).double()
    pairs.append((ours.outputs(images).float(), theirs.outputs(images).float()))
    *weights, outputs = [float((one - other).abs().max()) for one, other in pairs]
    for name, alive in ticket.mask.items():
        assert not ours.weights()[name][~alive].any(), name
    return max(weights), outputs


# -- the masked dense engine's result -------------------------------------------------------------------------

RECIPES = {
    "adam": (),
    "adam with decay": ("recipe.weight_decay=1e-2",),
    "sgd": ("recipe.optimizer=sgd", "recipe.lr=0.1"),
    "adamw": ("recipe.optimizer=adamw", "recipe.weight_decay=1e-2", "recipe.schedule=cosine"),
    "momentum": ("recipe.optimizer=sgd", "recipe.lr=0.05", "recipe.momentum=0.9", "recipe.weight_decay=1e-3"),
    "nesterov": ("recipe.optimizer=sgd", "recipe.lr=0.05", "recipe.momentum=0.9", "recipe.nesterov=true"),
    "warm-up and drops": ("recipe.warmup=20", "recipe.drops=[60,120]"),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_200_steps_in_float64_end_at_the_same_weights(engine, recipe):
    task, plan = compose_task(*LENET, f"engine={engine}", "recipe.steps=200", *RECIPES[recipe])
    weights, outputs = distance(task, plan, drawn(task, 0.3), 200)
    assert weights < 1e-12
    assert outputs < 1e-5


@pytest.mark.parametrize("density", [0.02, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_density(engine, density):
    task, plan = compose_task(*LENET, f"engine={engine}", "recipe.steps=200")
    assert distance(task, plan, drawn(task, density), 200)[0] < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_rows_empty_columns_and_one_weight_left(engine):
    task, plan = compose_task(*LENET, f"engine={engine}", "recipe.steps=200")
    assert distance(task, plan, without_rows(drawn(task, 0.3)), 200)[0] < 1e-12


@pytest.mark.parametrize("size", [1, 16, 17, 64, 99])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_batch(engine, size):
    task, plan = compose_task(*LENET, f"engine={engine}", "recipe.steps=20", f"recipe.batch_size={size}")
    assert distance(task, plan, drawn(task, 0.3), 20)[0] < 1e-12


IMAGES = {
    "conv2": ("model=conv2", "model.width=0.1"),
    "conv4, layers beside": ("model=conv4", "model.width=0.15", "prunable.conv=false"),
    "vgg8": ("model=vgg8", "model.width=0.1"),
    "resnet20": ("model=resnet20", "model.width=0.25"),
}
"""Networks of images, digits' 8x8: pools, BatchNorms, residual sums, strides, layers that nothing was pruned from."""


@pytest.mark.skipif(not best(), reason="installed without a C compiler")
@pytest.mark.parametrize("model", IMAGES)
def test_convolutional_networks(model):
    task, plan = compose_task(*IMAGES[model], "engine=kernel", "recipe.batch_size=21", "replicates=2")
    weights, outputs = distance(task, plan, drawn(task, 0.3), 5, reference=Separate)
    assert weights < 1e-12
    assert outputs < 1e-5


@pytest.mark.skipif(not best(), reason="installed without a C compiler")
@pytest.mark.parametrize("model", ["conv2", "vgg8", "resnet20"])
def test_convolutional_networks_in_a_batch_of_seeds(model):
    words = (*IMAGES[model], "engine=kernel", "recipe.steps=4", "recipe.eval_every=2", "recipe.batch_size=21")
    task, plan = compose_task(*words, "replicates=2")
    ticket = drawn(task, 0.3)
    together = train(task, Round(1, ticket, plan), Session())
    alone = train(task.only(1), Round(1, ticket.only(1), plan), Session())
    assert all(torch.equal(tensor[0], together.final[name][1]) for name, tensor in alone.final.items())


def test_whatever_is_not_worth_it_runs_dense_beside(monkeypatch):
    """Layers of one network by kernel and dense, other ones in each replicate."""
    task, plan = compose_task(*LENET, "engine=auto", "recipe.steps=200")
    ticket = drawn(task, 0.3)
    mask = {name: alive.clone() for name, alive in ticket.mask.items()}
    next(iter(mask.values()))[0], list(mask.values())[1][1] = True, True
    ticket = ticket.masked(mask)
    executor = Sparse(task, Round(1, ticket, plan))
    kinds = [set(ways) for ways in executor.ways.values()]
    assert [len(kind) for kind in kinds] == [2, 2, 1]
    assert distance(task, plan, ticket, 200)[0] < 1e-12


def test_float32_is_as_near_as_a_last_bit():
    """Nearer than the dense engine is to itself, started one unit in the last place away."""
    task, plan = compose_task(*LENET, "engine=auto", "recipe.steps=200", "recipe.eval_every=200")
    ticket = drawn(task, 0.2)
    dense = replace(task, engine="dense")
    nudged = ticket.rewound(
        {
            name: torch.nextafter(tensor, torch.full_like(tensor, torch.inf))
            for name, tensor in ticket.weights.items()
        }
    )
    ours, theirs, away = (
        train(one, Round(1, start, plan), Session()).final
        for one, start in ((task, ticket), (dense, ticket), (dense, nudged))
    )
    apart = lambda one, other: torch.cat([(one[n] - other[n]).abs().flatten() for n in one]).mean()
    assert apart(ours, theirs) < 2 * apart(away, theirs) < 1e-3


# -- the promises of every engine -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_of_seeds_equals_single_seeds_bit_for_bit(engine):
    words = (*LENET[:3], f"engine={engine}", "recipe.steps=30", "recipe.eval_every=15")
    task, plan = compose_task(*words, "replicates=3")
    ticket = drawn(task, 0.25)
    together = train(task, Round(1, ticket, plan), Session())
    for r in range(3):
        alone = train(task.only(r), Round(1, ticket.only(r), plan), Session())
        assert alone.engine == together.engine
        for name, tensor in alone.final.items():
            assert torch.equal(tensor[0], together.final[name][r]), name
        assert torch.equal(alone.curve.val_loss[0], together.curve.val_loss[r])


def test_replicates_on_two_sides_of_the_break_even_are_executed_as_if_alone():
    task, plan = compose_task(*LENET, "engine=auto", "recipe.steps=10", "recipe.eval_every=5")
    mask = {name: alive.clone() for name, alive in drawn(task, 0.2).mask.items()}
    for alive in mask.values():
        alive[1] = True
    ticket = task.dense().masked(mask)
    together = train(task, Round(1, ticket, plan), Session())
    for r, name in enumerate((sparse.Sparse, Stacked)):
        assert choose(task.only(r), Round(1, ticket.only(r), plan)) is name
        alone = train(task.only(r), Round(1, ticket.only(r), plan), Session())
        for key, tensor in alone.final.items():
            assert torch.equal(tensor[0], together.final[key][r]), key


@pytest.mark.parametrize("engine", ENGINES)
def test_one_and_two_threads_give_the_same_bits(engine):
    task, plan = compose_task(*LENET, f"engine={engine}", "recipe.steps=20", "recipe.eval_every=10")
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(train(task, Round(1, drawn(task, 0.2), plan), Session()).final)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_leaves_are_survivors():
    task, plan = compose_task(*LENET, "engine=auto")
    executor = Sparse(task, Round(1, drawn(task, 0.1), plan))
    start = drawn(task, 0.1).start()
    assert all(torch.equal(tensor, start[name]) for name, tensor in executor.weights().items())
    assert sum(leaf[0].numel() for leaf in executor.leaves.values()) < 0.2 * task.layers.total
    there = executor.whole({name: torch.ones_like(leaf) for name, leaf in executor.leaves.items()})
    back = executor.part(there)
    for name, alive in executor.mask.items():
        assert torch.equal(there[name] != 0, alive)
        assert torch.equal(back[name].count_nonzero(1), alive.flatten(1).sum(1))


class Kept(Never):
    """A checkpoint in memory, asked for at a step."""

    def __init__(self, at):
        self.at, self.asked, self.state = at, 0, None

    def load(self):
        return self.state

    def due(self):
        self.asked += 1
        return self.asked == self.at

    def save(self, state):
        self.state = {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resumed_round_ends_at_the_same_bits(engine):
    words = (*LENET, f"engine={engine}", "recipe.steps=30", "recipe.eval_every=10", "recipe.optimizer=sgd",
             "recipe.momentum=0.9", "recipe.lr=0.05")  # fmt: skip
    task, plan = compose_task(*words)
    round, kept = Round(1, drawn(task, 0.2), plan), Kept(14)
    whole = train(task, round, Session(checkpoint=kept))
    kept.at = 0
    resumed = Training(task, round, Session(checkpoint=kept))
    again = resumed.run()
    assert all(torch.equal(tensor, again.final[name]) for name, tensor in whole.final.items())
    assert torch.equal(whole.curve.val_loss, again.curve.val_loss)


def test_a_checkpoint_of_another_engine_begins_the_round_again():
    task, plan = compose_task(*LENET, "engine=auto", "recipe.steps=20", "recipe.eval_every=10")
    round, kept = Round(1, drawn(task, 0.2), plan), Kept(14)
    dense = replace(task, engine="dense")
    train(dense, round, Session(checkpoint=kept))
    kept.at = 0
    steps = []
    ours = train(task, round, Session(checkpoint=kept, tick=lambda step, measured: steps.append(step)))
    assert steps[0] == 0
    assert torch.equal(ours.final["1.weight"], train(task, round, Session()).final["1.weight"])


# -- which engine ---------------------------------------------------------------------------------------------


def test_auto_decides_by_density_and_what_is_compiled(monkeypatch):
    task, plan = compose_task(*LENET, "engine=auto")
    way = lambda density: choose(task, Round(1, drawn(task, density), plan))
    build = lambda density: way(density)(task, Round(1, drawn(task, density), plan)).build.split()[0]
    if best():
        assert way(0.5) is Stacked
        assert build(0.3) == "kernel"
    monkeypatch.setattr(sparse, "best", lambda: None)
    assert way(0.35) is Stacked
    assert build(0.15) == "csr"


def test_dense_stays_dense_and_nothing_pruned_too():
    task, plan = compose_task(*LENET, "engine=dense")
    assert choose(task, Round(1, drawn(task, 0.1), plan)) is Stacked
    task = replace(task, engine="auto")
    assert choose(task, Round(0, task.dense(), plan)) is Stacked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine=fast"], "engine=fast"),
        (["engine=csr", "recipe.precision=bfloat16"], "it needs recipe.precision=float32, not bfloat16"),
        (["engine=csr", "model=resnet20"], "it does not know all of this network's layers"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(ltx, words, said):
    answer = ltx("run", *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_a_run_says_of_every_round_what_computed_it(tmp_path, ltx):
    assert ltx("run", *SMALL, "engine=csr", f"out={tmp_path}").code == 0
    (levels,) = tmp_path.rglob("levels.csv")
    assert pd.read_csv(levels).engine.tolist() == ["stacked", "stacked", "csr", "csr"]


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, ltx):
    words = ("run", *SMALL, "engine=csr")
    assert ltx(*words, f"out={tmp_path / 'whole'}").code == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 47)
        assert ltx(*words, f"out={tmp_path / 'stopped'}").code == 130
    assert ltx(*words, f"out={tmp_path / 'stopped'}").code == 0
    whole, stopped = (next((tmp_path / name).rglob("levels.csv")).parent for name in ("whole", "stopped"))
    assert_same(whole, stopped)
