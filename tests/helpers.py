"""What several test modules use."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from conftest import TINY
from safetensors import safe_open
from safetensors.torch import load_file

import ltx.engine.training
from ltx.experiment.status import Sweep
from ltx.pruning import masks
from ltx.pruning.scores import magnitude

SMALL = (*TINY, "method.levels=1", "controls=[]")
NETS = """
import os, signal
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, shape, classes):
        channels, height, width = shape
        super().__init__(nn.Flatten(), nn.Linear(channels * height * width, 8), nn.Tanh(), nn.Linear(8, classes))

class Raises(Net):
    def forward(self, x):
        if len(x) > 8 and not Path("mended").exists():  # not when it is only tried
            raise ZeroDivisionError("no weight is left")
        return super().forward(x)

class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")

class Unsendable(Net):
    def forward(self, x):
        if len(x) > 8 and not Path("mended").exists():
            raise Odd("this", "that")  # which cannot be made again from its text
        return super().forward(x)

class Exits(Net):
    def forward(self, x):
        if len(x) > 8 and not Path("mended").exists():
            raise SystemExit("goodbye")
        return super().forward(x)

class Dies(Net):
    def forward(self, x):
        if len(x) > 8 and not Path("mended").exists():  # not when it is only tried
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""


def halved(task):
    """A ticket with half of every layer's weights."""
    dense = task.dense()
    kept = {name: task.layers.sizes[name] // 2 for name in dense.mask}
    return dense.masked(masks.by_layer(magnitude(dense.weights), dense.mask, kept))


def interrupt_at(monkeypatch, nth, number=signal.SIGINT):
    """Send this process a signal in the nth step of a run."""
    advance, count = ltx.engine.training.Training.step, []

    def interrupted(self):
        advance(self)
        count.append(1)
        if len(count) == nth:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(ltx.engine.training.Training, "step", interrupted)


def plan_of(out):
    (file,) = (out / "sweeps").glob("*/sweep.json")
    return Sweep.read(file)


def states(out):
    return [job.state().name for job in plan_of(out).jobs]


def folder_of(out):
    """The folder of the only run under a folder."""
    (config,) = Path(out).rglob("config.yaml")
    return config.parent


def until(true, seconds=120):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def same_tables(one, other):
    """Two runs' numbers are equal to the last bit, times apart."""
    for name in ("levels", "curves", "layers", "masks"):
        first, second = (
            pd.read_csv(f / f"{name}.csv").drop(columns="seconds", errors="ignore") for f in (one, other)
        )
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def alive(pid):
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def ticket_on_disk(place):
    """Masks and rewind weights of a round's folder, read without ltx's own reader."""
    file, header = place / "ticket.safetensors", header_of(place / "ticket.safetensors")
    weights = load_file(place.parents[1] / "weights" / f"{header['weights']}.safetensors")
    mask = {}
    for key, bits in load_file(file).items():
        name = key.removeprefix("mask/")
        flat = np.unpackbits(bits.numpy(), axis=1, count=weights[name][0].numel()).astype(bool)
        mask[name] = torch.from_numpy(flat).view(weights[name].shape)
    return mask, weights


def header_of(file):
    """What a file of tensors says of itself."""
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["header"])


def outcome(folder):
    """Every number that a run left, but the time it took."""
    tensors = {
        f"{file.relative_to(folder)}|{key}": tensor
        for file in sorted([*folder.glob("level_*/*/*.safetensors"), *folder.glob("weights/*.safetensors")])
        for key, tensor in load_file(file).items()
        if key != "seconds"
    }
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in ("levels", "curves", "layers")}
    return tensors, {name: table.drop(columns="seconds", errors="ignore") for name, table in tables.items()}


def assert_same(folder, other):
    (tensors, tables), (others, other_tables) = outcome(folder), outcome(other)
    assert tensors.keys() == others.keys()
    for key, tensor in tensors.items():
        same_bits = [t.contiguous().view(-1).view(torch.uint8) for t in (tensor, others[key])]
        assert torch.equal(*same_bits), key
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, other_tables[name], check_exact=True)
