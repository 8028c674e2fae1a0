"""Asking for more of a run trains only what is missing, and ends with the bits of a run that had it from the start."""

import pandas as pd
import pytest
import torch
from conftest import TINY
from helpers import assert_same

from ltx.config.compose import compose
from ltx.experiment.execute import execute

SNIP = (
    *TINY[:2],
    "method=snip",
    "recipe.steps=30",
    "recipe.eval_every=10",
    "method.per_class=2",
    "controls=[]",
)
SLIM = (
    *("model=resnet20", "model.width=0.1", "method=channel_random", "recipe.steps=4", "recipe.eval_every=2"),
    *("recipe.optimizer=sgd", "recipe.lr=0.01", "replicates=1", "controls=[]"),
)
IMP = (*(word for word in TINY if not word.startswith("method.levels")), "controls=[]")

GROWS = {
    "levels": (IMP, ["method.levels=2"], ["method.levels=4"], ["3/ticket", "4/ticket"]),
    "controls": (
        IMP,
        ["method.levels=2"],
        ["method.levels=2", "controls=[reinit,shuffle]"],
        ["1/reinit", "1/shuffle", "2/reinit", "2/shuffle"],
    ),
    "draws": (
        IMP,
        ["method.levels=2", "controls=[reinit]"],
        ["method.levels=2", "controls=[reinit]", "control_draws=2"],
        ["1/reinit_1", "2/reinit_1"],
    ),
    "densities": (
        SNIP,
        ["method.densities=[0.5,0.1]"],
        ["method.densities=[0.5,0.2,0.1]"],
        ["2/ticket"],
    ),
    "densities and their controls": (
        SNIP,
        ["method.densities=[0.5,0.1]", "controls=[reinit]"],
        ["method.densities=[0.5,0.2,0.1]", "controls=[reinit]"],
        ["2/ticket", "2/reinit", "3/reinit"],  # a control is drawn for its level: those of 0.1 are others now
    ),
    "ratios": (SLIM, ["method.ratios=[0.5]"], ["method.ratios=[0.3,0.5]"], ["1/ticket"]),
}


def go(out, *overrides):
    return execute(compose([*overrides, f"out={out}"]))


@pytest.mark.parametrize("what", GROWS)
def test_asking_for_more_trains_what_is_missing(what, tmp_path, rounds):
    run, less, more, missing = GROWS[what]
    torch.set_num_threads(1)
    folder = go(tmp_path / "grown", *run, *less)
    rounds.clear()
    assert go(tmp_path / "grown", *run, *more) == folder
    assert rounds == missing
    assert_same(folder, go(tmp_path / "whole", *run, *more))


@pytest.mark.parametrize("what", ["levels", "draws", "densities"])
def test_asking_for_less_keeps_the_rest(what, tmp_path, rounds, ltx):
    run, less, more, _ = GROWS[what]
    folder = go(tmp_path, *run, *more)
    rows = pd.read_csv(folder / "levels.csv")
    before = {file: file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}
    rounds.clear()
    said = ltx("run", *run, *less, f"out={tmp_path}")
    assert said.code == 0
    assert rounds == []
    assert "was complete already; nothing was trained" in said.err
    assert "has more than was asked for, which is kept: " in said.err
    pd.testing.assert_frame_equal(pd.read_csv(folder / "levels.csv"), rows)
    assert {file.name for file, content in before.items() if file.read_bytes() != content} <= {
        "manifest.json"
    }


def test_fewer_levels_than_an_interrupted_run_was_begun_with_end_it_there(tmp_path, rounds):
    folder = go(tmp_path, *IMP, "method.levels=1")
    rounds.clear()
    (folder / "config.yaml").write_text(
        (folder / "config.yaml").read_text().replace("levels: 1", "levels: 9")
    )
    go(tmp_path, *IMP, "method.levels=2")
    assert rounds == ["2/ticket"]
