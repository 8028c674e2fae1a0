"""What is on disk survives kills, damage and full disks; a resumed run ends in an undisturbed one's bits."""

import errno
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY, spawn
from filelock import FileLock
from helpers import assert_same, interrupt_at
from safetensors.torch import save_file

import ltx.engine.training
import ltx.experiment.loop
import ltx.experiment.machine
import ltx.experiment.store
from ltx.config.compose import compose
from ltx.core.sealed import Outdated, read, save
from ltx.errors import Damaged, Interrupted, UserError
from ltx.experiment.execute import execute
from ltx.files import write

STACKED = (*TINY, "controls=[reinit]", "method.levels=1")
BATCHNORM = (
    *("model=resnet20", "model.width=0.1", "replicates=2", "controls=[]", "method.levels=1"),
    *("recipe.optimizer=sgd", "recipe.lr=0.05", "recipe.momentum=0.9", "recipe.steps=8"),
    *("recipe.eval_every=4", "method.rewind_step=3", "recipe.augment.flip=true"),
)


def go(out, *overrides):
    return execute(compose([*overrides, f"out={out}"]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nothing happened to, made once."""
    done = {}

    def folder(overrides):
        if overrides not in done:
            torch.set_num_threads(1)
            done[overrides] = go(tmp_path_factory.mktemp("undisturbed"), *overrides)
        return done[overrides]

    return folder


# -- kills ----------------------------------------------------------------------------------------------------

DIE = """
import os, signal
replace, count = os.replace, 0
def dying(source, target):
    global count
    count += {word!r} in str(target)
    if {done}:
        replace(source, target)
    if count == {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    if not {done}:
        replace(source, target)
os.replace = dying
"""


@pytest.mark.parametrize(
    ("overrides", "word", "nth", "done", "trained"),
    [
        (STACKED, "level_01/ticket/progress", 17, False, ["1/ticket", "1/reinit"]),
        (STACKED, "level_01/ticket/trained", 1, True, ["1/reinit"]),
        (BATCHNORM, "level_00/ticket/progress", 5, True, ["0/ticket", "1/ticket"]),
        (BATCHNORM, "level_01/ticket/progress", 2, False, ["1/ticket"]),
    ],
    ids=["in a round", "after a round", "a dense batchnorm network", "a rewound batchnorm network"],
)
def test_kill_9_and_resume_end_in_the_same_bits(
    overrides, word, nth, done, trained, tmp_path, undisturbed, rounds
):
    """Killed just before or just after the nth file of a name is moved to its place."""
    patch = DIE.format(word=word, nth=nth, done=done)
    process = spawn("run", *overrides, "checkpoint_seconds=0", f"out={tmp_path}", patch=patch)
    _, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, err
    folder = go(tmp_path, *overrides)
    assert rounds == trained
    assert_same(folder, undisturbed(overrides))


def test_a_resumed_round_starts_from_its_checkpoint_and_not_from_the_beginning(tmp_path, monkeypatch):
    """Interrupted at step 17 of 30, the rest is 13 steps."""
    interrupt_at(monkeypatch, 17)
    with pytest.raises(Interrupted):
        go(tmp_path, *STACKED)
    monkeypatch.undo()
    steps = []
    advance = ltx.engine.training.Training.step
    monkeypatch.setattr(
        ltx.engine.training.Training, "step", lambda self: steps.append(self.where) or advance(self)
    )
    go(tmp_path, *STACKED)
    assert steps.count("level 0, ticket") == 13


# -- Ctrl-C ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_was_asked_for_is_one_line_and_130_and_resumes(
    number, tmp_path, monkeypatch, ltx, undisturbed
):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40, number)
        said = ltx("run", *STACKED, f"out={tmp_path}")
    assert said.code == 130
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("ltx: stopped; everything so far is in")
    assert last.endswith("the same command continues")
    assert "Traceback" not in said.err
    folder = next(tmp_path.rglob("manifest.json")).parent
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    assert set(pd.read_csv(folder / "levels.csv").level) == {0}
    assert "interrupted" in ltx("show", folder).out
    assert signal.getsignal(number) is handler
    assert ltx("run", *STACKED, f"out={tmp_path}").code == 0
    assert_same(folder, undisturbed(STACKED))


@pytest.fixture
def finished(tmp_path, undisturbed):
    """A copy of a finished run, to be harmed; `go(tmp_path, *STACKED)` finds it."""
    done = undisturbed(STACKED)
    return Path(shutil.copytree(done, tmp_path / done.parent.name / done.name))


# -- damage ---------------------------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, flip, empty])
@pytest.mark.parametrize("file", ["trained.safetensors", "ticket.safetensors"])
def test_a_damaged_round_alone_is_trained_again(harm, file, finished, tmp_path, rounds, capsys, undisturbed):
    harm(finished / "level_01" / "reinit" / file)
    go(tmp_path, *STACKED)
    assert rounds == ["1/reinit"]
    harmed = finished / "level_01" / "reinit"
    said = f"{harmed} was damaged and has been trained again: {harmed / file} is damaged: "
    assert said in capsys.readouterr().err
    assert_same(finished, undisturbed(STACKED))


def test_several_damaged_rounds_are_trained_again(finished, tmp_path, rounds, undisturbed):
    for place in ("level_00/ticket", "level_01/reinit"):
        truncate(finished / place / "trained.safetensors")
    go(tmp_path, *STACKED)
    assert rounds == ["0/ticket", "1/reinit"]
    assert_same(finished, undisturbed(STACKED))


@pytest.mark.parametrize("harm", [truncate, flip, empty])
def test_a_damaged_checkpoint_costs_its_round_only(harm, tmp_path, monkeypatch, rounds, undisturbed):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(Interrupted):
            go(tmp_path, *STACKED)
    harm(next(tmp_path.rglob("progress/*.safetensors")))
    rounds.clear()
    folder = go(tmp_path, *STACKED)
    assert rounds == ["1/ticket", "1/reinit"]
    assert_same(folder, undisturbed(STACKED))


def test_tables_and_manifest_are_written_again_when_they_are_lost(finished, tmp_path, rounds, undisturbed):
    for name in ("levels.csv", "curves.csv", "layers.csv", "manifest.json"):
        (finished / name).unlink()
    go(tmp_path, *STACKED)
    assert rounds == []
    assert_same(finished, undisturbed(STACKED))
    assert json.loads((finished / "manifest.json").read_text())["status"] == "complete"


def test_a_level_that_was_deleted_is_trained_again_and_the_others_are_not(
    finished, tmp_path, rounds, undisturbed
):
    for file in (finished / "level_01" / "ticket").iterdir():
        file.unlink()
    go(tmp_path, *STACKED)
    assert rounds == ["1/ticket"]
    assert_same(finished, undisturbed(STACKED))


# -- folders and disks ----------------------------------------------------------------------------------------


def test_the_same_command_again_says_that_the_run_is_complete(finished, tmp_path, rounds, ltx):
    said = ltx("run", *STACKED, f"out={tmp_path}")
    assert said.code == 0
    assert rounds == []
    assert "was complete already; nothing was trained" in said.err


def test_a_folder_in_use_is_left_alone(tmp_path, ltx, undisturbed):
    folder = undisturbed(STACKED)
    with FileLock(folder / ".lock"):
        said = ltx("run", *STACKED, f"out={folder.parent.parent}")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert said.err.startswith("ltx: ")
    assert "is in use by another ltx process" in said.err


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, ltx):
    (tmp_path / "file").write_text("")
    said = ltx("run", *STACKED, f"out={tmp_path / 'file' / 'below'}")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "choose another out=DIR" in said.err


@pytest.mark.parametrize("nth", [1, 5, 9])
def test_a_full_disk_is_one_line_and_loses_nothing_finished(
    nth, tmp_path, monkeypatch, ltx, rounds, undisturbed
):
    writes, fsync = [], os.fsync

    def full(file):
        writes.append(file)
        if len(writes) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = ltx("run", *STACKED, f"out={tmp_path}")
    assert said.code == 2
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("ltx: cannot write ")
    assert "No space left on device" in last
    assert "Traceback" not in said.err
    assert not list(tmp_path.rglob(".*.tmp"))  # half a file would keep the disk full
    finished = {
        str(file.parent.relative_to(file.parents[2])) for file in tmp_path.rglob("trained.safetensors")
    }
    rounds.clear()
    folder = go(tmp_path, *STACKED)
    assert len(rounds) == 3 - len(finished)
    assert_same(folder, undisturbed(STACKED))


# -- files ----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write(file, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        with pytest.raises(UserError, match="cannot write"):
            write(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_tensors_come_back_as_they_went(tmp_path):
    tree = {"a": torch.tensor([[1.5, torch.nan]]), "b": torch.tensor([True, False]), "c": torch.tensor(7)}
    save(tmp_path / "file.safetensors", tree, {"level": 3, "seeds": [0, 1]})
    back = read(tmp_path / "file.safetensors")
    assert (back.header["level"], back.header["seeds"], back.header["schema"]) == (3, [0, 1], 2)
    assert all(torch.equal(back.tree[key].nan_to_num(9), tree[key].nan_to_num(9)) for key in tree)


def test_a_foreign_file_is_not_taken_for_ours(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "file.safetensors")
    with pytest.raises(Damaged, match="no header of ltx"):
        read(tmp_path / "file.safetensors")
    with pytest.raises(FileNotFoundError):
        read(Path(tmp_path / "missing.safetensors"))


def test_a_file_of_an_older_layout_names_the_version_that_wrote_it(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "file.safetensors", {"ltx": "0.1.0", "sha256": "0"})
    with pytest.raises(Outdated, match=r"was written by ltx 0\.1\.0, in another layout"):
        read(tmp_path / "file.safetensors")


def test_a_finished_run_keeps_no_checkpoint(undisturbed):
    assert not list(undisturbed(STACKED).rglob("progress"))


def test_the_manifest_names_every_file_by_its_checksum(undisturbed):
    folder = undisturbed(STACKED)
    manifest = json.loads((folder / "manifest.json").read_text())
    ours = {*folder.rglob("*.safetensors"), *folder.glob("*.csv"), folder / "config.yaml"}
    assert manifest["files"] == {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in ours
    }


def test_the_manifest_keeps_the_commit_that_trained_beside_the_one_that_published(tmp_path, monkeypatch):
    for commit in ("aaaa", "bbbb", "cccc"):
        monkeypatch.setattr(ltx.experiment.machine, "commit", lambda commit=commit: commit)
        if commit == "aaaa":
            with monkeypatch.context() as patch:
                interrupt_at(patch, 40)
                with pytest.raises(Interrupted):
                    go(tmp_path, *STACKED)
            folder = next(tmp_path.rglob("manifest.json")).parent
        else:
            (folder / "manifest.json").unlink()  # written anew, whether or not anything is trained
            go(tmp_path, *STACKED)
        told = json.loads((folder / "manifest.json").read_text())
        assert told["commit"] == commit
        assert told["trained_by"] == (["aaaa"] if commit == "aaaa" else ["aaaa", "bbbb"])
