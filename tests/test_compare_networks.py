"""`ltx compare`: what it says of networks is what plain PyTorch says of them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY

import ltx as package
from ltx.manifest import sound
from ltx.report.figures import networks as figures
from ltx.results import load

WORDS = (*TINY, "replicates=3", "recipe.steps=200", "recipe.eval_every=100")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    package.run(package.compose(*WORDS, f"out={out}"))
    (folder,) = (out / "digits_lenet").iterdir()
    return folder


@pytest.fixture
def compared(run, ltx):
    said = ltx("compare", run)
    assert said.code == 0, said.err
    return pd.read_csv(run / "compare" / "compare.csv")


def test_it_is_a_table_and_a_figure_that_the_manifest_knows(run, compared, ltx):
    files = {"compare.csv", "compare.md", "compare.png", "compare.svg"}
    assert {file.name for file in (run / "compare").iterdir()} == files
    assert files == {name.removeprefix("compare/") for name in sound(run)["files"] if "compare/" in name}
    drawn = (run / "compare" / "compare.svg").read_text()
    for word in (
        "With the pruned solution",
        "ticket, n = 3",
        "reinit, n = 3",
        "Percent of weights remaining",
    ):
        assert word in drawn
    assert ltx("verify", run).code == 0


def test_the_figure_s_points_are_the_means_of_the_table(run, compared):
    rows = compared.assign(ensemble_gain=compared.ensemble - compared.accuracy)
    rows = rows[rows.level > 0]
    axes = figures.agreement(rows, "").axes
    assert [panel.get_title(loc="left") for panel in axes] == list(figures.PANELS.values())
    for panel, measure in zip(axes, figures.PANELS, strict=True):
        for line, role in zip(panel.containers, ("reinit", "ticket"), strict=True):
            expected = 100 * of(rows, role=role).groupby("level")[measure].mean()
            assert sorted(line[0].get_ydata()) == pytest.approx(sorted(expected))


def test_dense_networks_alone_are_not_drawn(run, tmp_path, ltx):
    alone = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("compare")))
    assert ltx("compare", alone, "--levels", "0").code == 0
    assert not (alone / "compare" / "compare.svg").exists()


def of(rows, **which):
    for key, value in which.items():
        rows = rows[rows[key] == value]
    return rows


def test_accuracies_are_those_of_the_run(run, compared):
    levels = load(run).levels
    for row in compared.itertuples():
        (there,) = of(levels, level=row.level, role=row.role, seed=row.seed).final_test_accuracy
        assert row.accuracy == pytest.approx(there, abs=1e-6)
        (density,) = of(levels, level=row.level, role=row.role, seed=row.seed).density
        assert row.density == pytest.approx(density)
    assert len(compared) == 3 + 2 * 2 * 3


def test_disagreement_ensemble_and_distance_are_plain_pytorch_s(run, compared):
    results = load(run)[0]
    inputs, targets = results.examples("test")
    with torch.no_grad():
        outputs = {
            (level, seed): results.network(level, seed).eval()(inputs)
            for level in (0, 2)
            for seed in (0, 1, 2)
        }
    mine = of(compared, level=2, role="ticket", seed=1)
    classes = {key: value.argmax(1) for key, value in outputs.items()}
    others = [(classes[2, 1] != classes[2, seed]).double().mean() for seed in (0, 2)]
    assert mine.disagreement.item() == pytest.approx(float(sum(others) / 2), abs=1e-6)
    dense = (classes[2, 1] != classes[0, 1]).double().mean()
    assert mine.dense_disagreement.item() == pytest.approx(float(dense), abs=1e-6)
    together = torch.stack([outputs[2, seed].softmax(1) for seed in (0, 1, 2)]).mean(0).argmax(1)
    assert mine.ensemble.item() == pytest.approx(float((together == targets).double().mean()), abs=1e-6)
    one, other = (results.network(level, 1).state_dict() for level in (2, 0))
    squares = sum((one[name] - other[name]).double().square().sum() for name in one)
    assert mine.dense_l2.item() == pytest.approx(float(squares.sqrt()), abs=1e-4)


def test_the_pruned_solution_is_the_level_before_under_the_mask(run, compared):
    results = load(run)[0]
    inputs, _ = results.examples("test")
    ticket, parent = results.ticket(2, seed=0), results.ticket(1, seed=0)
    network = results.network(1, 0).eval()
    with torch.no_grad():
        for name, alive in ticket.mask.items():
            network.get_parameter(name).copy_(torch.where(alive, parent.trained[name], 0))
        theirs, mine = network(inputs).argmax(1), results.network(2, 0).eval()(inputs).argmax(1)
    row = of(compared, level=2, role="ticket", seed=0)
    assert row.solution_disagreement.item() == pytest.approx(
        float((theirs != mine).double().mean()), abs=1e-6
    )
    assert row.solution_barrier.item() >= -1e-6


def test_tickets_are_nearer_to_what_they_were_cut_from_than_reinitialised_ones(compared):
    near = compared[compared.level > 0].groupby("role").solution_l2.mean()
    assert near.ticket < near.reinit / 2


def test_another_run_beside_it(run, tmp_path, ltx):
    package.run(package.compose(*WORDS, "seed=5", f"out={tmp_path}"))
    (other,) = (tmp_path / "digits_lenet").iterdir()
    said = ltx("compare", run, "--other", other, "--levels", "0,1")
    assert said.code == 0, said.err
    rows = pd.read_csv(run / "compare" / "compare.csv")
    assert set(rows.level) == {0, 1}
    assert rows.other_disagreement.between(0, 1).all()
    assert "disagree with the other run" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--levels", "9"], "--levels=9 is not possible: the run has levels 0, 1, 2"),
        (["--levels", "²"], "the run has levels 0, 1, 2"),
        (["--levels", "9" * 5000], "the run has levels 0, 1, 2"),
    ],
)
def test_what_is_not_there_is_one_line(words, message, run, ltx):
    said = ltx("compare", run, *words)
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_a_run_whose_weights_are_gone_is_one_line(ltx):
    shipped = next((Path(__file__).parent.parent / "docs/gallery").glob("digits_lenet/lenet-*"))
    assert ltx("compare", shipped).code == 2
