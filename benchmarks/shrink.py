"""How much faster a network trains when its channels are really gone.

    python benchmarks/channels.py [device] [batch size]

VGG-16 on images of CIFAR-10's shape, random pixels, random channels cut from every layer alike. The networks
take turns, one training step each by ltx's own engine, and a speed-up is the median over the turns: a busy
machine slows all of them alike. Warm-up turns are not counted; operations are PyTorch's own count.
"""

import sys
import time
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from ltx.config.compose import compose
from ltx.core.task import Task
from ltx.core.ticket import Round
from ltx.data.base import Data, Pixels, Split
from ltx.engine.device import keep_memory
from ltx.engine.training import Training
from ltx.experiment.cost import macs
from ltx.experiment.machine import machine
from ltx.pruning import channels
from ltx.streams import stream

RATIOS, TURNS, WARM_UP = (0.0, 0.3, 0.5, 0.7), 9, 1


def task_of(device: torch.device, batch: int) -> tuple[Task, Round]:
    """VGG-16 as cifar10_vgg16_early_bird has it, on noise, and its dense round."""
    run = compose(["config=cifar10_vgg16_early_bird", "replicates=1", f"recipe.batch_size={batch}"]).run
    images = torch.randint(0, 256, (4 * batch, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (4 * batch,)))
    prepare = Pixels(torch.full((3,), 0.5), torch.full((3,), 0.25))
    data = Data(split, split, split, 10, prepare, "noise").to(device)
    task = Task(run.model, data, run.layers((3, 32, 32), 10), run.seeds, device)
    return task, Round(0, task.dense(), run.recipe.plan(len(split)))


def training(task: Task, round: Round, ratio: float) -> tuple[Training, int]:
    """A training of what is left at a ratio, and the multiply-accumulates of one example."""
    groups = channels.groups(task.network(), task.data.shape, task.layers.prunable)
    kept = {name: cut(group.channels, ratio) for name, group in groups.items()}
    small = channels.shrunk(task.network(), task.data.shape, kept)
    one = replace(round, level=1, channels={name: alive[None] for name, alive in kept.items()})
    return Training(task, one), macs(small.network, task.data.shape)


def cut(channels: int, ratio: float) -> Tensor:
    """Which channels of a layer stay."""
    kept = torch.zeros(channels, dtype=torch.bool)
    kept[torch.randperm(channels, generator=stream(0, channels, ratio))[round(channels * ratio) :]] = True
    return kept


def step(side: Training, device: torch.device) -> float:
    """Seconds of one training step."""
    began = time.perf_counter()
    side.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main(name: str = "cpu", batch: str = "256") -> None:
    keep_memory()
    torch.set_flush_denormal(True)
    device = torch.device(name)
    task, dense = task_of(device, int(batch))
    sides = {ratio: training(task, dense, ratio) for ratio in RATIOS}
    took: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    for turn in range(WARM_UP + TURNS):
        for ratio, (side, _) in sides.items():
            seconds = step(side, device)
            if turn >= WARM_UP:
                took[ratio].append(seconds)
    where = machine(device)
    print(f"{where['device']}, {where['threads']} threads, torch {torch.__version__}, batch {batch}")
    print(f"{'pruned':>8} {'ms a step':>10} {'speed-up':>9} {'fewer operations':>17}")
    for ratio, (_, count) in sides.items():
        faster = median(a / b for a, b in zip(took[0.0], took[ratio], strict=True))
        fewer = sides[0.0][1] / count
        print(f"{ratio:8.0%} {1e3 * median(took[ratio]):10.1f} {faster:8.2f}x {fewer:16.2f}x")


if __name__ == "__main__":
    main(*sys.argv[1:])
