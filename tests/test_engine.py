"""The engine against a plain PyTorch loop, and against itself in other batches."""

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_task

from ltx import prune
from ltx.checks import Checks
from ltx.draw import order
from ltx.engine.train import train
from ltx.scores import magnitude
from ltx.ticket import Round


class Never:
    """A checkpoint that is never due."""

    def load(self):
        return None

    def due(self):
        return False

    def save(self, state):
        raise AssertionError


def trained(task, plan, ticket, start=0, keep=()):
    return train(
        task, Round(1, ticket, plan, start=start, keep=keep), Checks(), Never(), lambda step, accuracy: None
    )


def halved(task):
    """A ticket with half of every layer's weights."""
    dense = task.dense()
    kept = {name: task.layers.sizes[name] // 2 for name in dense.mask}
    return dense.masked(prune.by_layer(magnitude(dense.weights), dense.mask, kept))


def plain_loop(task, plan, ticket, r):
    """The loop that people write: one network, torch's modules and optimizers, the mask put on after each step."""
    network = task.network()
    network.load_state_dict({name: tensor[r] for name, tensor in ticket.weights.items()})
    masks = [(p, ticket.mask[name][r]) for name, p in network.named_parameters() if name in ticket.mask]
    if plan.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            network.parameters(), plan.lr, plan.momentum, 0, plan.weight_decay, plan.nesterov
        )
    data, scale = task.data, 1 / 255
    with torch.no_grad():
        for p, mask in masks:
            p *= mask
    for step in range(plan.steps):
        epoch, position = divmod(step, plan.epoch)
        indices = order(task.seeds[r], epoch, len(data.train))[position * plan.batch_size :][
            : plan.batch_size
        ]
        images = (data.train.images[indices] * scale - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
        for group in optimizer.param_groups:
            group["lr"] = plan.lr_at(step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), data.train.labels[indices]).backward()
        for p, mask in masks:
            p.grad *= mask
        optimizer.step()
    return dict(network.state_dict())


@pytest.mark.parametrize(
    "recipe",
    [
        ["recipe.optimizer=adam", "recipe.lr=1.2e-3"],
        ["recipe.optimizer=adam", "recipe.lr=1.2e-3", "recipe.weight_decay=1e-2"],
        ["recipe.optimizer=sgd", "recipe.lr=0.1"],
        [
            "recipe.optimizer=sgd",
            "recipe.lr=0.05",
            "recipe.momentum=0.9",
            "recipe.nesterov=true",
            "recipe.weight_decay=1e-3",
            "recipe.warmup=10",
            "recipe.drops=[20,30]",
        ],
    ],
)
@pytest.mark.parametrize("model", [["model=lenet", "model.hidden=[30,20]"], ["model=resnet20", "model.width=0.25"]])
def test_the_engine_equals_a_plain_loop(recipe, model):
    steps = 40 if model[0] == "model=lenet" else 6
    task, plan = compose_task(*model, *recipe, f"recipe.steps={steps}", "recipe.drops=[]", "replicates=2") if (
        "recipe.drops=[20,30]" not in recipe
    ) else compose_task(*model, *recipe[:-1], f"recipe.steps={steps}", "recipe.warmup=2", "recipe.drops=[3,5]", "replicates=2")
    ticket = halved(task)
    outcome = trained(task, plan, ticket)
    for r in range(2):
        expected = plain_loop(task, plan, ticket, r)
        for name, tensor in expected.items():
            torch.testing.assert_close(outcome.final[name][r], tensor, rtol=2e-3, atol=2e-5)
