"""Tickets that travel: one file, read with and without ltx, transplanted, and refused if it is broken."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file

import ltx as package
from ltx.core import sealed
from ltx.errors import UserError
from ltx.pruning import portable
from ltx.results import load

DOCS = Path(__file__).parent.parent / "docs" / "tickets.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    package.run(package.compose(*TINY, "controls=[]", f"out={out}"))
    (folder,) = (out / "digits_lenet").iterdir()
    return folder


@pytest.fixture
def packed(run, tmp_path, ltx):
    """The file of level 2's ticket, of seed 1."""
    file = tmp_path / "ticket.safetensors"
    said = ltx("ticket", run, "--level", 2, "--seed", 1, "--out", file)
    assert said.code == 0, said.err
    return file


def test_the_file_is_the_run_s_ticket(run, packed):
    ticket, kept = package.load_ticket(packed), load(run)[0].ticket(2, seed=1)
    assert ticket.mask.keys() == kept.mask.keys()
    assert all(torch.equal(ticket.mask[name], kept.mask[name]) for name in kept.mask)
    assert ticket.density == pytest.approx(load(run).levels.query("level == 2 and seed == 1").density.item())
    assert ticket.weights == {}  # seed 1 draws them again
    assert ticket.about["config"]["recipe"]["steps"] == "30"


def test_with_weights_it_has_them(run, tmp_path, ltx):
    file = tmp_path / "ticket.safetensors"
    assert ltx("ticket", run, "--level", 2, "--out", file, "--weights").code == 0
    ticket, kept = package.load_ticket(file), load(run)[0].ticket(2, seed=0)
    for name, alive in ticket.mask.items():
        assert torch.equal(ticket.weights[name] * alive, kept.start[name])


def test_the_ten_lines_of_the_docs_read_it_without_ltx(packed):
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    code += "print(json.dumps({name: int(alive.sum()) for name, alive in mask.items()}))"
    code = "import sys; sys.modules['ltx'] = None\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=packed.parent, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {n: int(m.sum()) for n, m in package.load_ticket(packed).mask.items()}


def test_lenet_s_ticket_is_smaller_than_40_kb(packed, tmp_path):
    shapes = {"1.weight": [300, 784], "3.weight": [100, 300], "5.weight": [10, 100]}
    mask = {name: torch.rand(shape) < 0.1 for name, shape in shapes.items()}
    about = {**package.load_ticket(packed).about, "layers": shapes}
    size = portable.save(tmp_path / "lenet.safetensors", portable.Portable(mask, {}, about))
    assert 33_275 < size < 40_000
    found = package.load_ticket(tmp_path / "lenet.safetensors").mask
    assert all(torch.equal(found[name], alive) for name, alive in mask.items())


@pytest.mark.parametrize("transfer", ["mask", "signs", "weights"])
def test_a_transplant_trains_the_ticket_elsewhere(transfer, run, packed, tmp_path, ltx):
    words = ["model.hidden=[16]", "replicates=2", "seed=7", "recipe.steps=30", "recipe.eval_every=10"]
    said = ltx(
        "run", "config=digits_transplant", *words, f"method.ticket={packed}", f"method.transfer={transfer}",
        "controls=[reinit]", f"out={tmp_path / 'o'}",
    )  # fmt: skip
    assert said.code == 0, said.err
    here, theirs = load(tmp_path / "o")[0], load(run)[0].ticket(2, seed=1)
    for seed in (7, 8):
        there = here.ticket(1, seed=seed)
        dense = here.ticket(0, seed=seed).start
        for name, alive in theirs.mask.items():
            assert torch.equal(there.mask[name], alive)
            expected = {
                "mask": dense[name],
                "signs": torch.copysign(dense[name], load(run)[0].ticket(0, seed=1).start[name]),
                "weights": load(run)[0].ticket(0, seed=1).start[name],
            }[transfer]
            assert torch.equal(there.start[name], torch.where(alive, expected, 0))
    levels = here.levels
    assert set(levels.role) == {"ticket", "reinit"}
    assert set(levels.level) == {0, 1}


