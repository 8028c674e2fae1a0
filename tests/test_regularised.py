"""Neurons, filters, inputs and weights regularised away: exact zeros, whole groups, honest counts."""

import pandas as pd
import pytest
from conftest import compose_task

from ltx.config.compose import compose
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.pruning.groups import groups_of
from ltx.results import load

TINY = [
    *("model=lenet", "model.hidden=[12,8]", "dataset=digits", "controls=[]", "replicates=2"),
    *(
        "recipe.batch_size=100",
        "recipe.steps=120",
        "recipe.eval_every=60",
        "recipe.optimizer=sgd",
        "recipe.lr=0.1",
    ),
]


def ran(tmp_path, *words):
    return load(execute(compose([*TINY, *words, f"out={tmp_path}"])))


def test_a_neuron_is_its_incoming_weights_and_bias():
    task, _ = compose_task(*TINY, "method=group_lasso")
    found = groups_of(task, "neurons")
    assert [(g.name, g.count, g.size) for g in found] == [("1.weight", 12, 65), ("3.weight", 8, 13)]
    weights = task.initial()
    weights["1.bias"][:, 0] = 2.0
    weights["1.weight"][:, 0] = 0.0
    assert found[0].norms(weights)[:, 0].tolist() == [2.0, 2.0]
    found[0].shrink(weights, 1.0)
    assert not weights["1.bias"][:, 0].any()  # √65 is more than 2


def test_a_filter_has_its_batchnorm():
    task, _ = compose_task("model=resnet20", "model.width=0.25", "dataset=digits", "controls=[]",
                           "method=group_lasso", "prunable.shortcut=true", "recipe.batch_size=100")  # fmt: skip
    found = {g.name: g for g in groups_of(task, "neurons")}
    inner = next(g for name, g in found.items() if name.endswith("0.conv1.weight"))
    assert len(inner.parts) == 3  # the convolution, the scale and the shift
    assert all(g.count >= 1 for g in found.values())


@pytest.mark.parametrize(
    ("over", "lambdas"), [("neurons", "0.02,0.025"), ("inputs", "0.04,0.05"), ("outgoing", "0.02,0.03")]
)
def test_what_is_gone_is_gone_whole_and_stays_so(tmp_path, over, lambdas):
    results = ran(tmp_path, "method=group_lasso", f"method.over={over}", f"method.lambdas=[{lambdas}]")
    task, _ = compose_task(*TINY, "method=group_lasso")
    groups = pd.read_csv(results.folder / "groups.csv")
    assert (groups.kept < groups.groups).any()
    for level in (1, 2):
        ticket = results.ticket(level)
        for group in groups_of(task, over):
            alive = group.norms(ticket.trained) > 0
            rows = groups[(groups.level == level) & (groups.layer == group.name)]
            assert rows.kept.tolist() == alive.sum(1).tolist()
    assert groups[groups.level == 2].kept.sum() <= groups[groups.level == 1].kept.sum()


def test_l1_leaves_exactly_what_is_not_zero(tmp_path):
    results = ran(tmp_path, "method=l1", "method.lambdas=[0.002,0.005]", "method.warm=true")
    levels = results.levels
    tickets = levels[levels.role == "ticket"].groupby("level").weights_remaining.mean()
    assert tickets[0] > tickets[1] > tickets[2] > 0
    costs = results.costs
    paid = costs[costs.role == "ticket"].groupby("level").search_steps.mean()
    assert paid.tolist() == [0, 120, 240]  # warm: the second lambda needed the first


def test_a_lambda_that_empties_a_layer_ends_the_list(tmp_path):
    results = ran(tmp_path, "method=group_lasso", "method.lambdas=[0.02,1000,2000]")
    assert results.manifest["status"] == "complete"
    assert results.manifest["ended"].startswith("lambda 1000 leaves nothing of 1.weight")
    levels = results.levels
    assert levels[levels.role == "ticket"].level.max() == 1


def test_inputs_need_a_layer_that_reads_them():
    with pytest.raises(UserError, match=r"method\.over=inputs"):
        compose(["model=conv2", "dataset=digits", "controls=[]", "method=group_lasso", "method.over=inputs"])
