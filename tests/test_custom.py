"""Data of the user's own: what is taken, what is refused in one line, and sets larger than memory."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from ltx.data.mapped import Mapped

MODULE = """
import numpy as np, torch

generator = np.random.default_rng(0)

def examples(n, classes=3):
    targets = np.arange(n) % classes
    inputs = generator.normal(size=(n, 5)).astype(np.float32)
    inputs[:, 0] += 3 * targets
    return inputs, targets

def table():
    return [examples(60), examples(30), examples(30)]

def floats64():
    return [(x.astype(np.float64), y.astype(np.int32)) for x, y in table()]

def numbers():
    return [(x, x[:, 0] * 2 + 1) for x, _ in table()]

def tokens():
    return [((np.abs(x) * 3).astype(np.int64).clip(0, 9), y) for x, y in table()]

def changed(which, inputs=lambda x: x, targets=lambda y: y):
    return [(inputs(x), targets(y)) if i in which else (x, y) for i, (x, y) in enumerate(table())]

def images(n, *shape):
    return generator.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 3

def empty(): return changed([1], lambda x: x[:0], lambda y: y[:0])
def nhwc(): return [images(n, 8, 8, 3) for n in (30, 12, 12)]
def flat(): return [images(n, 64) for n in (30, 12, 12)]
def ones(): return changed([0, 1, 2], targets=lambda y: y + 1)
def far(): return changed([0, 1, 2], targets=lambda y: np.where(y == 0, 7, 1007))
def negative(): return changed([2], targets=lambda y: y - 1)
def absent(): return changed([0], lambda x: x[np.arange(60) % 3 < 2], lambda y: y[y < 2])
def single(): return changed([0], lambda x: x[np.r_[0, 1, 2, 3:60:3]], lambda y: y[np.r_[0, 1, 2, 3:60:3]])
def same(): return changed([0, 1, 2], np.zeros_like)
def shared(): return [(table()[0])] * 2 + [examples(30)]
def nan(): return changed([1], lambda x: np.where(np.arange(30)[:, None] == 4, np.nan, x))
def halves(): return changed([0, 1, 2], lambda x: x.astype(np.float16))
def words(): return changed([0], targets=lambda y: y.astype(str))
def shapes(): return changed([2], lambda x: x[:, :4])
def counts(): return changed([2], targets=lambda y: y[:-1])
def fractions(): return changed([1], targets=lambda y: y + 0.5)
def onehot(): return changed([0, 1, 2], targets=lambda y: np.eye(3, dtype=np.int64)[y])
def constant(): return [(x, x[:, 0] * 0 + 1) for x, _ in table()]
def one_class(): return changed([0, 1, 2], targets=lambda y: y * 0)
def nothing(): return None
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


SMALL = (
    "model.hidden=[8]",
    "method.levels=1",
    "recipe.steps=20",
    "recipe.eval_every=10",
    "recipe.batch_size=10",
)
OWN = ("run", "dataset=custom", *SMALL)


@pytest.mark.parametrize("kind", ["table", "floats64"])
def test_a_table_of_ones_own_is_learned(ltx, mine, kind):
    said = ltx(*OWN, f"dataset.path=mine:{kind}", "recipe.steps=300")
    assert said.code == 0, said.err
    (levels,) = (mine / "results").glob("*/*/levels.csv")
    assert pd.read_csv(levels).final_test_accuracy.min() > 0.5  # by chance: a third


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "gives no examples for val"),
        ("nhwc", "must give images as [N, C, H, W], got [30, 8, 8, 3]: it looks like [N, H, W, C]"),
        ("flat", "must give images uint8 as [N, C, H, W], got [30, 64]"),
        ("ones", "has no training example of class 0: the classes must be 0..K-1, each in train"),
        ("far", "gives the class 1007, more than there are examples"),
        ("negative", "gives the class -1: classes are counted from 0"),
        ("absent", "has no training example of class 2"),
        ("same", "gives the same inputs for all examples"),
        ("nan", "gives inputs that are not finite: example 4 of val"),
        ("halves", "or numbers float32 or int64 [N, ...], got torch.float16 [60, 5]"),
        ("words", "gives what is no array of numbers"),
        ("shapes", "gives train inputs of 5, but test inputs of 4"),
        ("counts", "gives 30 inputs but 29 targets for test"),
        ("fractions", "of one kind for train and of another for the others"),
        ("onehot", "must give targets as whole numbers [N] (classes)"),
        ("one_class", "gives examples of one class only"),
        ("nothing", "cannot be loaded: TypeError"),
    ],
)
def test_bad_data_are_one_line(ltx, kind, message):
    said = ltx(*OWN, f"dataset.path=mine:{kind}")
    assert said.code == 2
    assert said.err.startswith(f"ltx: dataset.path=mine:{kind} ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("single", "has one training example only of class 1, 2"),
        ("shared", "has 60 different inputs both in train and in val"),
    ],
)
def test_what_can_hardly_be_meant_is_told(ltx, caplog, kind, message):
    assert ltx(*OWN, f"dataset.path=mine:{kind}", "recipe.steps=1", "recipe.eval_every=1").code == 0
    assert message in caplog.text


