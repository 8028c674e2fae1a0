"""recipe.freeze: what is frozen moves by nothing and is not pruned; what is not, trains as if it were alone."""

import pytest
import torch
from conftest import compose_task
from safetensors.torch import load_file
from torch import nn

from ltx.core.session import Session
from ltx.core.ticket import Round
from ltx.engine.executors import EXECUTORS, choose
from ltx.engine.train import train
from ltx.models.freeze import fixed, freeze

VGG = (
    *("model=vgg8", "model.width=0.1", "dataset=digits", "replicates=2", "recipe.batch_size=64"),
    *(
        "recipe.optimizer=sgd",
        "recipe.lr=0.1",
        "recipe.momentum=0.9",
        "recipe.weight_decay=0.1",
        "recipe.steps=4",
    ),
    *("recipe.eval_every=4", "prunable.output=false", "controls=[]"),
)
FEATURES = {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


def moved(before, after):
    """The names of the tensors that are not what they were, bit for bit."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_what_is_frozen_moves_by_nothing_and_all_else_moves():
    task, plan = compose_task(*VGG, "recipe.freeze=['0','1']", "method=imp")
    dense = task.dense()
    final = train(task, Round(0, dense, plan), Session()).final
    assert task.layers.fixed == FEATURES
    assert moved(dense.weights, final) == dense.weights.keys() - FEATURES
    assert "0.weight" not in task.layers.prunable


def test_statistics_of_a_frozen_batchnorm_are_those_that_it_came_with():
    """They are not those of the batch, nor does a batch change them; dropout goes on drawing."""
    whole = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(3, 2)
    )
    whole[1].running_mean.fill_(5)
    inputs = torch.randn(8, 1, 1, 1)
    expected = whole[1].eval()(whole[0](inputs))
    network = freeze(whole.train(), ["[01]"])
    torch.testing.assert_close(network[:2](inputs), expected)
    assert network[2].training
    assert [p.requires_grad for p in network.parameters()] == [False] * 4 + [True] * 2


def test_a_pattern_freezes_all_that_lies_below():
    network = nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "head": nn.Linear(2, 2)}
    )
    body = {"body.0.weight", "body.0.bias", *(f"body.1.{name}" for name in network.body[1].state_dict())}
    assert fixed(network, ["body"]) == fixed(network, ["body.*"]) == body
    assert fixed(network, ["body.1"]) == {name for name in body if name.startswith("body.1")}
    network.head.weight = network.body[0].weight  # one tensor, which cannot both stay and move
    assert "head.weight" not in fixed(network, ["head"])
    assert "body.0.weight" in fixed(network, ["head"])


@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_engines_train_what_is_not_frozen_to_the_same_bits(engine):
    words = (
        "model.hidden=[16]",
        "replicates=2",
        "recipe.steps=20",
        "recipe.eval_every=20",
        "recipe.freeze=['3']",
    )
    task, plan = compose_task(*words, f"engine={engine}")
    dense = task.dense()
    sparse = {
        name: torch.arange(t[0].numel()).view(t[0].shape).expand_as(t) % 20 == 0
        for name, t in dense.mask.items()
    }
    round = Round(1, dense.masked(sparse), plan)
    assert choose(task, round) is EXECUTORS[-1]
    final = train(task, round, Session()).final
    reference, _ = compose_task(*words)
    expected = train(reference, round, Session()).final
    assert not moved(expected, final)
    assert torch.equal(final["3.weight"], dense.weights["3.weight"])


METHODS = {
    "imp": "method.levels=1 controls=[reinit,shuffle]",
    "finetune": "method.levels=1",
    "set": "method.densities=[0.5] method.every=1",
    "gmp": "method.densities=[0.5] method.begin=1 method.end=3 method.every=1",
    "snip": "method.densities=[0.5]",
    "grasp": "method.densities=[0.5]",
    "synflow": "method.densities=[0.5] method.iterations=2",
    "l1": "method.lambdas=[1e-4]",
    "group_lasso": "method.lambdas=[1e-4]",
    "slimming": "method.ratios=[0.3]",
    "early_bird": "method.ratios=[0.3] method.window=2 recipe.steps=2ep",
}


@pytest.mark.parametrize("method", METHODS)
def test_no_method_moves_or_prunes_what_is_frozen(ltx, tmp_path, method):
    words = [*VGG, f"method={method}", *METHODS[method].split(), "recipe.freeze=['0','1']", "replicates=1"]
    said = ltx("run", *words, f"out={tmp_path}")
    assert said.code == 0, said.err
    (folder,) = tmp_path.glob("*/*/manifest.json")
    rounds = [load_file(file) for file in folder.parent.glob("level_*/*/trained.safetensors")]
    assert len(rounds) >= 2
    if method in ("slimming", "early_bird"):  # fewer channels to read are fewer to make
        return
    for name in FEATURES:
        assert all(torch.equal(trained[f"final/{name}"], rounds[0][f"final/{name}"]) for trained in rounds), (
            name
        )
    assert ltx("verify", folder.parent).code == 0


def test_filters_train_a_head_first_and_then_all_of_what_is_left(ltx, tmp_path):
    words = [
        *VGG,
        "method=filters",
        "method.rounds=1",
        "method.examples=20",
        "replicates=1",
        "method.scratch=[e]",
    ]
    words += ["method.finetune.steps=2", "recipe.freeze=['[0-9]','1[0-8]']"]
    said = ltx("run", *words, f"out={tmp_path}")
    assert said.code == 0, said.err
    (folder,) = (file.parent for file in tmp_path.glob("*/*/manifest.json"))
    first, pruned, scratch = (
        load_file(folder / f"level_{place}/trained.safetensors")
        for place in ("00/ticket", "01/ticket", "01/scratch_e")
    )
    start = {f"final/{name}": t for name, t in compose_task(*words)[0].dense().weights.items()}
    assert {key.removeprefix("final/").split(".")[0] for key in moved(start, first)} == {"19"}
    assert {"final/0.weight", "final/1.running_mean"} <= moved(first, pruned) & moved(first, scratch)


def test_filters_of_what_fine_tuning_freezes_stay(ltx):
    task, plan = compose_task(*VGG, "method=filters", "method.finetune.freeze=['0']")
    from ltx.methods.filters import Filters, Finetune

    method = Filters(finetune=Finetune(freeze=["0"]))
    assert "0" not in method.groups(task)
    assert method.tuning(plan).freeze == ("0",)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("recipe.freeze=[laier.*]", "recipe.freeze=laier.* does not exist; choose from 0, 1, 2, 3"),
        ("recipe.freeze=['*']", "nothing in the network is trained"),
        ("recipe.freeze=['1','3']", ""),
        (
            "recipe.freeze=['1'] prunable.output=false",
            "prunable.* and recipe.freeze leave nothing to prune",
        ),
        ("recipe.freeze=['1'] engine=csr", "recipe.freeze=[1] needs engine=dense (auto takes it)"),
        (
            "config=digits_filters method.finetune.freeze=[head]",
            "method.finetune.freeze=head does not exist; ",
        ),
    ],
)
def test_mistakes_are_one_line(ltx, tmp_path, words, line):
    short = ["recipe.steps=2", "recipe.drops=[]", "replicates=1", f"out={tmp_path}"]
    short += [] if "filters" in words else ["model.hidden=[16]", "method.levels=1", "controls=[]"]
    said = ltx("run", *words.split(), *short)
    if not line:
        return
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert line in said.err
