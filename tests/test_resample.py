"""Folds and halves: replicates of one stack, each on examples of its own, choose what a run chooses."""

import pandas as pd
import pytest
import torch
from conftest import compose_task

from ltx.config.compose import compose
from ltx.core.resample import fitted, folds, halves
from ltx.core.session import Session
from ltx.core.ticket import Round
from ltx.engine.train import train
from ltx.experiment.execute import execute
from ltx.pruning.masks import packed
from ltx.pruning.path import most_often
from ltx.results import load
from ltx.study.show import summary

TINY = [
    *("method=lassonet", "model=skip_mlp", "model.hidden=[8]", "dataset=wine", "controls=[]", "replicates=4"),
    *("recipe.batch_size=20", "recipe.lr=1e-2", "recipe.steps=60", "recipe.eval_every=10", "method.folds=4"),
    *("method.path_multiplier=2", "method.path_epochs=3", "method.path_lr=1e-2", "method.trees=10"),
]


def test_folds_are_apart_stratified_and_together_everything():
    task, _ = compose_task(*TINY)
    rows, targets = folds(task.data, task.seeds, 4), task.data.train.targets
    for train_rows, val_rows in zip(rows.train, rows.val, strict=True):
        assert not set(train_rows.tolist()) & set(val_rows.tolist())
        counts = torch.bincount(targets[val_rows])
        assert (counts - torch.bincount(targets) / 4).abs().max() <= 1
    left_out = rows.val.flatten().tolist()
    assert len(left_out) == len(set(left_out)) == len(targets) // 4 * 4
    assert torch.equal(folds(task.data, (9, 8, 7, 6), 4).val, rows.val)  # the folds are no matter of the seed


def test_rows_of_one_group_are_on_one_side_of_every_fold_and_half():
    data = compose_task(
        "dataset=mice_protein", "dataset.by=mouse", "model=skip_mlp", "method=lassonet", "controls=[]"
    )[0].data
    assert len(data.owners) == len(data.train)
    for rows in (folds(data, range(5), 5), halves(data, range(5), 0)):
        for train_rows, val_rows in zip(rows.train, rows.val, strict=True):
            assert not set(data.owners[train_rows].tolist()) & set(data.owners[val_rows].tolist())


def test_a_fold_of_a_stack_is_a_training_on_its_rows_alone():
    """Beside the others it becomes what it becomes alone, and is judged by what it has left out."""
    task, plan = compose_task(*TINY)
    rows = folds(task.data, task.seeds, 4)
    together = train(task, Round(0, task.dense(), fitted(plan, rows), rows=rows), Session())
    alone = task.only(2)
    one = train(alone, Round(0, alone.dense(), fitted(plan, rows), rows=rows.part(range(2, 3))), Session())
    for name, weights in one.final.items():
        torch.testing.assert_close(weights[0], together.final[name][2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.curve.val_loss[0], together.curve.val_loss[2], atol=1e-5, rtol=1e-4)
    left_out = task.data.train.take(rows.val[2])
    outputs = task.network()
    outputs.load_state_dict({name: tensor[2] for name, tensor in together.final.items()})
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(outputs(left_out.inputs), left_out.targets)
    assert float(together.curve.val_loss[2, -1]) == pytest.approx(float(loss), rel=1e-5)


def test_folds_choose_the_number_and_the_features_that_most_of_them_keep(tmp_path):
    results = load(execute(compose([*TINY, "method.resample=folds", f"out={tmp_path}"])))
    levels, resampled = results.levels, results.resampled
    assert (levels[levels.role == "search"].groupby("draw").seed.nunique() == 4).all()
    by_fold = {}  # of each fold the loss at the first point with at most so many features
    for seed, path in resampled.groupby("seed"):
        by_fold[seed] = [path[path.features <= k].val_loss.iloc[0] for k in range(1, 14)]
    mean = pd.DataFrame(by_fold).mean(axis=1)
    best = mean.idxmin()
    within = mean[best] + pd.DataFrame(by_fold).loc[best].std() / 2
    fewest = next(k for k, loss in enumerate(mean, start=1) if loss <= within)
    kept = results.trees[results.trees.level == 1].features
    assert set(kept) == {fewest}
    masks = results.ticket(1).mask["skip.weight"].any(1)
    assert (masks == masks[0]).all()
    costs = results.costs
    spent = costs[costs.role == "search"].groupby("seed").steps.sum() + 60
    paid = costs[(costs.role == "ticket") & (costs.level == 1)].set_index("seed").search_steps
    assert paid.tolist() == spent.tolist()


def test_halves_tell_how_often_a_feature_is_kept_and_all_seeds_keep_the_most_frequent(tmp_path, capsys):
    results = load(
        execute(compose([*TINY, "method.resample=halves", "method.features=[5]", f"out={tmp_path}"]))
    )
    masks = results.ticket(1).mask["skip.weight"].any(1)
    assert masks.sum(1).tolist() == [5] * 4
    assert (masks == masks[0]).all()
    assert set(results.selection.seed) == {0, 1, 2, 3}
    names = {file.name: file for file in results.draw()}
    assert "feature_selection.png" in names
    left = pd.read_csv(names["features.csv"])
    assert left["rank"].is_monotonic_decreasing
    assert left.low.le(left["rank"]).all()
    assert left.high.ge(left["rank"]).all()
    top = results.selection[results.selection["rank"] <= 5].feature.value_counts() / 4
    assert left.set_index("feature").probability[top.index].tolist() == pytest.approx(top.tolist())
    summary(results.folder)
    said = capsys.readouterr().out
    assert "5 features were chosen on 4 resamples, at lambda " in said
    assert "trees on the 5 features of level 1: test accuracy " in said
    judged = results.trees[results.trees.level == 1]
    assert judged.test_accuracy.between(0.5, 1).all()


def test_most_often_counts_networks_and_then_time():
    alive = torch.tensor(
        [[[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]]
    )
    memo = {
        "points": torch.tensor([4, 4]),
        "lambdas": torch.arange(4.0).expand(2, -1),
        "alive": packed(alive.bool()),
    }
    assert most_often(memo, 3, 2).tolist().count(True) == 2
    assert most_often(memo, 3, 2)[1]  # in both networks of two
