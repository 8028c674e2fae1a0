"""Tables: how they are split and scaled, what is refused in one line, and the methods that run on them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ltx.data import DATASETS
from ltx.data.table import Table

SMALL = (
    *("model.hidden=[8]", "replicates=2", "controls=[]", "recipe.batch_size=16"),
    *("recipe.steps=40", "recipe.eval_every=20"),
)


@pytest.fixture
def rows():
    """Sixty rows of three classes, of ten owners, of whom each has six rows of one class or two."""
    draw = np.random.default_rng(0)
    kind = np.repeat(["ash", "elm", "oak"], 20)
    return pd.DataFrame(
        {
            "height": draw.normal(size=60) + 3 * (kind == "oak"),
            "girth": draw.normal(size=60) * 40 + 100,
            "bark": np.where(draw.random(60) < 0.5, "rough", "smooth"),
            "owner": np.repeat([f"o{i}" for i in range(10)], 6),
            "kind": kind,
            "price": draw.normal(size=60) * 7 + 50,
        }
    )


def saved(folder, frame, name="trees.csv"):
    frame.to_csv(folder / name, index=False)
    return folder / name


# --- splits and scales ----------------------------------------------------------------------------


def test_columns_become_inputs_by_name(tmp_path, rows, caplog):
    data = Table(path=str(saved(tmp_path, rows)), target="kind", drop=["owner", "price"]).load()
    assert data.names == ("height", "girth", "bark=rough", "bark=smooth")
    assert data.groups == {"height": (0,), "girth": (1,), "bark": (2, 3)}
    assert "column bark is text: it becomes an input for each of rough, smooth" in caplog.text
    assert (data.shape, data.outputs, data.goal) == ((4,), 3, "classification")
    assert [len(split) for split in (data.train, data.val, data.test)] == [42, 6, 12]
    assert data.test.targets.bincount().tolist() == [4, 4, 4]


def test_scales_are_of_the_training_rows_alone(tmp_path, rows):
    path = str(saved(tmp_path, rows))
    for scale, at in (
        ("standard", lambda x: (x.mean(0), x.std(0, correction=0))),
        ("minmax", lambda x: x.aminmax(dim=0)),
    ):
        data = Table(path=path, target="kind", drop=["owner", "price", "bark"], scale=scale).load()
        first, second = at(data.train.inputs)
        torch.testing.assert_close(first, torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(second, torch.ones(2))
        other, _ = at(data.test.inputs)
        assert float(other.abs().min()) > 1e-3


def test_a_group_is_on_one_side_only(tmp_path, rows):
    """Recognised by a number that only its owner's rows have."""
    rows["number"] = rows.owner.str[1:].astype(float)
    data = Table(
        path=str(saved(tmp_path, rows)), target="kind", drop=["price", "bark"], group="owner", scale="none"
    ).load()
    sides = [
        set(split.inputs[:, data.names.index("number")].tolist())
        for split in (data.train, data.val, data.test)
    ]
    assert [len(side) for side in sides] == [7, 1, 2]
    assert len(set.union(*sides)) == 10


def test_numbers_are_standardised_and_told_in_their_own_unit(tmp_path, rows):
    data = Table(path=str(saved(tmp_path, rows)), target="price", drop=["owner", "kind"]).load()
    assert data.goal == "regression"
    assert float(data.train.targets.mean()) == pytest.approx(0, abs=1e-6)
    assert float(data.train.targets.std(correction=0)) == pytest.approx(1, abs=1e-6)
    whole = torch.cat([split.targets for split in (data.train, data.val, data.test)])[:, 0].sort().values
    own, price = whole.numpy() * data.unit, np.sort(rows.price)
    np.testing.assert_allclose(own - own[0], price - price[0], rtol=1e-4, atol=1e-4)


def test_missing_values_are_filled_from_the_training_rows_or_their_rows_left_out(tmp_path, rows):
    rows.loc[[3, 40], "girth"] = np.nan
    path = str(saved(tmp_path, rows))
    known = {"path": path, "target": "kind", "drop": ["owner", "price", "bark"]}
    filled = Table(**known, missing="mean").load()
    assert sum(map(len, (filled.train, filled.val, filled.test))) == 60
    whole = torch.cat([split.inputs for split in (filled.train, filled.val, filled.test)])
    assert int((whole[:, 1].abs() < 1e-6).sum()) == 2  # the training mean, scaled, is zero
    dropped = Table(**known, missing="drop").load()
    assert sum(map(len, (dropped.train, dropped.val, dropped.test))) == 58


