"""`ltx clean`: what is freed, what stays, and what is said of it afterwards."""

import shutil
from pathlib import Path

import pytest
from conftest import TINY
from filelock import FileLock

from ltx.config.compose import compose
from ltx.experiment.execute import execute

RUN = (*TINY, "controls=[reinit]", "method.levels=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return execute(compose([*RUN, f"out={tmp_path_factory.mktemp('whole')}"]))


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / whole.parent.name / whole.name))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_yes_it_is_only_said(run, ltx):
    before = contents(run)
    told = ltx("clean", run)
    assert told.code == 0
    assert "MB would be freed: --yes frees them" in told.out
    assert contents(run) == before


def test_tables_stay_and_tensors_go(run, ltx):
    ltx("plot", run)
    before = contents(run)
    assert ltx("clean", run, "--figures", "--yes").code == 0
    after = contents(run)
    gone = {path for path in before if path.suffix in (".safetensors", ".png", ".svg")}
    assert gone
    assert set(after) == set(before) - gone
    tables = [path for path in after if path.name not in ("manifest.json", ".lock")]
    assert all(after[path] == before[path] for path in tables)
    told = ltx("verify", run)
    assert told.code == 0, told.out
    assert "only tables were kept" in told.out
    assert ltx("table", run).code == 0
    assert ltx("plot", run).code == 0
    assert ltx("verify", run).code == 0  # figures are entered as ever


def test_an_edited_table_is_found_all_the_same(run, ltx):
    ltx("clean", run, "--yes")
    (run / "levels.csv").write_text((run / "levels.csv").read_text().replace("0.", "1.", 1))
    assert ltx("verify", run).code == 1


def test_a_run_that_goes_on_is_left_alone(run, ltx):
    before = contents(run)
    with FileLock(run / ".lock"):
        told = ltx("clean", run, "--yes")
    assert told.code == 2
    assert "in use by another ltx process" in told.err
    assert contents(run).keys() == before.keys()


def test_the_same_command_trains_again_to_the_same_tables(whole, run, ltx):
    ltx("clean", run, "--yes")
    assert ltx("run", *RUN, f"out={run.parent.parent}").code == 0
    for name in ("levels.csv", "curves.csv", "masks.csv", "layers.csv"):
        mine, theirs = ((folder / name).read_text().splitlines() for folder in (run, whole))
        assert len(mine) == len(theirs), name
    assert list(run.glob("level_01/ticket/trained.safetensors"))
    assert "only tables were kept" not in ltx("verify", run).out
