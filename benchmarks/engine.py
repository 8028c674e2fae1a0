"""How near the engine comes to this machine's limits, and how far it is from the loop that people write.

    python benchmarks/engine.py [lenet] [conv2] [resnet20]

Random images of the right shapes, so nothing is downloaded. What is compared takes turns, a few steps each, and
a ratio is the median over the turns: a busy machine slows both sides alike. Warm-up turns are not counted.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from ltx.config.compose import compose
from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket
from ltx.data.base import Data, Split
from ltx.engine.device import keep_memory
from ltx.engine.evaluate import evaluate
from ltx.engine.executors import Separate, Stacked, choose
from ltx.engine.executors.separate import layout
from ltx.engine.feed import Feed
from ltx.engine.training import Training
from ltx.experiment.machine import cpu_name
from ltx.pruning import masks
from ltx.pruning.scores import magnitude

TURNS, WARM_UP, TURN_SECONDS = 25, 3, 0.06


def measured(**sides: Callable[[], object]) -> dict[str, list[float]]:
    """Milliseconds of one call of each side in every turn; the sides take turns."""
    calls = {}
    for name, call in sides.items():
        call()
        began = time.perf_counter()
        call()
        calls[name] = max(1, round(TURN_SECONDS / (time.perf_counter() - began)))
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(WARM_UP + TURNS):
        for name, call in sides.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                call()
            if turn >= WARM_UP:
                took[name].append(1e3 * (time.perf_counter() - began) / calls[name])
    return took


def ratio(one: list[float], other: list[float]) -> float:
    return median(a / b for a, b in zip(one, other, strict=True))


def say(what: str, milliseconds: list[float] | None = None, than: str = "") -> None:
    print(
        f"  {what:58s}" + (f"{median(milliseconds):9.3f} ms   " if milliseconds else " " * 15) + than,
        flush=True,
    )


# -- what is measured -----------------------------------------------------------------------------------------


def random_data(shape: tuple[int, int, int], train: int, val: int, test: int) -> Data:
    draw = torch.Generator().manual_seed(0)

    def split(examples: int) -> Split:
        images = torch.randint(256, (examples, *shape), generator=draw, dtype=torch.uint8)
        return Split(images, torch.randint(10, (examples,), generator=draw))

    return Data.of_images(split(train), split(val), split(test), classes=10)


def tasked(data: Data, *overrides: str) -> tuple[Task, Plan]:
    run = compose(list(overrides)).run
    layers = run.layers(data.shape, data.outputs)
    return Task(run.model, data, layers, run.seeds, torch.device("cpu")), run.recipe.plan(len(data.train))


def ticket_of(task: Task, density: float) -> Ticket:
    dense = task.dense()
    kept = {name: round(density * task.layers.sizes[name]) for name in dense.mask}
    return dense.masked(masks.by_layer(magnitude(dense.weights), dense.mask, kept))


def stepping(task: Task, plan: Plan, density: float = 1.0) -> Callable[[], object]:
    """One training step of the engine, everything included."""
    round = Round(0, ticket_of(task, density), plan)
    return Training(task, round).step


def products(widths: list[int], replicates: int, batch: int, *, first: bool) -> Callable[[], None]:
    """The matrix products alone: forward, and backward to weights and inputs (of the first layer, if asked)."""
    shapes = list(pairwise(widths))
    x = [torch.randn(replicates, batch, width) for width in widths]
    weights = [torch.randn(replicates, out, into) for into, out in shapes]
    gradients = [torch.empty_like(weight) for weight in weights]

    def run() -> None:
        for i, weight in enumerate(weights):
            torch.bmm(x[i], weight.transpose(1, 2), out=x[i + 1])
        for i in reversed(range(len(weights))):
            torch.bmm(x[i + 1].transpose(1, 2), x[i], out=gradients[i])
            if i or first:
                torch.bmm(x[i + 1], weights[i], out=x[i])

    return torch.no_grad()(run)


class Pictures(VisionDataset):
    """torchvision's MNIST, but of random images: a PIL image is made and transformed for each example."""

    def __init__(self, split: Split) -> None:
        normal = transforms.Normalize((0.1307,), (0.3081,))
        super().__init__("", transform=transforms.Compose([transforms.ToTensor(), normal]))
        self.images, self.labels = split.inputs[:, 0].numpy(), split.targets.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(np.asarray(self.images[index]))), self.labels[index]


