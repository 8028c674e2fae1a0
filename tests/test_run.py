"""What a run writes: the tables' columns, and how their numbers hang together."""

import json

import pandas as pd
import pytest
import torch
from conftest import TINY
from helpers import header_of, ticket_on_disk
from safetensors.torch import load_file

from ltx.config.compose import compose
from ltx.experiment.execute import execute

LEVELS = (
    "config method role draw level seed density weights_remaining early_stop_step early_stop_val_loss "
    "early_stop_test_accuracy final_test_accuracy final_train_accuracy steps seconds diverged censored "
    "early_stop_test_balanced_accuracy final_test_balanced_accuracy engine"
).split()
CURVES = (
    "role draw level seed step train_loss val_loss val_accuracy test_accuracy "
    "val_balanced_accuracy test_balanced_accuracy"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small run with every control, two draws each."""
    torch.set_num_threads(1)
    overrides = [*TINY, "controls=[reinit,shuffle,random]", "control_draws=2", "method.levels=2"]
    return execute(compose([*overrides, f"out={tmp_path_factory.mktemp('run')}"]))


@pytest.fixture(scope="module")
def tables(folder):
    return {name: pd.read_csv(folder / f"{name}.csv") for name in ("levels", "curves", "layers")}


def test_the_columns_are_the_documented_ones(tables):
    assert list(tables["levels"]) == LEVELS
    assert list(tables["curves"]) == CURVES
    assert list(tables["layers"]) == "role draw level seed layer kind size kept".split()


def test_there_is_a_row_for_every_network(tables):
    networks = tables["levels"].groupby(["role", "draw", "level"]).seed.apply(list)
    assert all(seeds == [0, 1] for seeds in networks)
    expected = {("ticket", 0, level) for level in range(3)}
    expected |= {(c, d, level) for c in ("reinit", "shuffle", "random") for d in (0, 1) for level in (1, 2)}
    assert set(networks.index) == expected


def test_a_network_is_censored_whose_least_validation_loss_is_its_last(tables):
    networks = tables["curves"].groupby(["role", "draw", "level", "seed"], sort=False).val_loss
    last = networks.apply(lambda loss: loss.iloc[-1] == loss.min()).astype(int)
    assert (
        tables["levels"]
        .set_index(last.index.names)
        .censored.sort_index()
        .equals(last.rename("censored").sort_index())
    )


def test_a_run_that_is_too_short_for_early_stop_says_so_once(tmp_path, ltx):
    short = ["recipe.steps=50", "recipe.eval_every=10", "method.levels=1", "replicates=5"]
    said = ltx("run", "config=digits_lenet", *short, f"out={tmp_path}").err
    levels = pd.read_csv(next(tmp_path.rglob("levels.csv")))
    censored = levels[(levels.level == 0) & (levels.role == "ticket")].censored.sum()
    assert censored > 1
    assert said.count("still improving") == 1
    assert f"{censored} of 5 networks were still improving at the last step: raise recipe.steps" in said


def test_a_control_has_its_ticket_s_density(tables):
    assert (tables["levels"].groupby("level").weights_remaining.nunique() == 1).all()


def test_density_is_weights_over_all_weights(tables):
    levels = tables["levels"]
    total = tables["layers"].groupby(["role", "draw", "level", "seed"])["size"].sum().unique()
    assert total.tolist() == [64 * 16 + 16 * 10]
    assert levels.density.tolist() == pytest.approx((levels.weights_remaining / total[0]).tolist())


def test_layers_add_up_to_levels(tables):
    key = ["role", "draw", "level", "seed"]
    kept = tables["layers"].groupby(key).kept.sum()
    assert kept.equals(tables["levels"].set_index(key).weights_remaining.sort_index().rename("kept"))
    ticket = tables["layers"].query("role == 'ticket' and seed == 0")
    assert ticket[ticket.layer == "1.weight"].kept.tolist() == [1024, 819, 655]  # round(1024 x 0.8^n)
    assert ticket[ticket.layer == "3.weight"].kept.tolist() == [160, 144, 130]  # round(160 x 0.9^n)
    assert set(ticket.kind) == {"dense", "output"}


def test_early_stop_is_the_least_validation_loss_of_the_curve(tables):
    curves = tables["curves"].groupby(["role", "draw", "level", "seed"])
    for row in tables["levels"].itertuples():
        curve = curves.get_group((row.role, row.draw, row.level, row.seed))
        best = curve.loc[curve.val_loss.idxmin()]
        assert row.early_stop_step == best.step
        assert row.early_stop_val_loss == best.val_loss
        assert row.early_stop_test_accuracy == best.test_accuracy
        assert row.final_test_accuracy == curve.iloc[-1].test_accuracy
        assert curve.step.tolist() == [0, 10, 20, 30]
        assert curve.train_loss.isna().tolist() == [True, False, False, False]
        assert row.steps == 30


def test_accuracies_are_fractions_of_the_examples(tables):
    counts = tables["curves"].test_accuracy * 360
    assert (counts - counts.round()).abs().max() < 1e-3
    assert tables["levels"].final_train_accuracy.between(0, 1).all()


def test_the_manifest_says_what_was_run(folder):
    told = json.loads((folder / "manifest.json").read_text())
    assert told["command"].startswith("ltx run ")
    assert told["normalisation"] == {"mean": [0.3047035038471222], "std": [0.3758764863014221]}
    assert told["status"] == "complete"
    assert told["config"] == "digits_lenet"
    assert told["seeds"] == [0, 1]
    assert told["examples"] == {"train": 1257, "val": 180, "test": 360}
    assert told["engine"] == "stacked"
    assert {"ltx", "torch", "python"} <= set(told["versions"])
    assert told["weights"] == 1184


def test_every_weight_that_was_pruned_is_zero_on_disk(folder):
    for place in folder.glob("level_*/*"):
        (mask, _), trained = ticket_on_disk(place), load_file(place / "trained.safetensors")
        for name in ("1.weight", "3.weight"):
            alive = mask[name]
            assert (trained[f"final/{name}"][~alive] == 0).all()
            assert (trained[f"final/{name}"][alive] != 0).any()


def test_tickets_start_from_the_weights_of_the_rewind_step(folder):
    at = header_of(folder / "level_00/ticket/trained.safetensors")["at"]
    dense = load_file(folder / "weights" / f"{at['0']}.safetensors")
    for level in (1, 2):
        _, weights = ticket_on_disk(folder / f"level_0{level}/ticket")
        assert torch.equal(weights["1.weight"], dense["1.weight"])


# methods.md 1.4: percent of weights remaining, as the paper has them or as its formula gives them
SEQUENCES = {
    "lenet": ("mnist", [100, 80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07, 16.88, 13.52, 10.83, 8.68,
                        6.95, 5.57, 4.47, 3.58, 2.87, 2.31, 1.85, 1.49, 1.19]),
    "conv2": ("cifar10", [100, 80.10, 64.16, 51.41, 41.20, 33.02, 26.47, 21.23, 17.03, 13.66, 10.97, 8.81]),
}  # fmt: skip


@pytest.mark.parametrize("model", SEQUENCES)
def test_the_densities_are_the_paper_s(model):
    dataset, percents = SEQUENCES[model]
    rates = ["method.conv_rate=0.1"] if model == "conv2" else []
    run = compose([f"model={model}", f"dataset={dataset}", f"method.levels={len(percents) - 1}", *rates]).run
    layers = run.layers(run.dataset.shape, 10)
    ours = [100 * sum(run.method.kept(layers, n).values()) / layers.total for n in range(len(percents))]
    assert ours == pytest.approx(percents, abs=0.006)


def test_the_counts_of_the_default_experiment():
    run = compose([]).run
    layers = run.layers((1, 8, 8), 10)
    counts = [sum(run.method.kept(layers, n).values()) for n in range(17)]
    assert counts[:5] == [50_200, 40_260, 32_298, 25_919, 20_808]
    assert counts[16] == round(19_200 * 0.8**16) + round(30_000 * 0.8**16) + round(1_000 * 0.9**16)


def test_a_diverged_run_ends_and_says_so(tmp_path, ltx):
    wild = ("recipe.optimizer=sgd", "recipe.lr=1e30", "controls=[]", "method.levels=1")
    said = ltx("run", *TINY, *wild, f"out={tmp_path}")
    assert said.code == 0, said.err
    assert "2 of 2 diverged" in said.err
    assert "diverged" in said.out
    levels = pd.read_csv(next(tmp_path.rglob("levels.csv")))
    assert levels.diverged.tolist() == [1, 1, 1, 1]
    assert levels.early_stop_step.tolist() == [0, 0, 0, 0]  # the only evaluation with a finite loss


def test_oneshot_prunes_one_dense_network_to_every_density(tmp_path):
    folder = execute(compose([*TINY, "method=oneshot", "controls=[]", f"out={tmp_path}"]))
    levels = pd.read_csv(folder / "levels.csv").query("seed == 0")
    assert levels.weights_remaining.tolist() == [1184, 819 + 144, 655 + 130]


def test_a_run_on_another_seed_is_the_same_network_in_another_batch(folder, tmp_path):
    """Seed 1 alone does what it did beside seed 0."""
    overrides = [*TINY, "seed=1", "replicates=1", "controls=[]", "method.levels=1"]
    alone = pd.read_csv(execute(compose([*overrides, f"out={tmp_path}"])) / "levels.csv")
    beside = pd.read_csv(folder / "levels.csv").query("role == 'ticket' and seed == 1 and level < 2")
    for column in ("weights_remaining", "early_stop_step", "early_stop_val_loss", "final_test_accuracy"):
        assert alone[column].tolist() == beside[column].tolist()
