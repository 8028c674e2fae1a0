"""Filter pruning: what a score is, how many filters go, and what the rounds and their controls are."""

import pandas as pd
import pytest
import torch
from conftest import compose_task
from safetensors.torch import load_file
from torch import nn

from ltx.config.compose import compose
from ltx.methods.filters import CRITERIA, Filters
from ltx.pruning.channels import bundles
from ltx.pruning.filters import by_maps, by_weights, distances, filters
from ltx.pruning.size import size

SMALL = (
    *("config=digits_filters", "replicates=1", "model.width=0.1", "recipe.steps=1ep", "recipe.drops=[]"),
    *("method.finetune.steps=5", "method.examples=50"),
)


def two_maps(weight):
    """A 1x1 convolution of one channel into two filters, read by a sum; nothing else."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor(weight).view(2, 1, 1, 1))
        network[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    return network


def taylor(kind, examples, targets):
    network = two_maps([1.0, 3.0])
    groups = bundles(two_maps([1.0, 3.0]), (1, 1, 1))
    found = filters(groups, network, {"0.weight", "2.weight"})
    x = torch.tensor(examples).view(-1, 1, 1, 1)
    chunks = [(x, torch.tensor(targets))]
    return by_maps(network, found, chunks, lambda outputs, t: outputs[:, 0] * t, kind)["0"]


def test_taylor_is_the_mean_of_magnitudes_and_signed_the_magnitude_of_the_sum():
    """Losses are t (z1 + z2) with z = (x, 3x): z ∂C/∂z is (t x, 3 t x) for each example."""
    norm = 10**0.5  # of (1, 3), whatever the scale
    expected = torch.tensor([1 / norm, 3 / norm])
    torch.testing.assert_close(taylor("taylor", [1.0, 2.0], [1.0, -1.0]), expected)
    torch.testing.assert_close(taylor("taylor_signed", [1.0, 2.0], [1.0, -1.0]), expected)
    # Two examples that cancel: the one still ranks, of the other nothing is left.
    torch.testing.assert_close(taylor("taylor", [1.0, 1.0], [1.0, -1.0]), expected)
    assert taylor("taylor_signed", [1.0, 1.0], [1.0, -1.0]).tolist() == [0, 0]


def test_apoz_is_how_often_a_map_is_above_zero():
    network = two_maps([1.0, -1.0])
    found = filters(bundles(two_maps([1.0, -1.0]), (1, 1, 1)), network, {"0.weight", "2.weight"})
    x = torch.tensor([1.0, 2.0, 3.0, -1.0]).view(-1, 1, 1, 1)
    scores = by_maps(network, found, [(x, torch.zeros(4))], lambda o, t: o[:, 0], "apoz")
    assert scores["0"].tolist() == [3, 1]


def test_scores_of_weights_by_hand():
    network = two_maps([1.0, -3.0])
    found = filters(bundles(two_maps([1.0, -3.0]), (1, 1, 1)), network, {"0.weight", "2.weight"})
    assert by_weights(network, found, lambda w: w.abs().sum(1))["0"].tolist() == [0.5, 1.5]
    assert distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).tolist() == pytest.approx(
        [6, 5 + 18**0.5, 1 + 18**0.5]
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_filter_alike_each_time(criterion):
    task, _ = compose_task(*SMALL, f"method.criterion={criterion}")
    method = Filters(criterion=criterion, examples=50)
    groups, dense = method.groups(task), task.dense()
    one, two = (method.scores(task, groups, dense, 1) for _ in range(2))
    assert {name: part.shape for name, part in one.items()} == {
        name: (1, group.channels) for name, group in groups.items()
    }
    assert all(part.isfinite().all() and torch.equal(part, two[name]) for name, part in one.items())


def test_residual_streams_are_one_group_of_filters():
    task, _ = compose_task(*SMALL, "model=resnet20", "prunable.shortcut=true")
    groups = Filters().groups(task)
    assert len(groups["stem.0"].makers) == 4
    assert all(
        part.isfinite().all() for part in Filters(examples=20).scores(task, groups, task.dense(), 1).values()
    )


@pytest.mark.parametrize("target", ["weights", "macs"])
def test_targets_are_met_by_the_most_filters_that_fit(target):
    task, _ = compose_task(*SMALL)
    method = Filters(criterion="l1", target=target, per_round=0.3, rounds=1)
    groups, shape = method.groups(task), task.data.shape
    alive = {name: torch.ones(1, group.channels, dtype=torch.bool) for name, group in groups.items()}
    scores = method.scores(task, groups, task.dense(), 1)
    kept = method.kept(task, groups, scores, alive, 1)

    from ltx.pruning.channels import shrunk

    def share(kept):
        small = shrunk(task.network(), shape, {name: row[0] for name, row in kept.items()}).network
        key = {"weights": "parameters", "macs": "macs"}[target]
        return getattr(size(small, shape), key) / getattr(size(task.network(), shape), key)

    assert share(kept) <= 0.7
    dropped = max(
        (float(scores[n][0, c]), n, c) for n in kept for c in (~kept[n][0]).nonzero().flatten().tolist()
    )
    more = {name: row.clone() for name, row in kept.items()}
    more[dropped[1]][0, dropped[2]] = True
    assert share(more) > 0.7


WIDTHS = {  # of the first convolutions: the authors' figures, cut to whole filters
    "a": {1: (14, 16, [7]), 2: (28, 32, [0]), 3: (57, 64, [0, 8])},
    "b": {1: (6, 16, [7, 8]), 2: (22, 32, [0, 7]), 3: (57, 64, [0, 8])},
}


@pytest.mark.parametrize("setting", WIDTHS)
def test_li_et_als_settings_cut_the_first_convolutions_alone(setting):
    task, _ = compose_task(f"config=cifar10_resnet56_filters_{setting}", "dataset=digits", "replicates=1")
    method = compose([f"config=cifar10_resnet56_filters_{setting}"]).run.method
    groups = method.groups(task)
    alive = {name: torch.ones(1, group.channels, dtype=torch.bool) for name, group in groups.items()}
    kept = method.kept(task, groups, method.scores(task, groups, task.dense(), 1), alive, 1)
    expected = {
        f"stage{stage}.{block}.conv1": fewer
        for stage, (fewer, _, skipped) in WIDTHS[setting].items()
        for block in range(9)
        if block not in skipped
    }
    whole = {name: int(k.sum()) for name, k in kept.items() if name not in expected}
    assert {name: int(k.sum()) for name, k in kept.items() if name in expected} == expected
    assert whole == {name: groups[name].channels for name in whole}  # the stem's stream at most


def test_random_filters_begin_with_the_same_dense_network_and_are_drawn_by_seed(ltx, tmp_path):
    """What makes criterion=random a control: paired seed by seed."""
    words = (*SMALL, "method.rounds=1", "replicates=2", f"out={tmp_path}")
    for criterion in ("l1", "random"):
        assert ltx("run", *words, f"method.criterion={criterion}").code == 0
    first, other = (load_file(file) for file in tmp_path.glob("*/*/level_00/ticket/trained.safetensors"))
    assert all(torch.equal(first[key], other[key]) for key in first if key.startswith("final/"))
    masks = [load_file(file) for file in tmp_path.glob("*/*/level_01/ticket/ticket.safetensors")]
    drawn = next(mask for mask in masks if not any(torch.equal(row[0], row[1]) for row in mask.values()))
    assert len(masks) == 2
    assert drawn


class Scaled(nn.Module):
    """Channels that are scaled by their place: cut, the others would be scaled otherwise."""

    def __init__(self, shape, classes):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, classes)

    def forward(self, x):
        means = self.conv(x).mean((2, 3))
        return self.head(means * torch.arange(1, 5)[: means.shape[1]])


def test_a_network_that_would_be_cut_into_another_is_refused_before_training(ltx, tmp_path):
    words = (
        "model=custom",
        "model.path=test_filters:Scaled",
        "dataset=digits",
        "method=filters",
        "controls=[]",
    )
    said = ltx("run", *words, "recipe.steps=5", "replicates=1", "method.per_round=0.1", f"out={tmp_path}")
    assert said.code == 2
    assert "the network cannot be made smaller" in said.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_rounds_nest_count_exactly_and_have_controls_from_scratch(ltx, tmp_path):
    said = ltx(
        "run", *SMALL, "method.rounds=2", "method.per_round=5", "method.scratch=[e,b]", f"out={tmp_path}"
    )
    assert said.code == 0, said.err
    (folder,) = tmp_path.glob("digits_filters/*")
    table = pd.read_csv(folder / "channels.csv")
    kept = table.groupby(["role", "level"]).kept.sum()
    total = table[(table.role == "ticket") & (table.level == 1)].channels.sum()
    assert [kept["ticket", level] for level in (1, 2)] == [total - 5, total - 10]
    assert (table.kept >= 1).all()
    levels = pd.read_csv(folder / "levels.csv").set_index(["role", "level"])
    whole = levels.loc[("ticket", 0), "steps"]
    assert levels.loc[("ticket", 2), "steps"] == 5
    assert levels.loc[("scratch_e", 2), "steps"] == whole
    sizes = pd.read_csv(folder / "size.csv").set_index(["role", "level"])
    ratio = sizes.loc[("ticket", 2), "dense_macs"] / sizes.loc[("scratch_b", 2), "macs"]
    assert levels.loc[("scratch_b", 2), "steps"] == pytest.approx(whole * ratio, rel=0.05)
    again = ltx(
        "run", *SMALL, "method.rounds=2", "method.per_round=5", "method.scratch=[e,b]", f"out={tmp_path}"
    )
    assert "nothing was trained" in again.out + again.err


MISTAKES = {
    "method.layers=[0:0.1]": "it needs scope=layer",
    "method.scope=layer method.layers=[0:1.5]": "write PATTERN:FRACTION",
    "method.scope=layer method.layers=[0:0.3]": "they would prune 1.5 of all",
    "controls=[reinit]": "this method's tickets can be compared with no control only",
    "method.criterion=tailor": "taylor",
    "method.per_round=0.3": "they would prune 1.5 of all",
    "method.finetune.lr=0": "method.finetune.lr=0.0 is not possible",
    "model=lenet": "the network has no convolutions",
    "model=conv2 method.criterion=bn": "the network has no BatchNorm",
    "method.target=macs method.per_round=2": "with method.target=macs it is a fraction below 1",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(ltx, tmp_path, words):
    said = ltx("run", "config=digits_filters", *words.split(), f"out={tmp_path}")
    assert said.code == 2
    assert MISTAKES[words] in said.err
    assert said.err.count("\n") == 1


def test_more_filters_than_there_are_is_told_before_training(ltx, tmp_path):
    said = ltx("run", "config=digits_filters", "method.per_round=60", f"out={tmp_path}")
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        "ltx: method.rounds=5 is not possible: at most 3: there are 208 filters"
    )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_layer_without_filters_is_told_before_training(ltx, tmp_path):
    words = ("method.scope=layer", "method.layers=[conv:0.1]", f"out={tmp_path}")
    said = ltx("run", "config=digits_filters", *words)
    assert said.code == 2
    assert "method.layers=conv does not exist; choose from 0, 4, 7, 11, 14" in said.err.splitlines()[-1]