def test_a_table_is_the_same_in_parquet(tmp_path, rows):
    pytest.importorskip("pyarrow", reason="the extra ltx[table] is not installed")
    rows.to_parquet(tmp_path / "trees.parquet")
    known = {"target": "kind", "drop": ["owner", "price"]}
    one = Table(path=str(saved(tmp_path, rows)), **known).load()
    assert Table(path=str(tmp_path / "trees.parquet"), **known).load().fingerprint == one.fingerprint


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "sizes", "goal"),
    [
        ("breast_cancer", (30,), 2, (398, 57, 114), "classification"),
        ("wine", (13,), 3, (124, 18, 36), "classification"),
        ("diabetes", (10,), 1, (310, 44, 88), "regression"),
        ("digits_table", (64,), 10, (1_258, 180, 359), "classification"),
    ],
)
def test_what_is_built_in(name, shape, outputs, sizes, goal):
    dataset = DATASETS[name]()
    data = dataset.load()
    assert (data.shape, data.outputs, data.goal) == (shape, outputs, goal)
    assert (dataset.shape, dataset.outputs, dataset.goal) == (shape, outputs, goal)
    assert tuple(map(len, (data.train, data.val, data.test))) == sizes
    assert len(set(data.names)) == shape[0]


def test_built_in_tables_are_those_that_scikit_learn_reads():
    from sklearn import datasets

    for name in ("breast_cancer", "wine", "digits"):
        theirs = getattr(datasets, f"load_{name}")()
        source = DATASETS["digits_table" if name == "digits" else name]().source()
        np.testing.assert_array_equal(source.features.to_numpy(), theirs.data)
        np.testing.assert_array_equal(source.target, theirs.target)
    theirs = datasets.load_diabetes(scaled=False)
    source = DATASETS["diabetes"]().source()
    np.testing.assert_array_equal(source.features.to_numpy(), theirs.data)
    np.testing.assert_array_equal(source.target, theirs.target)
    assert list(source.features) == theirs.feature_names