# --- larger than memory ---------------------------------------------------------------------------

MAPPED = """
import sys
import numpy as np

N, SIDE = {examples}, {side}

def make():
    generator = np.random.default_rng(0)
    file = np.lib.format.open_memmap("images.npy", "w+", np.uint8, (N, 1, SIDE, SIDE))
    for start in range(0, N, 512):
        stop = min(start + 512, N)
        file[start:stop] = generator.integers(0, 256, (stop - start, 1, SIDE, SIDE), dtype=np.uint8)
    file.flush()

def parts(mode):
    file, targets = np.load("images.npy", mmap_mode=mode), np.arange(N) % 4
    cut = N // 2, 3 * N // 4
    return [(file[a:b], targets[a:b]) for a, b in ((0, cut[0]), cut, (cut[1], N))]

def streamed(): return parts("r")
def resident(): return parts(None)
"""


def test_a_mapped_file_is_read_as_it_is_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(60, dtype=np.float32).reshape(20, 3))
    mapped = Mapped(np.load(tmp_path / "x.npy", mmap_mode="r"))
    whole = torch.arange(60.0).view(20, 3)
    rows = torch.tensor([7, 0, 19, 7])
    assert mapped.shape == whole.shape
    assert mapped.dtype == whole.dtype
    assert torch.equal(mapped.index_select(0, rows), whole[rows])
    assert torch.equal(mapped[rows].narrow(0, 1, 2), whole[rows][1:3])
    assert torch.equal(mapped[rows][torch.tensor([2])].index_select(0, torch.tensor([0])), whole[[19]])


def test_a_mapped_file_goes_to_another_process_by_its_name(tmp_path):
    values = np.arange(60000, dtype=np.float32).reshape(20000, 3)
    np.save(tmp_path / "x.npy", values)
    file = np.load(tmp_path / "x.npy", mmap_mode="r")
    for part, few in ((file, True), (file[5:][7:], True), (file[::2], False), (np.asarray(file)[3:], False)):
        sent = pickle.dumps(Mapped(part, torch.tensor([2, 0])))
        assert (len(sent) < 5000) is few
        assert pickle.loads(sent).narrow(0, 0, 2).tolist() == part[[2, 0]].tolist()


def mapped_module(folder, examples, side):
    (folder / "big.py").write_text(MAPPED.format(examples=examples, side=side))
    subprocess.run([sys.executable, "-c", "import big; big.make()"], cwd=folder, check=True)


def test_streamed_data_train_to_the_same_bits_as_resident_ones(ltx, tmp_path, monkeypatch):
    mapped_module(tmp_path, 160, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    for kind in ("streamed", "resident"):
        said = ltx(*OWN, f"dataset.path=big:{kind}", f"out={kind}", "recipe.augment.pad=2")
        assert said.code == 0, said.err
    sys.modules.pop("big")
    for name in ("curves.csv", "layers.csv"):
        one, other = (
            next((tmp_path / kind).glob(f"*/*/{name}")).read_bytes() for kind in ("streamed", "resident")
        )
        assert one == other
    one, other = (
        next((tmp_path / kind).glob("*/*/level_01/ticket/trained.safetensors")).read_bytes()[-4096:]
        for kind in ("streamed", "resident")
    )
    assert one == other


BUDGET = 256 << 20
"""Bytes of private memory that training may take beyond what its modules take."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is on Linux's count of private memory")
def test_a_set_larger_than_the_memory_at_hand_is_trained_on(tmp_path):
    """288 MB of images where 256 MB may be allocated: streamed they are trained on, resident they do not fit."""
    mapped_module(tmp_path, 18_432, 128)
    assert (tmp_path / "images.npy").stat().st_size > 1.1 * BUDGET
    code = f"""
import re, resource, sys
from pathlib import Path
from ltx.config.compose import compose
from ltx.experiment.execute import execute
composed = compose([*sys.argv[1:], "dataset=custom"])
execute(compose([*sys.argv[3:], "dataset=digits", "out=digits"]))  # all modules are loaded
private = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (private + {BUDGET}, resource.RLIM_INFINITY))
execute(composed)
"""
    words = [
        *SMALL,
        "model.hidden=[4]",
        "recipe.steps=2",
        "recipe.eval_every=2",
        "replicates=1",
    ]

    def run(kind):
        argv = [sys.executable, "-c", code, f"dataset.path=big:{kind}", f"out={kind}", *words]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    streamed = run("streamed")
    assert streamed.returncode == 0, streamed.stderr
    assert "MemoryError" in run("resident").stderr
