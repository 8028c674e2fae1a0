"""LassoNet: its network, its path beside lassonet's own, its tickets and tables."""

from functools import partial

import pandas as pd
import pytest
import torch
from conftest import compose_task

from ltx.config.compose import compose
from ltx.core.ticket import Round
from ltx.engine.executors import Separate, StackedSkip, choose
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.methods.lassonet import chosen
from ltx.pruning.features import grouped
from ltx.pruning.masks import packed
from ltx.pruning.path import departure, left_with
from ltx.pruning.prox import first_threshold, hierarchical
from ltx.results import load
from ltx.study.show import summary

TINY = [
    *(
        "method=lassonet",
        "model=skip_mlp",
        "model.hidden=[8]",
        "dataset=digits",
        "controls=[]",
        "replicates=2",
    ),
    *("recipe.batch_size=0", "recipe.lr=1e-2", "recipe.steps=60", "recipe.eval_every=1"),
    *("method.path_multiplier=1.5", "method.path_epochs=5", "method.path_patience=2", "method.path_lr=1e-2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with two numbers of features."""
    out = tmp_path_factory.mktemp("lassonet")
    return execute(compose([*TINY, "method.features=[30,10]", f"out={out}"]))


def test_stacked_is_what_the_network_itself_computes():
    task, plan = compose_task(*TINY, "recipe.batch_size=20")
    round = Round(0, task.dense(), plan)
    assert choose(task, round) is StackedSkip
    inputs = task.data.prepare(task.data.train.read(torch.arange(40).view(2, 20)))
    targets = task.data.train.targets[torch.arange(40).view(2, 20)]
    stacked, separate = StackedSkip(task, round), Separate(task, round)
    torch.testing.assert_close(stacked.backward(inputs, targets, 0), separate.backward(inputs, targets, 0))
    for name, gradient in separate.gradients.items():
        torch.testing.assert_close(stacked.gradients[name], gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(stacked.outputs(inputs[0]), separate.outputs(inputs[0]), atol=1e-5, rtol=1e-5)


def test_a_run_tells_points_features_and_tickets(run):
    path, importance = pd.read_csv(run / "path.csv"), pd.read_csv(run / "importance.csv")
    for seed, points in path.groupby("seed"):
        assert points.features.iloc[0] == 64
        assert points.features.iloc[-1] == 0
        assert points["lambda"].is_monotonic_increasing
        mine = importance[importance.seed == seed]
        assert sorted(mine["rank"]) == list(range(1, 65))
        assert mine.sort_values("rank")["lambda"].is_monotonic_decreasing
    levels = pd.read_csv(run / "levels.csv")
    tickets = levels[(levels.role == "ticket") & (levels.level > 0)]
    per_feature = 8 + 10  # first-layer and skip weights
    for count, level in ((30, 1), (10, 2)):
        alive = (tickets[tickets.level == level].weights_remaining - 8 * 10) / per_feature
        assert (alive <= count).all()
        assert (alive >= 1).all()
    assert set(importance.feature) == {f"{row},{column}" for row in range(8) for column in range(8)}


def test_a_run_continues_where_it_was_and_is_small(run):
    before = {file: file.read_bytes() for file in run.rglob("*.csv")}
    out = run.parent.parent
    execute(compose([*TINY, "method.features=[30,10]", f"out={out}"]))
    assert {file: file.read_bytes() for file in run.rglob("*.csv")} == before
    assert sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) < 2_000_000


def test_a_run_answers_which_features_which_lambda_and_how_sure(run, capsys):
    results = load(run)
    names = results.features(k=10)
    assert len(set(names)) == 10
    importance = pd.read_csv(run / "importance.csv")
    best = importance.groupby("feature")["rank"].mean()
    assert best[names[0]] == best.min()
    files = {file.name for file in results.draw()}
    assert {"feature_path.png", "feature_importance.png"} <= files
    summary(run)
    told = capsys.readouterr().out
    assert f"  {names[0]}  (among the last 10 in " in told
    assert "least validation loss at lambda" in told
    with pytest.raises(UserError, match="k=65 is not possible: there are 64 features"):
        results.features(k=65)


def test_a_table_with_numbers_to_predict_has_its_names_and_measure(tmp_path):
    words = [word for word in TINY if "dataset" not in word]
    folder = execute(compose([*words, "dataset=diabetes", "method.features=[3]", f"out={tmp_path}"]))
    assert set(load(folder).features(k=10)) == set("age sex bmi bp s1 s2 s3 s4 s5 s6".split())
    assert "final_test_r2" in pd.read_csv(folder / "levels.csv")


def test_columns_of_one_feature_and_named_groups_leave_together():
    data = compose(["dataset=diabetes"]).run.dataset.load()
    groups = grouped([["s[1-6]"], ["age", "sex"]], data, torch.device("cpu")).tolist()
    assert groups[4:] == [0] * 6
    assert groups[:2] == [1, 1]
    assert len(set(groups)) == 4
    with pytest.raises(UserError, match=r"method\.groups"):
        grouped([["size"]], data, torch.device("cpu"))
    with pytest.raises(UserError, match="age is not possible: it is in two groups"):
        grouped([["age"], ["a*"]], data, torch.device("cpu"))


def test_no_choice_of_numbers_is_made_on_test_data():
    features, points = 3, torch.tensor([5, 5])
    alive = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    memo = {
        "points": points,
        "lambdas": torch.arange(5.0).expand(2, -1),
        "alive": packed(alive).expand(2, -1, -1),
        "val_loss": torch.tensor([[0.30, 0.20, 0.25, 9.0, 9.0], [0.30, 0.28, 0.29, 9.0, 9.0]]),
    }
    assert chosen(memo, features, one_se=False) == 2  # the least mean, .24
    assert chosen(memo, features, one_se=True) == 1  # .27 is within .24 + .04


def test_departure_is_the_lambda_after_the_last_that_had_it():
    alive = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    lambdas = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert departure(lambdas, alive).tolist() == [2.0, 4.0, torch.inf]
    assert left_with(lambdas, alive, 2).tolist() == [True, False, True]
    assert left_with(lambdas, alive[:1], 2) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=lenet"], "choose model=skip_mlp"),
        (["method.features=[70]"], "there are 64 features"),
        (["method.lambda_start=soon"], "method.lambda_start=soon"),
        (["method.path_multiplier=1"], "method.path_multiplier=1"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_data_is_read(words, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[")):
        compose([*(word for word in TINY if "hidden" not in word), *words])


def test_the_first_threshold_is_lassonets():
    model = pytest.importorskip("lassonet.model")
    torch.manual_seed(0)
    network = model.LassoNet(6, 4, 2)
    v, u = hierarchical(network.skip.weight.data, network.layers[0].weight.data, 0.0, 2.0)
    network.skip.weight.data, network.layers[0].weight.data = v, u
    assert float(first_threshold(v, u, 2.0)) == pytest.approx(network.lambda_start(M=2.0), rel=1e-6)


def test_one_path_is_lassonets(tmp_path):
    """From the same weights, on the same data, in full batches: the same lambdas, epochs, features and losses."""
    lassonet = pytest.importorskip("lassonet")
    words = [*TINY, "replicates=1", "method.features=[10]", "method.path_lr=1e-2", "method.lambda_start=1.0"]
    folder = execute(compose([*words, f"out={tmp_path}"]))
    task = compose_task(*words)[0]
    data = task.data
    x, val = (data.prepare(part.inputs).flatten(1).numpy() for part in (data.train, data.val))
    theirs = lassonet.LassoNetClassifier(
        hidden_dims=(8,), lambda_start=1.0, path_multiplier=1.5, M=10, n_iters=(60, 5), patience=(100, 2),
        optim=(partial(torch.optim.Adam, lr=1e-2), partial(torch.optim.SGD, lr=1e-2, momentum=0.9)), verbose=0,
    )  # fmt: skip
    start = {name: tensor[0] for name, tensor in task.initial().items()}

    def begin(X, y):
        theirs.model = model = lassonet.LassoNet(64, 8, 10)
        model.skip.weight.data.copy_(start["skip.weight"])
        for mine, layer in zip(("layers.1", "layers.3"), model.layers, strict=True):
            layer.weight.data.copy_(start[f"{mine}.weight"])
            layer.bias.data.copy_(start[f"{mine}.bias"])

    theirs._init_model = begin
    path = theirs.path(
        x, data.train.targets.numpy(), X_val=val, y_val=data.val.targets.numpy(), disable_lambda_warning=True
    )
    mine = pd.read_csv(folder / "path.csv")
    assert mine["lambda"].tolist() == pytest.approx([point.lambda_ for point in path], rel=1e-5)
    assert mine.features.tolist() == [int(point.selected.sum()) for point in path]
    assert mine.epochs.tolist()[1:] == [point.n_iters for point in path][1:]
    assert mine.val_loss.tolist() == pytest.approx([point.val_loss for point in path], abs=1e-4)
