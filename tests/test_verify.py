"""`ltx verify` finds every kind of corruption, names the file, and says what it could not check."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from helpers import header_of
from safetensors.torch import load_file, save_file

import ltx as package
from ltx.config.compose import compose
from ltx.core.sealed import checksum
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.experiment.status import Job, Sweep
from ltx.manifest import seal
from ltx.study.connect import connect

RUN = (*TINY, "controls=[reinit,shuffle]")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    return execute(compose([*RUN, f"out={tmp_path_factory.mktemp('whole')}"]))


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / whole.parent.name / whole.name))


def trained(run, level, role="ticket", kind="trained"):
    return run / f"level_{level:02d}" / role / f"{kind}.safetensors"


def rewritten(file, tree, **changes):
    """A file with other tensors or another header, whose own checksum fits."""
    header = json.dumps(header_of(file) | changes, sort_keys=True)
    save_file(tree, file, {"header": header, "sha256": checksum(header, tree)})


def sealed_again(run):
    """A manifest forged to fit the files."""
    said = json.loads((run / "manifest.json").read_text())
    said["files"] = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in said["files"]}
    (run / "manifest.json").write_text(json.dumps(said | {"seal": seal(said)}))


def test_a_sound_run_keeps_all_its_promises(whole, ltx):
    said = ltx("verify", whole, "--data")
    assert said.code == 0, said.out
    assert "all promises hold" in said.out
    assert "of the saved weights, to the bit" in said.out
    told = json.loads(ltx("verify", whole, "--data", "--json").out)
    assert told[0]["broken"] == told[0]["unchecked"] == []
    held = told[0]["held"]
    assert held["every file has its checksum"] == len(
        json.loads((whole / "manifest.json").read_text())["files"]
    )
    assert held["masks are nested from level to level"] == 2
    assert held["a control keeps its ticket's layer counts"] == 4
    assert held["every table is what its rounds make of it"] == 6


def flip(file, at=-50):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def swap(a, b):
    spare = a.with_name("spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


DAMAGE = {
    "a bit of a tensor": (lambda run: flip(trained(run, 1)), "level_01/ticket/trained.safetensors"),
    "a bit of a header": (lambda run: flip(trained(run, 1), 40), "level_01/ticket/trained.safetensors"),
    "a bit of a mask": (lambda run: flip(trained(run, 2, kind="ticket"), -3), "level_02/ticket/ticket"),
    "half a file": (lambda run: os.truncate(trained(run, 2), 900), "level_02/ticket/trained.safetensors"),
    "an empty file": (lambda run: os.truncate(trained(run, 0), 0), "level_00/ticket/trained.safetensors"),
    "a file gone": (lambda run: trained(run, 2, "reinit").unlink(), "level_02/reinit/trained.safetensors"),
    "weights gone": (lambda run: next((run / "weights").iterdir()).unlink(), "weights/"),
    "two levels swapped": (lambda run: swap(trained(run, 1), trained(run, 2)), "level_01/ticket/trained"),
    "two roles swapped": (lambda run: swap(trained(run, 1), trained(run, 1, "shuffle")), "level_01/"),
    "a stray level": (lambda run: shutil.copytree(run / "level_02", run / "level_99"), "level_99/"),
    "a stray copy": (lambda run: shutil.copytree(run / "level_02", run / "level_02.bak"), "level_02.bak/"),
    "a half-written copy": (lambda run: (run / ".levels.csv.0.tmp").write_text("x"), ".levels.csv.0.tmp"),
    "a link": (
        lambda run: (trained(run, 1).rename(run.parent / "x"), trained(run, 1).symlink_to(run.parent / "x")),
        "level_01/ticket/trained.safetensors",
    ),
    "a pipe": (lambda run: ((run / "levels.csv").unlink(), os.mkfifo(run / "levels.csv")), "levels.csv"),
    "an accuracy": (lambda run: edit(run / "levels.csv", ",0.2", ",0.9"), "levels.csv"),
    "a loss": (lambda run: edit(run / "curves.csv", ",2.", ",1."), "curves.csv"),
    "a count": (lambda run: edit(run / "layers.csv", "819", "820"), "layers.csv"),
    "a table gone": (lambda run: (run / "masks.csv").unlink(), "masks.csv"),
    "a row gone": (
        lambda run: (run / "costs.csv").write_bytes(
            b"".join((run / "costs.csv").read_bytes().splitlines(True)[:-1])
        ),
        "costs.csv",
    ),
    "the configuration": (lambda run: edit(run / "config.yaml", "lr: 0.0012", "lr: 0.0013"), "config.yaml"),
    "the manifest": (
        lambda run: edit(run / "manifest.json", '"threads": 1', '"threads": 2'),
        "manifest.json",
    ),
    "no manifest to speak of": (lambda run: (run / "manifest.json").write_text("[]"), "manifest.json"),
    "a complete run that says it runs": (lambda run: (run / "status.json").write_text("{}"), "status.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_kind_of_damage_is_found_and_named(what, copy, ltx):
    harm, name = DAMAGE[what]
    harm(copy)
    said = ltx("verify", copy)
    assert said.code == 1
    assert "BROKEN: " in said.out
    told = json.loads(ltx("verify", copy, "--json").out)[0]["broken"]
    assert any(name in line for line in told), told


def forged_seed(run):
    rewritten(trained(run, 1), load_file(trained(run, 1)), seeds=[1, 0])


def forged_mask(run):
    file = trained(run, 1, kind="ticket")
    tree = {key: bits.clone() for key, bits in load_file(file).items()}
    tree["mask/1.weight"] = torch.from_numpy(np.roll(tree["mask/1.weight"].numpy(), 1, axis=1).copy())
    rewritten(file, tree)


def forged_table(run):
    edit(run / "levels.csv", ",0.2", ",0.9")


def forged_number(run):
    rows = pd.read_csv(run / "levels.csv", dtype=str)
    rows.loc[1, "final_test_accuracy"] = "7"
    rows.to_csv(run / "levels.csv", index=False)


def forged_loss(run):
    file = trained(run, 2)
    tree = load_file(file)
    tree["curve/val_loss"] = tree["curve/val_loss"] + 0.01
    rewritten(file, tree)


def forged_weights(run):
    file = trained(run, 2)
    tree = load_file(file)
    tree["final/3.bias"] = tree["final/3.bias"].roll(1, 1) + 3
    rewritten(file, tree)


FORGED = {
    forged_seed: "it belongs elsewhere: its seeds is [1, 0]",
    forged_mask: "",
    forged_table: "every table is what its rounds make of it",
    forged_number: "final_test_accuracy is from 0 to 1, not 7",
    forged_loss: "the val loss at the end is that of the saved weights",
    forged_weights: "the val accuracy at the end is that of the saved weights",
}


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_files_forged_together_with_the_manifest_are_found_by_what_follows_from_them(forge, copy, ltx):
    forge(copy)
    sealed_again(copy)
    said = ltx("verify", copy, "--data")
    assert said.code == 1
    assert FORGED[forge] in said.out


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    run = execute(compose([*TINY, "controls=[]", f"out={tmp_path_factory.mktemp('connected')}"]))
    connect(run, levels="0,1")
    return run


def redrawn(run):
    """connect.csv with another number, and the manifest forged to fit."""
    edit(run / "connect" / "barriers.csv", ",0.", ",1.")
    sealed_again(run)


def moved(run):
    first, second = (run / "connect" / f"level_{level:02d}_step_0.safetensors" for level in (0, 1))
    swap(first, second)
    sealed_again(run)


def another_mask(run):
    file = run / "connect" / "level_01_step_0.safetensors"
    rewritten(file, load_file(file), mask=header_of(file.with_stem("level_00_step_0"))["mask"])
    sealed_again(run)


ANSWERS = {
    redrawn: "connect's tables are what its answers make of them: ",
    moved: "every answer of connect belongs where it lies: ",
    another_mask: "every answer of connect belongs where it lies: ",
}


@pytest.mark.parametrize("harm", ANSWERS, ids=lambda harm: harm.__name__)
def test_what_connect_answered_is_checked(harm, connected, tmp_path, ltx):
    run = Path(shutil.copytree(connected, tmp_path / connected.parent.name / connected.name))
    held = json.loads(ltx("verify", run, "--json").out)[0]["held"]
    assert held["every answer of connect belongs where it lies"] == 2
    assert held["connect's tables are what its answers make of them"] == 2
    harm(run)
    said = ltx("verify", run)
    assert said.code == 1
    assert ANSWERS[harm] in said.out


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    words = [*TINY, "method.levels=1", "controls=[]"]
    jobs = [
        Job([*words, f"seed={seed}"], execute(compose([*words, f"seed={seed}", f"out={out}"])))
        for seed in (0, 2)
    ]
    Sweep(out / "sweeps" / "two", "local", jobs).write()
    return out


PLANS = {
    "seed=2": (lambda plan, runs: edit(plan, '"seed=2"', '"seed=3"'), "the plan has seed=3; "),
    "a setting": (
        lambda plan, runs: edit(plan, "recipe.steps=30", "recipe.steps=31"),
        "the plan has recipe.steps=31; ",
    ),
    "a run gone": (lambda plan, runs: shutil.rmtree(runs[1]), "every job of the plan has a complete run: "),
    "a table": (lambda plan, runs: edit(runs[0] / "levels.csv", ",0.", ",1."), "it is damaged: "),
    "half a plan": (lambda plan, runs: os.truncate(plan, 30), "the plan can be read: "),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_sweep_s_plan_is_checked_with_all_its_runs(what, swept, tmp_path, ltx):
    out = Path(shutil.copytree(swept, tmp_path / "out"))
    plan = out / "sweeps" / "two" / "sweep.json"
    told = json.loads(ltx("verify", plan.parent, "--json").out)
    assert [found["broken"] for found in told] == [[], [], []]
    assert told[2]["held"]["every job of the plan has a complete run"] == 2
    assert told[2]["held"]["every run is what its job asks for"] == 2 * 3  # steps, eval_every, seed
    harm, message = PLANS[what]
    harm(plan, [job.folder for job in Sweep.read(plan).jobs])
    for path in (out, plan.parent):
        said = ltx("verify", path, "--json")
        assert said.code == 1
        assert any(message in line for found in json.loads(said.out) for line in found["broken"]), said.out


def test_a_run_that_has_grown_is_still_what_its_job_asked_for(swept, tmp_path, ltx):
    out = Path(shutil.copytree(swept, tmp_path / "out"))
    execute(compose([*TINY, "method.levels=2", "controls=[]", "seed=0", f"out={out}"]))
    assert ltx("verify", out).code == 0


def test_what_could_not_be_checked_is_said(copy, ltx, tmp_path):
    edit(copy / "config.yaml", "name: lenet", "name: nosuchmodel")
    sealed_again(copy)
    said = ltx("verify", copy)
    assert "not checked: tickets, controls and tables: " in said.out
    (tmp_path / "empty").mkdir()
    assert ltx("verify", tmp_path / "empty").code == 2


def strange(copy, tmp_path):
    """A run whose configuration names code that leaves a file behind when it is imported."""
    (tmp_path / "evil_ltx.py").write_text(
        f"open({str(tmp_path / 'PWNED')!r}, 'w').close()\ndef net(shape, classes): ...\n"
    )
    config = (copy / "config.yaml").read_text().splitlines(keepends=True)
    first = next(n for n, line in enumerate(config) if line.startswith("model:"))
    last = next(n for n in range(first + 1, len(config)) if config[n][0] not in " -")
    custom = ["model:\n", "  name: custom\n", "  path: evil_ltx:net\n"]
    (copy / "config.yaml").write_text("".join([*config[:first], *custom, *config[last:]]))
    sealed_again(copy)


@pytest.mark.parametrize("command", ["verify", "connect", "compare", "load", "examples"])
def test_code_that_a_folder_names_is_not_run(command, copy, ltx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    strange(copy, tmp_path)
    why = "model.path=evil_ltx:net"
    if command in ("load", "examples"):
        run = package.load(copy)
        with pytest.raises(UserError, match=re.escape(why)):
            run.network(1, 0) if command == "load" else run.examples()
    else:
        said = ltx(command, copy)
        assert why in said.out + said.err
        assert said.code == (0 if command == "verify" else 2)
    assert not (tmp_path / "PWNED").exists()


def test_code_is_run_where_it_is_trusted(copy, ltx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    strange(copy, tmp_path)
    ltx("compare", copy, "--trust")
    assert (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("lost", ["examples", "fingerprint", "seeds"])
@pytest.mark.parametrize("command", ["show", "connect", "compare", "export"])
def test_a_manifest_that_lacks_what_every_one_says_is_damaged(command, lost, copy, ltx):
    said = json.loads((copy / "manifest.json").read_text())
    del said[lost]
    (copy / "manifest.json").write_text(json.dumps(said))
    told = ltx(command, copy)
    assert told.code == 2
    (line,) = told.err.splitlines()
    assert f"manifest.json is damaged: it does not say its {lost}" in line
