"""Tables, manifest and configuration are derived: what is cut, edited or lost is noticed and made again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from helpers import SMALL, interrupt_at

import ltx as package
import ltx.experiment.lanes
from ltx.config.compose import compose
from ltx.errors import Interrupted
from ltx.experiment.execute import execute
from ltx.manifest import seal, sound

RUN = (*TINY, "controls=[reinit]")
DERIVED = ("levels.csv", "curves.csv", "layers.csv", "masks.csv", "costs.csv", "size.csv", "config.yaml")


def go(out, *overrides):
    return execute(compose([*overrides, f"out={out}"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    return go(tmp_path_factory.mktemp("whole"), *RUN)


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / whole.parent.name / whole.name))


def half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def row(file):
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:-2], lines[-1]]))


def latin(file):
    file.write_bytes(b"\xe9" + file.read_bytes())


HARMS = {"gone": Path.unlink, "half": half, "a bit": flip, "a line gone": row, "not UTF-8": latin}


@pytest.mark.parametrize("harm", HARMS)
def test_everything_derived_is_made_again_and_told(harm, copy, whole, tmp_path, rounds, ltx):
    for name in DERIVED:
        HARMS[harm](copy / name)
    said = ltx("run", *RUN, f"out={tmp_path}")
    assert said.code == 0
    assert rounds == []
    for name in DERIVED:
        again = (copy / name).read_text().replace(str(tmp_path), str(whole.parents[1]))  # out=
        assert again == (whole / name).read_text()
        assert f"{copy / name} was not what its rounds say and has been made again from them" in said.err


BAD = [
    "",
    "[]",
    "{",
    "[" * 100_000,
    '{"seconds": "long"}',
    '{"checks": {"a": "b"}}',
    '{"status": "complete"}',
]


@pytest.mark.parametrize("text", BAD)
def test_a_manifest_that_is_none_is_made_again(text, copy, whole, tmp_path, rounds, ltx):
    (copy / "manifest.json").write_text(text)
    said = ltx("run", *RUN, f"out={tmp_path}")
    assert said.code == 0
    assert rounds == []
    assert f"{copy / 'manifest.json'} was not what its rounds say" in said.err
    again, before = (json.loads((run / "manifest.json").read_text()) for run in (copy, whole))
    before["files"].pop("config.yaml")  # it says where the run is
    assert {name: again["files"][name] for name in before["files"]} == before["files"]


def test_an_edited_manifest_is_known_by_its_seal(whole, copy):
    manifest = sound(whole)
    assert manifest["seal"] == seal(manifest)
    edited = json.loads((copy / "manifest.json").read_text()) | {"seconds": 1.0}
    (copy / "manifest.json").write_text(json.dumps(edited))
    assert sound(copy) == {}


@pytest.mark.parametrize("command", ["plot", "table", "show"])
def test_readers_say_that_a_table_is_not_what_was_written(command, copy, ltx):
    text = (copy / "levels.csv").read_text()
    (copy / "levels.csv").write_text(text.replace(",0.", ",0.9", 1))
    said = ltx(command, copy)
    drawn = (copy / "accuracy_vs_sparsity.md").read_text() if command == "plot" else ""
    told = " ".join((said.out + said.err + drawn).split())
    assert "levels.csv is missing or not what its checksum says" in told


def test_load_warns_of_it(copy):
    half(copy / "curves.csv")
    with pytest.warns(UserWarning, match=r"curves\.csv is missing or not what its checksum says"):
        package.load(copy)


def test_a_sweep_runs_a_job_again_whose_table_is_lost(tmp_path, rounds, ltx):
    words = ("sweep", *SMALL, "seed=0,5", f"out={tmp_path}")
    assert ltx(*words).code == 0
    lost = next(tmp_path.rglob("levels.csv"))
    content = lost.read_bytes()
    lost.unlink()
    said = ltx(*words)
    assert said.code == 0
    assert "2 jobs, 1 done before" in said.err
    assert lost.read_bytes() == content


# -- as the run goes ------------------------------------------------------------------------------------------


def test_the_rows_of_a_round_are_on_disk_before_the_next_begins(tmp_path, monkeypatch):
    seen, train = [], ltx.experiment.lanes.train

    def watching(task, round, session):
        table = next(tmp_path.rglob("levels.csv"), None)
        rows = table.read_text().splitlines()[1:] if table else []
        seen.append((round.level, round.role, len(rows)))
        return train(task, round, session)

    monkeypatch.setattr(ltx.experiment.lanes, "train", watching)
    folder = go(tmp_path, *RUN)
    rounds = [(0, "ticket"), (1, "ticket"), (1, "reinit"), (2, "ticket"), (2, "reinit")]
    assert seen == [(*round, 2 * n) for n, round in enumerate(rounds)]
    assert sound(folder)["status"] == "complete"


def test_a_run_that_fails_publishes_what_it_has_and_why(tmp_path, monkeypatch):
    train = ltx.experiment.lanes.train

    def failing(task, round, session):
        if round.level == 2:
            raise ZeroDivisionError("no weight is left\nin the network")
        return train(task, round, session)

    monkeypatch.setattr(ltx.experiment.lanes, "train", failing)
    with pytest.raises(ZeroDivisionError):
        go(tmp_path, *RUN)
    folder = next(tmp_path.rglob("manifest.json")).parent
    manifest = sound(folder)
    assert (manifest["status"], manifest["reason"]) == ("failed", "ZeroDivisionError: no weight is left")
    assert len((folder / "levels.csv").read_text().splitlines()) == 1 + 2 * 3


def test_an_interrupted_run_has_a_sound_manifest(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 40)
    with pytest.raises(Interrupted):
        go(tmp_path, *RUN)
    assert sound(next(tmp_path.rglob("manifest.json")).parent)["status"] == "interrupted"


def test_nothing_left_to_prune_is_the_end_of_a_run_and_no_mistake(tmp_path, ltx, rounds):
    """Proof b4b: global pruning empties a layer after rounds of training."""
    words = ("model.hidden=[4,4]", "replicates=2", "controls=[]", "method.levels=6", "method.rate=0.5")
    words += ("method.scope=global", "recipe.steps=20", "recipe.eval_every=20", f"out={tmp_path}")
    said = ltx("run", *words)
    assert said.code == 0
    assert "would empty" in said.err
    folder = next(tmp_path.rglob("manifest.json")).parent
    assert sound(folder)["status"] == "complete"
    assert "the run ends with level" in sound(folder)["ended"]
    assert (folder / "accuracy_vs_sparsity.png").exists()
    rounds.clear()
    assert "was complete already" in ltx("run", *words).err
    assert rounds == []


def test_figures_are_in_the_manifest_and_drawn_anew_without_a_word(whole, tmp_path, ltx):
    said = ltx("run", *RUN, f"out={tmp_path}")
    folder = next(tmp_path.rglob("manifest.json")).parent
    assert {"accuracy_vs_sparsity.png", "differences.csv"} <= sound(folder)["files"].keys()
    ltx("plot", folder, "--interval")
    said = ltx("run", *RUN, f"out={tmp_path}")
    assert "made again" not in said.err
    assert "was complete already" in said.err
