"""What the tests share."""

import pytest
import torch

from ltx.config import compose
from ltx.task import Task


def compose_task(*overrides):
    """A task and its plan as the command line would make them."""
    run = compose(list(overrides)).run
    data = run.dataset.load()
    layers = run.layers(tuple(data.train.images.shape[1:]), data.classes)
    return Task(run.model, data, layers, run.seeds, torch.device("cpu")), run.recipe.plan(len(data.train))


@pytest.fixture(autouse=True)
def few_threads():
    """Tests run beside each other; each keeps to one core."""
    torch.set_num_threads(1)
