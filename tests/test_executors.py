"""How networks are executed: surely as the user's module, however odd it is."""

import operator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_task
from helpers import halved
from odd_networks import ODD, Squashed, dense
from torch import fx, nn
from torch.nn.utils import parametrizations

import ltx as lab
from ltx.core.checks import Checks
from ltx.core.session import Session
from ltx.core.ticket import Round
from ltx.engine.executors import Channels, Separate, Stacked, graph
from ltx.engine.executors.stacked import stackable
from ltx.engine.train import train
from ltx.engine.training import Training
from ltx.errors import InvariantError
from ltx.methods.channels import ChannelRandom
from ltx.models import MODELS
from ltx.models.base import filled, tensors
from ltx.streams import drawing, order, seeded

SHORT = ("model=custom", "replicates=2", "recipe.steps=12", "recipe.eval_every=6", "prunable.output=true")


def odd(name, *overrides):
    return compose_task(*SHORT, f"model.path=odd_networks:{name}", *overrides)


def plain_loop(task, plan, ticket, r):
    """The loop that people write, with torch's own Adam, over the network as its builder made it."""
    network = filled(task.network(), {name: tensor[r] for name, tensor in ticket.start().items()})
    named = tensors(network)
    trained = [tensor for tensor in named.values() if tensor.requires_grad]
    adam = torch.optim.Adam(trained, lr=plan.lr, weight_decay=plan.weight_decay)
    data = task.data
    for step in range(plan.steps):
        seen = order(task.seeds[r], 0, len(data.train))[step * plan.batch_size :][: plan.batch_size]
        images = (data.train.inputs[seen] / 255 - data.prepare.mean.view(-1, 1, 1)) / data.prepare.std.view(
            -1, 1, 1
        )
        adam.zero_grad()
        with seeded(task.seeds[r], "dropout", step):
            F.cross_entropy(network(images), data.train.targets[seen]).backward()
        for name, alive in ticket.mask.items():
            if named[name].grad is not None:
                named[name].grad *= alive[r]
        adam.step()
    return {name: tensor.detach() for name, tensor in tensors(network).items()}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_network_is_trained_as_pytorch_trains_it(name):
    """Frozen tensors among them do not move at all, decay or not."""
    task, plan = odd(name, "recipe.weight_decay=1e-3")
    ticket, checks = halved(task), Checks()
    outcome = train(task, Round(1, ticket, plan), Session(checks))
    assert checks.passed["outputs are the network's own"] == 1
    for r in range(task.replicates):
        expected = plain_loop(task, plan, ticket, r)
        assert expected.keys() == outcome.final.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(outcome.final[key][r], tensor, rtol=2e-3, atol=2e-4)
    for key, tensor in tensors(task.network()).items():
        if not tensor.requires_grad and name.startswith("frozen"):
            assert torch.equal(outcome.final[key], ticket.start()[key]), key


@pytest.mark.parametrize("name", ODD)
def test_what_is_saved_is_what_was_measured(name, tmp_path):
    words = (*SHORT, f"model.path=odd_networks:{name}", "method.levels=1", "controls=[]", f"out={tmp_path}")
    results = lab.run(lab.compose(*words))
    images, labels = results.examples("test")
    for row in results.levels.itertuples():
        network = results.network(level=row.level, seed=row.seed)
        with seeded(row.seed, "evaluation"), torch.no_grad():
            found = network(images).argmax(1)
        assert float((found == labels).float().mean()) == pytest.approx(row.final_test_accuracy, abs=1e-6)


@pytest.mark.parametrize(
    ("sure", "make"),
    [
        (True, lambda: dense(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))),
        (True, lambda: dense(nn.Linear(8, 2))),
        (False, lambda: dense()),
        (False, lambda: nn.Sequential()),
        (False, lambda: nn.Linear(8, 2)),
        (False, lambda: dense(nn.ReLU(), nn.Linear(8, 2))),
        (False, lambda: dense(nn.Linear(8, 4), nn.ReLU())),
        (False, lambda: dense(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))),
        (False, lambda: dense(Squashed(8, 4), nn.ReLU(), nn.Linear(4, 2))),
        (False, lambda: dense(*[nn.Linear(8, 8), nn.ReLU()] * 2, nn.Linear(8, 2))),
        (False, lambda: nn.Sequential(nn.Flatten(2), nn.Linear(8, 2))),
        (False, lambda: dense(parametrizations.weight_norm(nn.Linear(8, 2)))),
        (False, lambda: dense(nn.Linear(8, 2, bias=False))),
        (False, lambda: dense(nn.Linear(8, 2).requires_grad_(requires_grad=False))),
        (False, lambda: dense(nn.Linear(8, 2).double())),
    ],
)
def test_only_a_network_that_is_surely_plain_is_stacked(sure, make):
    assert stackable(make()) is sure


