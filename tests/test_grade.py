"""Published claims beside runs: every quantity by hand, every verdict, and the shipped results' own."""

import json
from pathlib import Path

import pandas as pd
import pytest

from ltx.errors import UserError
from ltx.report.grade import claims_dir, grade, lines, read_claims, summary
from ltx.report.quantities import QUANTITIES, Absent, Networks

GALLERY = Path(__file__).parent.parent / "docs" / "gallery"
COLUMNS = (
    "role draw level seed density early_stop_step early_stop_test_accuracy final_test_accuracy "
    "final_train_accuracy"
)
ROWS = [
    ("ticket", 0, 0, 0, 1.0, 1000, 0.90, 0.95, 1.0),
    ("ticket", 0, 0, 1, 1.0, 2000, 0.92, 0.95, 1.0),
    ("ticket", 0, 1, 0, 0.5, 500, 0.91, 0.96, 1.0),
    ("ticket", 0, 1, 1, 0.5, 400, 0.95, 0.97, 0.8),
    ("ticket", 0, 2, 0, 0.1, 3000, 0.80, 0.90, 0.7),
    ("ticket", 0, 2, 1, 0.1, 3000, 0.80, 0.90, 0.9),
    ("reinit", 0, 1, 0, 0.5, 900, 0.90, 0.94, 1.0),
    ("reinit", 1, 1, 0, 0.5, 1100, 0.88, 0.94, 1.0),
    ("reinit", 0, 1, 1, 0.5, 800, 0.90, 0.94, 1.0),
]
NETWORKS = Networks(pd.DataFrame(ROWS, columns=COLUMNS.split()))


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("early_stop_step", {"at": 0.5}, [500, 400]),
        ("sooner_than_dense", {"at": 0.5}, 1 - 450 / 1500),
        ("times_faster_than", {"at": 0.5}, 900 / 450),  # draws of a seed count as one
        ("gain_over_dense", {"at": 0.5}, [0.01, 0.03]),
        ("gain_over_dense", {"at": 0.5, "role": "reinit"}, [-0.01, -0.02]),
        ("gain_over", {"at": 0.5}, [0.02, 0.05]),
        ("gain_over", {"at": 0.5, "when": "final"}, [0.02, 0.03]),
        ("largest_gain", {}, 0.015),
        ("smallest_matching_density", {}, 0.5),
        ("smallest_density_as_fast", {}, 0.5),
        ("accuracy", {}, [0.95, 0.95]),
        ("error", {"at": 0.1}, [0.10, 0.10]),
        ("least_train_accuracy", {"down_to": 0.4}, [1.0, 0.8]),
    ],
)
def test_quantities_are_what_a_reader_would_work_out(name, words, expected):
    found = QUANTITIES[name](NETWORKS, **words)
    found = list(found) if isinstance(found, pd.Series) else [found]
    assert found == pytest.approx(expected if isinstance(expected, list) else [expected])


def test_every_quantity_is_worked_out_here():
    tried = test_quantities_are_what_a_reader_would_work_out.pytestmark[0].args[1]
    assert {name for name, *_ in tried} == set(QUANTITIES)


def test_a_density_that_no_level_has_is_absent():
    with pytest.raises(Absent, match=r"no ticket at 30 % of weights, the nearest has (10|50) %"):
        NETWORKS.of("ticket", 0.3)


def test_the_shipped_claims_can_be_read():
    claims = read_claims(claims_dir())
    assert len(claims) >= 13
    assert all(claim.band[0] <= claim.published <= claim.band[1] and claim.why for claim in claims)


def test_the_shipped_results_keep_their_verdicts():
    verdicts = grade([GALLERY])
    outside = [v.claim.statement for v in verdicts if v.verdict == "outside"]
    assert outside == [
        "Back to the accuracy of the dense network at 3.6 %",
        "Accuracy at 1.2 %",
    ]
    assert sum(v.verdict == "inside" for v in verdicts) == 11


def write(folder, text):
    folder.mkdir()
    (folder / "mine.yaml").write_text(text)
    return folder


MINE = """
paper: Me 2026
needs: {model: lenet, dataset: mnist, method: imp, recipe.lr: LR}
seeds: SEEDS
claims:
  - {statement: dense, source: page 1, quantity: accuracy, when: final, published: 0.9, band: [BAND], why: mine}
"""


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"BAND": "0.5, 1.0"}, "inside"),
        ({"BAND": "0.5, 0.6"}, "outside"),
        ({"SEEDS": "9"}, "not enough seeds"),
        ({"LR": "0.5"}, "not comparable"),
    ],
)
def test_verdicts(changes, verdict, tmp_path, ltx):
    text = MINE
    for word, value in ({"LR": "0.0012", "SEEDS": "3", "BAND": "0.5, 1.0"} | changes).items():
        text = text.replace(word, value)
    claims = write(tmp_path / "claims", text)
    said = ltx("grade", GALLERY, "--claims", claims, "--format", "json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert found["verdict"] == verdict
    if verdict == "not comparable":
        assert found["reason"] == "recipe.lr=0.0012, the paper's is 0.5"
        assert found["value"] is None
    else:
        assert found["n"] == 3
        assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINE.replace("accuracy", "acuracy"), "quantity=acuracy does not exist; did you mean"),
        (MINE.replace("page 1,", "page 1, control: reinit,"), "accuracy takes no control"),
        (MINE.replace("why: mine", "unit: '%'"), "a claim on accuracy lacks why"),
        ("paper: [", "mine.yaml"),
        ("papers: x", "unknown key papers"),
    ],
)
def test_claims_that_cannot_be_read_are_one_line(text, message, tmp_path, ltx):
    text = text.replace("BAND", "0, 1").replace("SEEDS", "3").replace("LR", "1")
    said = ltx("grade", GALLERY, "--claims", write(tmp_path / "claims", text))
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_the_command_ends_with_how_many_there_are_of_each(ltx):
    said = ltx("grade", GALLERY / "mnist_lenet")
    assert said.out.splitlines()[-1] == "13 claims: 11 inside, 2 outside"
    assert "published 38.00 %, ours 45.90 %" in said.out
    assert ltx("grade", GALLERY / "digits_lenet").out == "no published claim speaks of these runs\n"


def test_markdown_is_a_table(ltx):
    out = ltx("grade", GALLERY / "mnist_lenet", "--format", "markdown").out
    assert {line.count("|") for line in out.splitlines()} == {6}


def test_nothing_to_grade(tmp_path):
    with pytest.raises(UserError, match="no run"):
        grade([tmp_path])
    assert list(lines([])) == [summary([])]