class Masked(nn.Linear):
    """A dense layer whose mask is multiplied in at every forward pass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) < 0.2).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def usual_loop(split: Split, batch: int) -> Callable[[], None]:
    """One step of one network, the way it is usually written; for R seeds it is run R times."""
    layers = [Masked(784, 300), nn.ReLU(), Masked(300, 100), nn.ReLU(), Masked(100, 10)]
    network = nn.Sequential(nn.Flatten(), *layers)
    adam = torch.optim.Adam(network.parameters(), lr=1.2e-3)
    loader = DataLoader(Pictures(split), batch_size=batch, shuffle=True)
    batches = iter(())

    def step() -> None:
        nonlocal batches
        try:
            images, labels = next(batches)
        except StopIteration:
            batches = iter(loader)
            images, labels = next(batches)
        adam.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        adam.step()

    return step


def bare_step(task: Task, plan: Plan) -> Callable[[], None]:
    """Forward, backward and optimizer of the network alone, on one batch that lies ready."""
    images, labels = (part[0] for part in Feed(task, plan).batch(0))
    network = task.network()
    images = images.contiguous(memory_format=layout(network))
    weights = list(network.parameters())
    opt: torch.optim.Optimizer
    if plan.optimizer == "adam":
        opt = torch.optim.Adam(weights, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    else:
        opt = torch.optim.SGD(weights, plan.lr, plan.momentum, weight_decay=plan.weight_decay, fused=True)

    def step() -> None:
        opt.zero_grad(set_to_none=False)
        F.cross_entropy(network(images), labels).backward()
        opt.step()

    return step


# -- what is reported -----------------------------------------------------------------------------------------


def lenet() -> None:
    print("\nLeNet-300-100, batch 60, MNIST's shape; milliseconds of a step")
    data = random_data((1, 28, 28), 55_000, 5_000, 10_000)
    widths = [784, 300, 100, 10]
    for replicates in (1, 5):
        task, plan = tasked(data, "config=mnist_lenet", f"replicates={replicates}")
        sides = measured(
            dense=stepping(task, plan),
            masked=stepping(task, plan, 0.2),
            bare=products(widths, replicates, 60, first=True),
            strict=products(widths, replicates, 60, first=False),
        )
        dense, masked, bare, strict = sides.values()
        print(f" R = {replicates}")
        say("bare matrix products", bare)
        say("  without the first layer's input gradient (unused)", strict)
        target = "   (target 1.6)" if replicates == 5 else ""
        for name, side in (("dense", dense), ("20 % of weights", masked)):
            told = f"{ratio(side, bare):.2f} x bare products, {ratio(side, strict):.2f} x without the unused"
            say(f"engine, {name}", side, told + target)

    ways = {}
    for kind in (Stacked, Separate):
        images, labels = Feed(task, plan).batch(0)
        for replicates in (1, 5):
            seeds = task.seeds[:replicates]
            some = replace(task, seeds=seeds)
            way = kind(some, Round(0, some.dense(), plan))
            part = images[:replicates], labels[:replicates], 0
            ways[f"{kind.name} R = {replicates}"] = lambda way=way, part=part: way.backward(*part)
    took = measured(**ways)
    print(f" forward and backward; the engine picks {choose(task, Round(0, task.dense(), plan)).name}")
    for name, side in took.items():
        say(name, side)

    took = measured(engine=stepping(task, plan, 0.2), usual=usual_loop(data.train, 60))
    print(" against DataLoader, transforms and a mask in each forward, R = 5, 20 % of weights")
    say("engine, 5 replicates", took["engine"])
    say("the usual loop, 1 replicate", took["usual"])
    say(
        "the usual loop is slower, per replicate and step",
        than=f"{5 * ratio(took['usual'], took['engine']):.1f} x   (target 6)",
    )

    training = Training(task, Round(0, task.dense(), plan))
    took = measured(
        step=training.step,
        evaluation=lambda: [evaluate(task.goal, training.executor, data, s) for s in (data.val, data.test)],
    )
    times = len(plan.evaluations(0))
    share = ratio([times * e for e in took["evaluation"]], [plan.steps * s for s in took["step"]])
    say("one evaluation, R = 5", took["evaluation"])
    say(f"{times} evaluations in {plan.steps} steps", than=f"{100 * share:.1f} % of training   (target 10)")

    numbers = 5 * (266_200 + 410)
    source, target = torch.empty(2, 7 * numbers // 2).unbind()
    took = measured(copy=lambda: target.copy_(source))
    speed = 7 * numbers * 4 / 1e9 / (median(took["copy"]) / 1e3)
    say("memory: Adam reads and writes 7 numbers a parameter", took["copy"], f"at {speed:.1f} GB/s, R = 5")


def convolutional(name: str, *overrides: str) -> None:
    batch = next(o.partition("=")[2] for o in overrides if o.startswith("recipe.batch_size"))
    print(f"\n{name}, batch {batch}, CIFAR-10's shape; milliseconds of a step")
    data = random_data((3, 32, 32), 5_000, 100, 100)
    for replicates in (1, 2):
        task, plan = tasked(data, *overrides, f"replicates={replicates}")
        took = measured(
            engine=stepping(task, plan), masked=stepping(task, plan, 0.2), bare=bare_step(task, plan)
        )
        print(f" R = {replicates}; the engine picks {choose(task, Round(0, task.dense(), plan)).name}")
        say("bare forward, backward and optimizer of one network", took["bare"])
        for side in ("engine", "masked"):
            share = ratio(took[side], took["bare"]) / replicates
            say(
                f"{side} per replicate",
                [t / replicates for t in took[side]],
                f"{share:.2f} x bare   (target 1.15)",
            )


def conv2() -> None:
    convolutional("Conv-2", "config=cifar10_conv2", "recipe.batch_size=60")


def resnet20() -> None:
    convolutional("ResNet-20 with crop and flip", "config=cifar10_resnet20", "recipe.batch_size=128")


if __name__ == "__main__":
    keep_memory()
    torch.set_flush_denormal(True)
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; medians of {TURNS} turns"
    )
    parts = {"lenet": lenet, "conv2": conv2, "resnet20": resnet20}
    for part in sys.argv[1:] or parts:
        parts[part]()