def test_an_executor_that_computes_another_network_is_found_out(monkeypatch):
    outputs = Stacked.outputs
    monkeypatch.setattr(Stacked, "outputs", lambda self, inputs: outputs(self, inputs) * 1.01 + 0.05)
    task, plan = compose_task("model.hidden=[16]", "recipe.steps=2", "replicates=2")
    with pytest.raises(InvariantError, match="level 1, ticket: outputs are the network's own"):
        train(task, Round(1, halved(task), plan), Session())


# -- physically cut -------------------------------------------------------------------------------------------


def cut():
    """A task, and a round with half of its channels, as channel methods ask for it."""
    small = ("model.width=0.15", "replicates=1", "recipe.steps=4", "recipe.eval_every=2")
    task, plan = compose_task("config=digits_early_bird", "method=channel_random", *small)
    search = ChannelRandom(ratios=[0.5]).search(task, task.dense(), plan)
    next(search)
    return task, search.send(None)


def test_a_cut_network_s_leaves_lie_in_the_whole():
    task, round = cut()
    assert Channels.suits(task.network(), task, round)
    executor = Channels(task, round)
    start = round.ticket.start()
    assert all(torch.equal(tensor, start[name]) for name, tensor in executor.weights().items())
    assert sum(leaf.numel() for leaf in executor.leaves.values()) < 0.6 * sum(
        t.numel() for t in start.values()
    )
    there = executor.whole({name: torch.ones_like(leaf) for name, leaf in executor.leaves.items()})
    for name, alive in round.ticket.mask.items():
        assert torch.equal(there[name] != 0, alive), name
    back = executor.part(there)
    assert all(
        (back[name] == 1).all() and back[name].shape == leaf.shape for name, leaf in executor.leaves.items()
    )


def test_a_cut_network_trains_as_the_masked_whole_does():
    """BatchNorm and all: what is cut reaches nothing. Up to rounding, as sums are of other lengths."""
    task, round = cut()
    small = train(task, round, Session())
    whole = Training(task, replace(round, channels={}))
    assert isinstance(whole.executor, Separate)
    masked = whole.run()
    torch.testing.assert_close(small.curve.val_loss, masked.curve.val_loss, rtol=2e-2, atol=1e-3)


FUNCTIONS = {F.relu: "relu", operator.add: "add"}


def traced(network):
    """The operations as torch.fx finds them."""
    modules, nodes, places = dict(network.named_modules()), [], {}
    for node in fx.Tracer().trace(network).nodes:
        inputs = tuple(places[one] for one in node.all_input_nodes)
        module = modules[node.target] if node.op == "call_module" else None
        kind = graph.MODULES.get(type(module)) or FUNCTIONS.get(node.target, "input")
        places[node] = len(nodes)
        nodes.append(graph.Node(kind, inputs, module, node.target if module else ""))
    return nodes[:-1]  # fx has the output as a node of its own


@pytest.mark.parametrize("name", ["lenet", "lenet5", "conv6", "resnet20", "resnet110", "vgg16"])
def test_the_operations_of_a_network_are_those_that_it_does(name):
    network = MODELS[name]().build((3, 32, 32), 10)
    assert graph.read(network) == traced(network)


def test_a_module_that_stands_in_a_network_twice_is_done_twice():
    act = nn.ReLU()
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    assert [node.kind for node in graph.read(network)] == [node.kind for node in traced(network)]
    layer = nn.Linear(4, 4)
    assert graph.read(nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)) is None


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3),
        lambda: torch.randn(3),
        lambda: torch.randperm(9),
        lambda: torch.randint(100, (5,)),
        lambda: torch.randint(5, 100, (5,)),
        lambda: torch.empty(5).uniform_(),
        lambda: torch.empty(5).normal_(),
        lambda: nn.init.orthogonal_(torch.empty(4, 4)),
        lambda: nn.init.trunc_normal_(torch.empty(4, 4)),
        lambda: nn.Linear(4, 4).weight.detach(),
        lambda: F.dropout(torch.ones(20), 0.5),
        lambda: torch.bernoulli(torch.full((9,), 0.5)),
        lambda: torch.normal(torch.zeros(4), 1.0),
        lambda: torch.multinomial(torch.ones(20), 5),
        lambda: torch.rand_like(torch.ones(4)),
    ],
)
def test_what_is_drawn_comes_from_its_stream_and_leaves_the_global_generator_alone(draw):
    with seeded(3, "any"):
        expected = draw(), draw()
    state = torch.get_rng_state()
    with drawing(3, "any"):
        found = draw(), draw()
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
