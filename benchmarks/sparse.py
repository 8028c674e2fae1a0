"""What a step costs by density: the survivors' engine against the masked dense one, and where they break even.

    python benchmarks/sparse.py [lenet] [digits] [conv2] [resnet20] [vgg16]

Random images and random masks of one density in every layer. The sides take turns, a few steps each. What is timed
is the process's own CPU time, one thread; a ratio is the median over the turns, the range that of its middle half.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median, quantiles

import torch
from engine import random_data, tasked, ticket_of

from ltx.core.ticket import Round
from ltx.engine.device import keep_memory
from ltx.engine.kernels.library import best
from ltx.engine.training import Training
from ltx.experiment.machine import cpu_name

DENSITIES = (0.6, 0.41, 0.2, 0.1, 0.05, 0.02)
NETWORKS = {
    "lenet": ((1, 28, 28), 10_000, ("config=mnist_lenet", "replicates=5")),
    "digits": ((1, 8, 8), 1_500, ("config=digits_lenet", "replicates=5")),
    "conv2": ((3, 32, 32), 500, ("config=cifar10_conv2", "replicates=1")),
    "resnet20": ((3, 32, 32), 500, ("config=cifar10_resnet20", "replicates=1")),
    "vgg16": ((3, 32, 32), 500, ("config=cifar10_vgg16_at_init", "replicates=1", "recipe.batch_size=64")),
}


def turns(count: int, seconds: float, **sides: Callable[[], object]) -> dict[str, list[float]]:
    """CPU milliseconds of one call of each side in every turn, after one that is not counted."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(count + 1):
        for name, call in sides.items():
            began, calls = time.process_time(), 0
            while not calls or time.process_time() - began < seconds:
                call()
                calls += 1
            took[name].append(1e3 * (time.process_time() - began) / calls)
    return {name: times[1:] for name, times in took.items()}


def measure(name: str) -> None:
    """Print a network's steps at every density, and the density at which both engines cost the same."""
    shape, examples, words = NETWORKS[name]
    task, plan = tasked(random_data(shape, examples, 100, 100), *words)
    points = []
    for density in DENSITIES:
        round = Round(1, ticket_of(task, density), plan)
        engines = {
            engine: Training(replace(task, engine=engine), round).step for engine in ("dense", "kernel")
        }
        took = turns(7, 0.1, **engines)
        ratios = [ours / dense for ours, dense in zip(took["kernel"], took["dense"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        points.append((density, median(ratios)))
        dense, ours = median(took["dense"]), median(took["kernel"])
        print(
            f"  density {density:4.2f}: dense {dense:8.2f} ms, kernel {ours:8.2f} ms, "
            f"{median(ratios):.2f} of the dense step ({low:.2f}..{high:.2f})",
            flush=True,
        )
    print(f"  break-even density: {break_even(points)}")


def break_even(points: list[tuple[float, float]]) -> str:
    """Where the ratio crosses one, between the measured densities."""
    for (more, above), (less, below) in zip(points, points[1:], strict=False):
        if above >= 1 > below:
            return f"{less + (more - less) * (1 - below) / (above - below):.2f}"
    return f"above {points[0][0]}" if points[0][1] < 1 else f"below {points[-1][0]}"


def main() -> None:
    build = best()
    assert build is not None, "the kernels were not compiled"
    torch.set_num_threads(1)
    keep_memory()
    torch.set_flush_denormal(True)
    for name in sys.argv[1:] or NETWORKS:
        print(f"{name}, kernels {build.name}, one thread of {cpu_name()}", flush=True)
        measure(name)


if __name__ == "__main__":
    main()
