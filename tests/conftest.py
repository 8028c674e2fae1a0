"""What the tests share."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from ltx.cli import main
from ltx.config.compose import compose
from ltx.experiment import lanes
from ltx.pruning import portable

TINY = ("model.hidden=[16]", "replicates=2", "method.levels=2", "recipe.steps=30", "recipe.eval_every=10")
"""The default experiment made so small that a run takes a moment."""


def compose_task(*overrides):
    """A task and its plan as the command line would make them."""
    run = compose(list(overrides)).run
    task = run.task(run.dataset.load(), torch.device("cpu"))
    return task, run.recipe.plan(len(task.data.train))


@pytest.fixture(autouse=True)
def few_threads():
    """Tests run beside each other; each keeps to one core."""
    torch.set_num_threads(1)


@dataclass
class Said:
    """What a command left behind for its caller."""

    code: int
    out: str
    err: str


@pytest.fixture
def ltx(monkeypatch, capsys):
    """The command line in this process: ltx("run", "seed=1") is `ltx run seed=1`."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ltx", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        return Said(code, *capsys.readouterr())

    return call


def spawn(*words, patch="", cwd=None):
    """The command line in a process of its own, after some lines that patch it."""
    argv = ["ltx", *map(str, words)]
    code = f"import sys; sys.argv = {argv!r}\n{patch}\nfrom ltx.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def rounds(monkeypatch):
    """The rounds that are trained, by name, from now on."""
    seen, train = [], lanes.train

    def counting(task, round, *rest):
        seen.append(f"{round.level}/{round.name}")
        return train(task, round, *rest)

    monkeypatch.setattr(lanes, "train", counting)
    return seen


@pytest.fixture(scope="session")
def needed(tmp_path_factory):
    """What a shipped experiment must be told besides its name: a ticket of its network, a folder of images."""

    def words(experiment):
        if "cats_dogs" in experiment:
            return ["dataset.root=images"]
        pixels = {"digits_transplant": 64, "mnist_to_fashion": 784, "fashion_to_mnist": 784}.get(experiment)
        if pixels is None:
            return []
        layers = {"1.weight": [300, pixels], "3.weight": [100, 300], "5.weight": [10, 100]}
        mask = {name: torch.arange(a * b).view(a, b) % 10 == 0 for name, (a, b) in layers.items()}
        about = dict.fromkeys(("level", "draw", "seed", "start"), 0) | {
            "density": 0.1,
            "config": {},
            "versions": {},
        }
        about |= dict.fromkeys(("role", "drawn", "weights", "fingerprint", "tag"), "") | {"layers": layers}
        file = tmp_path_factory.mktemp("ticket") / "ticket.safetensors"
        portable.save(file, portable.Portable(mask, {}, about))
        return [f"method.ticket={file}"]

    return words
