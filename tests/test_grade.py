"""Published claims beside runs: every quantity by hand, every verdict, and the shipped results' own."""

import json
from pathlib import Path

import pandas as pd
import pytest

from ltx.config.compose import compose
from ltx.errors import UserError
from ltx.report.grade import about, claims_dir, grade, lines, read_claims, summary
from ltx.report.quantities import QUANTITIES, Absent, Networks
from ltx.report.runs import Experiment, flat

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
BESIDE = [
    ("ticket", 0, 1, 0, 0.5, 0.96, 0.98, 0.02, 0.01),
    ("ticket", 0, 1, 1, 0.5, 0.97, 0.98, 0.02, 0.03),
    ("reinit", 0, 1, 0, 0.5, 0.94, 0.97, 0.06, 0.07),
    ("reinit", 0, 1, 1, 0.5, 0.94, 0.97, 0.06, 0.05),
]
BESIDES = "role draw level seed density accuracy ensemble disagreement solution_disagreement".split()
NETWORKS = Networks(
    pd.DataFrame(ROWS, columns=COLUMNS.split()), compared=pd.DataFrame(BESIDE, columns=BESIDES)
)


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
        ("accuracy_of_level", {"level": 2}, [0.90, 0.90]),
        ("error", {"at": 0.1}, [0.10, 0.10]),
        ("ensemble_gain", {"at": 0.5}, [0.02, 0.01]),
        ("disagreement", {"at": 0.5, "role": "reinit"}, [0.06, 0.06]),
        ("solution_disagreement", {"at": 0.5}, [0.01, 0.03]),
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


def test_what_nobody_compared_or_pruned_is_absent():
    with pytest.raises(Absent, match=r"no compare.csv: `ltx compare` writes it"):
        QUANTITIES["disagreement"](Networks(NETWORKS.levels), at=0.5)
    with pytest.raises(Absent, match="no ticket of level 7"):
        QUANTITIES["accuracy_of_level"](NETWORKS, level=7)


def test_the_shipped_claims_can_be_read():
    claims = read_claims(claims_dir())
    assert len(claims) == 65
    assert all(claim.band[0] <= claim.published <= claim.band[1] and claim.why for claim in claims)


COMPARABLE = {
    "config=mnist_lenet": 13,
    "config=mnist_lenet_snip": 3,
    "config=mnist_lenet5_snip": 3,
    "config=mnist_lenet5_gmp": 7,
    "config=cifar10_conv2": 3,
    "config=cifar10_conv4": 3,
    "config=cifar10_conv6": 3,
    "config=cifar10_resnet20_rewind": 4,
    "config=cifar10_resnet20_lr_rewind": 4,
    "config=cifar10_resnet20_finetune": 4,
    "config=cifar100_vgg16_early_bird": 3,
    "config=cifar100_vgg16_early_bird method.retrain=reinit": 3,
    "config=cifar100_vgg16_early_bird method=slimming": 3,
    "config=cifar100_vgg16_early_bird method=channel_snip": 3,
    "config=cifar100_vgg16_early_bird method=channel_oneshot": 3,
    "config=cifar10_vgg19 method=slimming method.ratios=[0.7] recipe.warmup=0": 2,
    "config=mice_lassonet": 1,
}


@pytest.mark.parametrize("words", COMPARABLE)
def test_presets_have_the_settings_that_their_papers_claims_need(words):
    config = flat(compose(words.split()).config)
    settings = {key.removesuffix(".name"): value for key, value in config.items()}
    experiment = Experiment([], settings, pd.DataFrame(), [])
    claims = [claim for claim in read_claims(claims_dir()) if about(experiment, claim)]
    assert len(claims) == COMPARABLE[words]
    assert {(key, settings[key]) for claim in claims for key in claim.needs} == {
        (key, value) for claim in claims for key, value in claim.needs.items()
    }


def test_every_claim_has_a_preset_that_it_speaks_of():
    assert sum(COMPARABLE.values()) == len(read_claims(claims_dir()))


VERDICT = {
    "Tickets stop early sooner than the dense network at 21.1 % of weights": "inside",
    "Test accuracy at early stop rises by more than 0.3 points at 13.5 %": "inside",
    "Back to the accuracy of the dense network at 3.6 %": "outside",
    "Back to the speed of the dense network at 3.6 %": "inside",
    "Accuracy at the end of training rises by up to 0.35 points": "inside",
    "Training accuracy is near 100 % for tickets with at least 2 % of weights": "inside",
    "At 21 % a ticket reaches its least validation loss sooner than reinitialised, times": "inside",
    "At 21 % a ticket is half a point more accurate than reinitialised": "inside",
    "Reinitialised networks are less accurate than the dense network at 21.1 %": "inside",
    "Dense accuracy at early stop": "inside",
    "Accuracy at 21.1 %": "inside",
    "Accuracy at 3.6 %": "inside",
    "Accuracy at 1.2 %": "outside",
    "Error of the dense network": "not comparable",  # a quarter of the paper's schedule
    "Error at 95 % sparse": "not comparable",
    "Error at 98 % sparse": "not comparable",
}


def test_the_shipped_results_keep_their_verdicts():
    assert {v.claim.statement: v.verdict for v in grade([GALLERY])} == VERDICT


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