def test_scikit_learn_is_not_imported_for_its_tables():
    code = (
        "import sys; from ltx.data import DATASETS\n"
        "[DATASETS[name]().load() for name in ('digits', 'wine', 'diabetes')]\n"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- bad tables -----------------------------------------------------------------------------------


def edited(column, value, row=4):
    def edit(rows):
        rows[column] = rows[column].astype(object)
        rows.loc[row, column] = value

    return edit


BAD = {
    "text": (edited("girth", "thick"), [], "row 5 of column girth is 'thick' where numbers belong"),
    "infinite": (edited("girth", "inf"), [], "row 5 of column girth is infinite"),
    "missing": (edited("girth", ""), [], "values are missing in girth (1): set dataset.missing=mean or"),
    "missing target": (edited("kind", "NA"), [], "values are missing in the target (1)"),
    "constant": (lambda rows: rows.insert(0, "one", 1), [], "column one has the same value in all rows"),
    "one row": (edited("kind", "yew"), [], "class yew of column kind has 1 row: it needs one each"),
    "one class": (lambda rows: rows.__setitem__("kind", "ash"), [], "column kind has one class only, ash"),
    "no such target": (None, ["dataset.target=knd"], "dataset.target=knd does not exist; did you mean kind?"),
    "no such drop": (None, ["dataset.drop=[ownr]"], "dataset.drop=ownr does not exist; did you mean owner?"),
    "no such group": (None, ["dataset.group=bork"], "dataset.group=bork does not exist; did you mean bark?"),
    "no such file": (None, ["dataset.path=nowhere.csv"], "dataset.path=nowhere.csv does not exist"),
    "a folder": (None, ["dataset.path=."], "dataset.path=. cannot be read"),
    "a device": (None, ["dataset.path=/dev/zero"], "dataset.path=/dev/zero cannot be read"),
    "kind of file": (None, ["dataset.path=trees.txt"], "it must end in .csv or .parquet"),
    "no target": (None, ["dataset.target=''"], "dataset.target is required"),
    "fractions": (None, ["dataset.test=0.95"], "dataset.test=0.95 is not possible: with dataset.val=0.1"),
    "wrong goal": (
        None,
        ["goal=regression"],
        "goal=regression is not possible: the targets of dataset=table are classes",
    ),
    "text as numbers": (None, ["dataset.classes=false"], "column kind is text"),
}


@pytest.mark.parametrize("what", [what for what, case in BAD.items() if case[2]])
def test_a_bad_table_is_one_line(ltx, tmp_path, monkeypatch, rows, what):
    edit, words, message = BAD[what]
    if edit:
        edit(rows)
    saved(tmp_path, rows)
    (tmp_path / "trees.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    known = ["dataset=table", "dataset.path=trees.csv", "dataset.target=kind", "dataset.drop=[owner,price]"]
    said = ltx("run", *SMALL, *known, *words)
    assert said.code == 2
    assert message in said.err
    assert said.err.startswith("ltx: ")
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"a,b,kind\n", "has no rows"),
        (b"a,b,kind\n1,2,x\n1,2\n", "row 2 has 2 fields where the header has 3"),
        (b"a,b,kind\n1,2,x\n1,2,3,y\n", "row 2 has 4 fields where the header has 3"),
        (b"a,a,kind\n1,2,x\n", "has two columns called a"),
        (b"a,kind\n1,caf\xe9\n", "is not UTF-8: byte 12, in line 2"),
        (b"kind\nx\ny\n", "has no column besides the target"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(ltx, tmp_path, monkeypatch, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    said = ltx("run", *SMALL, "dataset=table", "dataset.path=t.csv", "dataset.target=kind")
    assert said.code == 2
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_too_many_texts_are_no_categories(ltx, tmp_path, monkeypatch, rows):
    rows = pd.concat([rows] * 2, ignore_index=True)
    rows["name"] = [f"n{i}" for i in range(120)]
    saved(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    said = ltx("run", *SMALL, "dataset=table", "dataset.path=trees.csv", "dataset.target=kind")
    assert said.code == 2
    assert "column name is text with 120 different values" in said.err


# --- methods on tables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "measure"),
    [
        (("dataset=diabetes", "method.levels=1"), "r2"),
        (("dataset=diabetes", "method=snip", "method.densities=[0.5]"), "r2"),
        (("dataset=diabetes", "method=grasp", "method.temperature=1", "method.densities=[0.5]"), "r2"),
        (("dataset=diabetes", "method=synflow", "method.densities=[0.5]", "method.iterations=2"), "r2"),
        (("dataset=breast_cancer", "method=snip", "method.densities=[0.5]"), "accuracy"),
        (("dataset=wine", "method=criterion", "method.levels=1"), "accuracy"),
    ],
    ids=" ".join,
)
def test_methods_run_on_tables(ltx, tmp_path, words, measure):
    said = ltx("run", *SMALL, *words, f"out={tmp_path}", "recipe.steps=200", "recipe.lr=0.01")
    assert said.code == 0, said.err
    (folder,) = (path.parent for path in tmp_path.glob("*/*/manifest.json"))
    levels = pd.read_csv(folder / "levels.csv")
    assert levels.level.tolist() == [0, 0, 1, 1]
    assert levels[f"final_train_{measure}"].min() > {"r2": 0.1, "accuracy": 0.7}[measure]
    assert json.loads((folder / "manifest.json").read_text())["goal"]["measure"] == measure
    if measure == "r2":
        assert "accuracy" not in (folder / "levels.csv").read_text() + (folder / "curves.csv").read_text()
        truth = DATASETS["diabetes"]().load()
        spread = float(truth.test.targets.std(correction=0)) * truth.unit
        expected = spread * np.sqrt(1 - levels.final_test_r2)
        np.testing.assert_allclose(levels.final_test_rmse, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("dataset=diabetes", "method=grasp"),
            "method.temperature=200.0 is not possible: outputs that are no logits",
        ),
        (
            ("dataset=diabetes", "goal=classification"),
            "the targets of dataset=diabetes are numbers: choose goal=regression",
        ),
        (
            ("dataset=digits", "goal=regression"),
            "the targets of dataset=digits are classes: choose goal=classification",
        ),
        (("dataset=wine", "method=slimming"), "the network has no BatchNorm"),
        (("dataset=wine", "model=conv2"), "model conv2 needs images of at least 2x2, got 13"),
        (
            ("dataset=wine", "method=snip", "method.per_class=1000"),
            "method.per_class=1000 is not possible: some class has only",
        ),
        (("dataset=diabetes", "recipe.augment.flip=true"), "recipe.augment"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_before_training(ltx, tmp_path, words, message):
    said = ltx("run", *SMALL[1:], *words, f"out={tmp_path}")
    assert said.code == 2
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.skipif(
    not Path(os.environ.get("LTX_DATA", ""), "mice_protein.csv").is_file(),
    reason="no mice_protein.csv in LTX_DATA",
)
def test_a_mouse_is_on_one_side_if_asked():
    """72 mice of 15 rows each: by row most are on both sides, by mouse none is."""
    rows, mice = DATASETS["mice_protein"]().load(), DATASETS["mice_protein"](by="mouse").load()
    assert [len(split) for split in (rows.train, rows.val, rows.test)] == [756, 108, 216]
    assert [len(split) for split in (mice.train, mice.val, mice.test)] == [765, 105, 210]
    assert (mice.shape, mice.outputs, mice.names[0]) == ((77,), 8, "DYRK1A_N")
    assert mice.train.targets.bincount().min() == 90


def test_mice_that_are_not_there_are_one_line(ltx, tmp_path):
    said = ltx("run", *SMALL, "dataset=mice_protein", f"dataset.root={tmp_path}", f"out={tmp_path}")
    assert said.code == 2
    assert f"mice_protein is not in {tmp_path}: put there mice_protein.csv" in said.err