def test_the_run_is_named_by_the_ticket_s_content(packed, tmp_path):
    def tag(file):
        return package.compose("config=digits_transplant", "model.hidden=[16]", f"method.ticket={file}").tag(
            "f"
        )

    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(packed.read_bytes())
    assert tag(copy) == tag(packed)
    found = sealed.read(packed)
    sealed.save(copy, found.tree, found.header | {"seed": 0})
    assert tag(copy) != tag(packed)


def test_layers_that_do_not_fit_are_told_one_by_one_before_data_are_read(packed, ltx):
    said = ltx("run", "config=digits_transplant", "model.hidden=[20]", f"method.ticket={packed}")
    assert said.code == 2
    assert "1.weight has 1,280 weights here, 1,024 in the ticket" in said.err


def broken(change, packed, tmp_path):
    found = sealed.read(packed)
    file = tmp_path / "broken.safetensors"
    tree, header = dict(found.tree), dict(found.header)
    change(tree, header)
    sealed.save(file, tree, header)
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree, header: header.update(layers={**header["layers"], "1.weight": [10**9, 10**9]}), "not of shape"),
        (lambda tree, header: header.update(layers={**header["layers"], "1.weight": [-1, 5]}), "not of shape"),
        (lambda tree, header: tree.pop("mask/1.weight"), "not of shape"),
        (lambda tree, header: header.update(format=99), "has format 99, this ltx reads 1: update ltx"),
        (lambda tree, header: header.update(kind="trained"), "is no ticket's file"),
        (lambda tree, header: header.pop("seed"), "does not say its seed"),
        (lambda tree, header: header.update(density="much"), "density is not a number"),
    ],
)  # fmt: skip
def test_a_ticket_that_is_not_what_it_says_is_refused_in_one_line(change, message, packed, tmp_path, ltx):
    file = broken(change, packed, tmp_path)
    for said in (ltx("show", file), ltx("run", "config=digits_transplant", f"method.ticket={file}")):
        assert said.code == 2
        assert message in said.err
        assert said.err.count("\n") == 1


def test_bytes_that_changed_are_noticed(packed, ltx):
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    assert "it is not what its checksum says" in ltx("show", packed).err


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100])
def test_what_is_no_ticket_is_refused(content, tmp_path, ltx):
    (tmp_path / "x.safetensors").write_bytes(content)
    said = ltx("show", tmp_path / "x.safetensors")
    assert said.code == 2
    assert said.err.count("\n") == 1


def test_a_file_of_plain_weights_is_no_ticket(tmp_path, ltx):
    save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert load_file(tmp_path / "x.safetensors")
    assert ltx("show", tmp_path / "x.safetensors").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--level", 9], "--level=9 is not possible: the run has levels 0, 1, 2"),
        (["--density", 0.5], "--density=0.5 is not possible: the nearest are"),
        (["--level", 1, "--seed", 7], "--seed=7 is not possible: the run has seeds 0, 1"),
        ([], "say which ticket: --level 7 or --density 0.1"),
        (["--level", 1, "--role", "reinit"], "reinit"),
    ],
)
def test_what_a_run_does_not_have_is_told(words, message, run, tmp_path, ltx):
    said = ltx("ticket", run, "--out", tmp_path / "t", *words)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "t").exists()


def test_show_tells_what_a_file_is(packed, ltx):
    out = ltx("show", packed).out
    assert "imp on digits, lenet" in out
    assert "ticket of level 2, seed 1" in out
    assert "drawn again from seed 1" in out


def test_a_run_without_a_file_is_refused(ltx):
    said = ltx("run", "config=digits_transplant")
    assert said.code == 2
    assert "method.ticket" in said.err


def test_a_missing_file_is_one_line(ltx):
    said = ltx("run", "config=digits_transplant", "method.ticket=/nowhere")
    assert said.code == 2
    assert "/nowhere" in said.err
    with pytest.raises(UserError, match="does not exist"):
        package.load_ticket("/nowhere")
