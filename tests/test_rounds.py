"""A file counts in its own place only: what was moved, swapped, edited or linked is found, and trained again."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from filelock import FileLock, Timeout
from helpers import assert_same, header_of, interrupt_at
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ltx.experiment.store
from ltx.config.compose import compose
from ltx.core.sealed import checksum
from ltx.errors import Busy, Interrupted
from ltx.experiment.execute import execute

RUN = (*TINY, "controls=[reinit]")


def go(out, *overrides):
    return execute(compose([*overrides, f"out={out}"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    torch.set_num_threads(1)
    return go(tmp_path_factory.mktemp("whole"), *RUN)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run of another learning rate."""
    torch.set_num_threads(1)
    return go(tmp_path_factory.mktemp("other"), *RUN, "recipe.lr=0.002")


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the run, to be harmed; `go(tmp_path, *RUN)` finds it."""
    return Path(shutil.copytree(whole, tmp_path / whole.parent.name / whole.name))


def edited(file, **changes):
    """Say something else in a file's header, with a checksum that fits."""
    tree = load_file(file)
    header = json.dumps(header_of(file) | changes, sort_keys=True)
    save_file(tree, file, {"header": header, "sha256": checksum(header, tree)})


def swap(a, b):
    spare = a.with_name("spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


def trained(run, level, role="ticket", kind="trained"):
    return run / f"level_{level:02d}" / role / f"{kind}.safetensors"


MISPLACED = {
    "trained of another level": (
        lambda run, other: shutil.copy(trained(run, 2), trained(run, 1)),
        ["1/ticket"],
    ),
    "trained of another role": (
        lambda run, other: shutil.copy(trained(run, 1, "reinit"), trained(run, 1)),
        ["1/ticket"],
    ),
    "two levels swapped": (
        lambda run, other: swap(trained(run, 1), trained(run, 2)),
        ["1/ticket", "2/ticket"],
    ),
    "two roles swapped whole": (
        lambda run, other: swap(trained(run, 1).parent, trained(run, 1, "reinit").parent),
        ["1/reinit"],  # the ticket is known again by what it says of itself, and moves home
    ),
    "dense trained of another run": (
        lambda run, other: shutil.copy(trained(other, 0), trained(run, 0)),
        ["0/ticket"],
    ),
    "a whole dense round of another run": (
        lambda run, other: [shutil.copy(trained(other, 0, kind=k), trained(run, 0, kind=k)) for k in KINDS],
        ["0/ticket"],
    ),
    "ticket under the name of trained": (
        lambda run, other: shutil.copy(trained(run, 1, kind="ticket"), trained(run, 1)),
        ["1/ticket"],
    ),
    "trained under the name of ticket": (
        lambda run, other: shutil.copy(trained(run, 1), trained(run, 1, kind="ticket")),
        ["1/ticket"],
    ),
    "ticket of another level": (
        lambda run, other: shutil.copy(trained(run, 2, kind="ticket"), trained(run, 1, kind="ticket")),
        ["1/ticket"],
    ),
    "seeds in another order": (lambda run, other: edited(trained(run, 1), seeds=[1, 0]), ["1/ticket"]),
    "another tag": (lambda run, other: edited(trained(run, 2), tag="0" * 64), ["2/ticket"]),
    "another start": (lambda run, other: edited(trained(run, 2), start=7), ["2/ticket"]),
    "another draw": (lambda run, other: edited(trained(run, 1, "reinit"), draw=1), ["1/reinit"]),
    "a folder for a file": (
        lambda run, other: (trained(run, 1).unlink(), trained(run, 1).mkdir()),
        ["1/ticket"],
    ),
    "a pipe for a file": (
        lambda run, other: (trained(run, 1).unlink(), os.mkfifo(trained(run, 1))),
        ["1/ticket"],
    ),
    "a link for a file": (
        lambda run, other: (trained(run, 1).unlink(), trained(run, 1).symlink_to(trained(other, 1))),
        ["1/ticket"],
    ),
    "a link for a round": (
        lambda run, other: (
            shutil.rmtree(trained(run, 1).parent),
            trained(run, 1).parent.symlink_to(trained(other, 1).parent),
        ),
        ["1/ticket"],
    ),
    "a file for a round": (
        lambda run, other: (shutil.rmtree(trained(run, 1).parent), trained(run, 1).parent.write_text("")),
        ["1/ticket"],
    ),
    "an older layout's file": (
        lambda run, other: save_file(load_file(trained(run, 1)), trained(run, 1)),
        ["1/ticket"],
    ),
}
KINDS = ("ticket", "trained")


@pytest.mark.parametrize("what", MISPLACED)
def test_a_round_counts_in_its_own_place_only(what, copy, other, tmp_path, rounds, whole, capsys):
    harm, again = MISPLACED[what]
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    harm(copy, other)
    assert go(tmp_path, *RUN) == copy
    assert rounds == again
    assert_same(copy, whole)
    assert all(file.read_bytes() == content for file, content in before.items())
    assert capsys.readouterr().err.count("was damaged and has been trained again") == len(again)


def test_weights_are_stored_once_and_damaged_ones_written_again(copy, tmp_path, rounds, whole, capsys):
    names = [header_of(trained(copy, level, kind="ticket"))["weights"] for level in (0, 1, 2)]
    assert len(set(names)) == 1
    file = copy / "weights" / f"{names[0]}.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    go(tmp_path, *RUN)
    assert rounds == []
    assert f"{names[0]}.safetensors was damaged and has been written again: " in capsys.readouterr().err
    assert_same(copy, whole)


def test_a_ticket_s_file_says_all_about_it(whole):
    said = header_of(trained(whole, 2, kind="ticket"))
    assert {"schema", "ltx", "tag", "kind", "role", "draw", "level", "start", "seeds"} <= said.keys()
    assert (said["level"], said["role"], said["seeds"], said["kind"]) == (2, "ticket", [0, 1], "ticket")
    assert said["config"]["model"] == {"name": "lenet", "hidden": [16]} | said["config"]["model"]
    assert said["layers"]["1.weight"] == {"shape": [16, 64], "kind": "dense", "prunable": True}
    assert said["density"] == pytest.approx([785 / 1184] * 2)
    with safe_open(trained(whole, 2, kind="ticket"), "pt") as file:
        assert file.get_slice("mask/1.weight").get_shape() == [2, 16 * 64 // 8]


# -- checkpoints ----------------------------------------------------------------------------------------------


def interrupted(out, monkeypatch, *overrides):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(Interrupted):
            go(out, *overrides)
    return next(Path(out).rglob("progress/*.safetensors"))


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path, monkeypatch, whole, rounds):
    theirs = interrupted(tmp_path / "theirs", monkeypatch, *RUN, "recipe.lr=0.002")
    mine = interrupted(tmp_path / "mine", monkeypatch, *RUN)
    shutil.copy(theirs, mine)
    assert_same(go(tmp_path / "mine", *RUN), whole)


def test_what_a_kill_left_of_a_finished_round_is_tidied_away(copy, tmp_path, rounds):
    (trained(copy, 1).parent / "progress").mkdir()
    (trained(copy, 1).parent / "progress" / "state.safetensors").write_bytes(b"old")
    (copy / ".levels.csv.0123456789abcdef.tmp").write_bytes(b"half")
    go(tmp_path, *RUN)
    assert rounds == []
    assert not list(copy.rglob("progress"))
    assert not list(copy.rglob("*.tmp"))


# -- locks ----------------------------------------------------------------------------------------------------


def test_a_lock_that_is_deleted_and_taken_by_another_is_noticed(tmp_path, monkeypatch):
    others = []

    def deleted(store, round, trained, save=ltx.experiment.store.Store.save):
        if not others:
            (store.folder / ".lock").unlink()
            others.append(FileLock(store.folder / ".lock"))
            others[0].acquire(timeout=1)
        save(store, round, trained)

    monkeypatch.setattr(ltx.experiment.store.Store, "save", deleted)
    with pytest.raises(Busy, match="was deleted, and another process has the folder now"):
        go(tmp_path, *RUN)
    assert not list(tmp_path.rglob("trained.safetensors"))


def test_a_lock_that_is_deleted_by_hand_is_made_again(tmp_path, monkeypatch, whole):
    def deleted(store, round, trained, save=ltx.experiment.store.Store.save):
        (store.folder / ".lock").unlink()
        save(store, round, trained)
        with pytest.raises(Timeout):
            FileLock(store.folder / ".lock", is_singleton=False).acquire(timeout=0)

    monkeypatch.setattr(ltx.experiment.store.Store, "save", deleted)
    assert_same(go(tmp_path, *RUN), whole)


def test_a_folder_called_lock_is_no_lock(copy, tmp_path, rounds):
    (copy / ".lock").unlink(missing_ok=True)
    (copy / ".lock").mkdir()
    go(tmp_path, *RUN)
    assert rounds == []


@pytest.mark.parametrize("text", ["abc", "nan", "-1", "1e400"])
def test_a_wait_for_the_lock_is_a_number_of_seconds(text, tmp_path, monkeypatch, ltx):
    monkeypatch.setenv("LTX_LOCK_SECONDS", text)
    said = ltx("run", *RUN, f"out={tmp_path}")
    assert (said.code, said.err) == (
        2,
        f"ltx: LTX_LOCK_SECONDS={text} is not possible: it must be a number of seconds, 0 or more\n",
    )
