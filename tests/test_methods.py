"""What each method asks for, answered without training; masks at initialisation against a plain reference."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import compose_task

from ltx.config.compose import compose
from ltx.config.registry import experiments
from ltx.core.recipe import Recipe
from ltx.core.ticket import Trained
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.methods import METHODS
from ltx.methods.after import AfterTraining
from ltx.methods.at_init import SNIP, GraSP, MagnitudeAtInit, RandomAtInit, SynFlow, examples
from ltx.methods.criterion import Criterion
from ltx.methods.imp import IMP, OneShot
from ltx.methods.retrain import FineTune, LRRewind
from ltx.pruning import masks
from ltx.pruning.scores import magnitude
from ltx.streams import stream

LENET = ("model.hidden=[16]", "replicates=2")
RESNET = ("model=resnet20", "model.width=0.25", "replicates=2")
DROPS = Recipe(optimizer="sgd", lr=0.1, steps="100", warmup="10", drops=["50", "75"])
AT_INIT = ("random_at_init", "magnitude_at_init", "snip", "grasp", "synflow")


def outcome(round):
    """As if trained: every tensor moved by so much a step, the pruned at zero."""
    generator = torch.Generator().manual_seed(round.level)
    start = round.ticket.start()

    def after(steps):
        moved = {
            name: t + steps * torch.rand(t.shape, generator=generator) if t.is_floating_point() else t + steps
            for name, t in start.items()
        }
        return {
            name: t * round.ticket.mask[name] if name in round.ticket.mask else t for name, t in moved.items()
        }

    nothing = torch.empty(0)
    return Trained(
        final=after(round.plan.steps - round.start),
        mask=round.ticket.mask,
        at={step: after(step) for step in round.keep},
        curve=None,
        train_measure=nothing,
        diverged=nothing,
        steps=nothing,
        seconds=0.0,
    )


def interview(method, task, plan):
    """Every round that a method asks for, and what it was told became of it."""
    search, told, heard = method.search(task, task.dense(), plan), None, []
    while True:
        try:
            round = search.send(told)
        except StopIteration:
            return heard
        told = outcome(round)
        heard.append((round, told))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def small():
    task, _ = compose_task(*LENET)
    return task, DROPS.plan(len(task.data.train))


AFTER = [
    IMP(levels=3, rewind_step="20"),
    OneShot(levels=3, rewind_step="20"),
    Criterion(levels=3, rewind_step="20", score="movement"),
    LRRewind(levels=3, rewind_step="20"),
    LRRewind(levels=3, rewind_step="20", iterative=False),
    FineTune(levels=3, rewind_step="20"),
    FineTune(levels=3, rewind_step="20", iterative=False),
]


@pytest.mark.parametrize("method", AFTER, ids=repr)
def test_every_level_keeps_its_share_of_every_layer_and_sets_in_at_the_rewind_step(method, small):
    task, plan = small
    rounds = [round for round, _ in interview(method, task, plan)]
    assert [round.level for round in rounds] == [0, 1, 2, 3]
    assert [round.start for round in rounds] == [0, 20, 20, 20]
    kept = [[count.tolist() for count in round.ticket.kept().values()] for round in rounds]
    assert kept == [[[n, n], [m, m]] for n, m in ((1024, 160), (819, 144), (655, 130), (524, 117))]
    for parent, child in pairwise(rounds):
        assert all(bool((child.ticket.mask[n] <= parent.ticket.mask[n]).all()) for n in child.ticket.mask)


@pytest.mark.parametrize("kind", [IMP, OneShot, Criterion])
def test_weight_rewinding_goes_back_to_step_k_with_everything(kind):
    """BatchNorm's parameters and statistics too: they are in the tree."""
    task, plan = compose_task(*RESNET, "recipe.steps=100")
    (_, dense), *rest = interview(kind(levels=2, rewind_step="20"), task, plan)
    assert "stem.1.running_mean" in dense.at[20]
    for round, _ in rest:
        assert same(round.ticket.weights, dense.at[20])
        assert round.plan == plan


def test_rewinding_to_step_0_is_rewinding_to_initialisation(small):
    task, plan = small
    for round, _ in interview(IMP(levels=2), task, plan):
        assert same(round.ticket.weights, task.dense().weights)


@pytest.mark.parametrize("kind", [LRRewind, FineTune])
def test_retraining_goes_on_from_the_trained_weights(kind):
    task, plan = compose_task(*RESNET, "recipe.steps=100")
    heard = interview(kind(levels=2), task, plan)
    for (_, before), (round, _) in pairwise(heard):
        assert same(round.ticket.weights, before.final)
    (_, dense), *rest = interview(kind(levels=2, iterative=False), task, plan)
    for round, _ in rest:
        assert same(round.ticket.weights, dense.final)


def test_learning_rate_rewinding_restarts_the_schedule(small):
    task, plan = small
    *_, (round, _) = interview(LRRewind(levels=1, rewind_step="40"), task, plan)
    rates = [round.plan.lr_at(step) for step in range(round.start, round.plan.steps)]
    assert rates == pytest.approx([0.1] * 10 + [0.01] * 25 + [0.001] * 25)
    *_, (round, _) = interview(LRRewind(levels=1), task, plan)
    assert [round.plan.lr_at(step) for step in range(round.start, 100)] == [plan.lr_at(s) for s in range(100)]


def test_fine_tuning_holds_the_last_learning_rate(small):
    task, plan = small
    (dense, _), (round, _) = interview(FineTune(levels=1, rewind_step="40"), task, plan)
    assert dense.plan == plan
    rates = [round.plan.lr_at(step) for step in range(round.start, round.plan.steps)]
    assert rates == pytest.approx([0.001] * 60)


def test_iterative_pruning_differs_from_one_shot(small):
    task, plan = small
    for many, once in ((AFTER[0], AFTER[1]), (AFTER[3], AFTER[4])):
        a, b = interview(many, task, plan), interview(once, task, plan)
        assert same(a[1][0].ticket.mask, b[1][0].ticket.mask)
        assert not same(a[3][0].ticket.mask, b[3][0].ticket.mask)


def test_the_criterion_large_final_is_imp(small):
    task, plan = small
    a, b = (interview(m, task, plan) for m in (Criterion(levels=3, score="large_final"), IMP(levels=3)))
    assert all(same(x.ticket.mask, y.ticket.mask) for (x, _), (y, _) in zip(a, b, strict=True))


def test_a_random_criterion_differs_between_seeds_and_levels_and_not_between_calls(small):
    task, plan = small
    method = Criterion(levels=2, score="random")
    first, again = (interview(method, task, plan) for _ in range(2))
    assert all(same(x.ticket.mask, y.ticket.mask) for (x, _), (y, _) in zip(first, again, strict=True))
    mask = first[1][0].ticket.mask["1.weight"]
    assert not torch.equal(mask[0], mask[1])


SEQUENCES = {  # methods.md 1.4, computed from the paper's rule; those that the paper quotes are among them
    "mnist_lenet": "100 80.04 64.06 51.28 41.05 32.87 26.32 21.07 16.88 13.52 10.83 8.68 6.95 5.57 4.47 3.58 "
    "2.87 2.31 1.85 1.49 1.19",
    "cifar10_conv2": "100 80.10 64.16 51.41 41.20 33.02 26.47 21.23 17.03 13.66 10.97 8.81 7.08 5.69 "
    "4.57 3.68 2.97",
    "cifar10_conv4": "100 81.08 65.84 53.55 43.63 35.61 29.13 23.88 19.62 16.16 13.35 11.06 9.18 "
    "7.65 6.40 5.37",
    "cifar10_conv6": "100 82.54 68.20 56.39 46.68 38.67 32.07 26.61 22.11 18.38 15.29 12.74 10.62 8.86",
    "cifar10_resnet20": "100 80.2 64.4 51.8 41.7 33.6 27.1 21.9 17.8 14.4 11.8 9.7 8.0",
    "cifar10_vgg19": "- - - - - - - - - - - - 6.90 - - 3.54 - - - 1.47",
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_weights_remaining_are_the_papers(name):
    run = compose([f"config={name}"]).run
    layers = run.layers(run.dataset.shape, run.dataset.outputs)
    for level, expected in enumerate(SEQUENCES[name].split()):
        fixed = layers.total - sum(layers.sizes[layer] for layer in layers.prunable)
        remaining = fixed + sum(run.method.kept(layers, level).values())
        digits = len(expected.partition(".")[2])
        assert expected == "-" or f"{100 * remaining / layers.total:.{digits}f}" == expected, level


@pytest.mark.parametrize("name", experiments())
def test_every_shipped_experiment_composes(name, needed):
    assert compose([f"config={name}", *needed(name)]).name == name


@pytest.mark.parametrize("method", AT_INIT)
def test_the_experiment_at_initialisation_takes_every_score(method):
    assert isinstance(
        compose(["config=cifar10_vgg16_at_init", f"method={method}"]).run.method, METHODS[method]
    )


# -- at initialisation


def plain(task, r):
    """Replicate r of the dense network as a double-precision module, and its prunable parameters."""
    network = task.network().double()
    network.load_state_dict({name: tensor[r] for name, tensor in task.dense().weights.items()})
    parameters = dict(network.named_parameters())
    return network, {name: parameters[name] for name in task.layers.prunable}


def best(scores, count):
    """The names and flat indices of the `count` highest scores of all layers together."""
    flat = np.concatenate([s.reshape(-1) for s in scores.values()])
    keep = np.zeros(len(flat), bool)
    keep[np.argsort(-flat, kind="stable")[:count]] = True
    cuts = np.cumsum([s.size for s in scores.values()])[:-1]
    return {
        name: part.reshape(s.shape)
        for (name, s), part in zip(scores.items(), np.split(keep, cuts), strict=True)
    }


def ten_of_each(data, seed):
    """Walk through the seed's permutation and take each class's first ten."""
    chosen, taken = [], [0] * data.outputs
    for i in torch.randperm(len(data.train), generator=stream(seed, "examples")).tolist():
        label = int(data.train.targets[i])
        if taken[label] < 10:
            taken[label] += 1
            chosen.append(i)
    pixels = data.train.inputs[chosen].double() / 255
    return (pixels - data.prepare.mean.double().view(1, -1, 1, 1)) / data.prepare.std.double().view(
        1, -1, 1, 1
    ), data.train.targets[chosen]


def reference_snip(task, r, density):
    network, prunable = plain(task, r)
    images, labels = ten_of_each(task.data, task.seeds[r])
    F.cross_entropy(network.train()(images), labels).backward()
    scores = {name: (p.detach() * p.grad).abs().numpy() for name, p in prunable.items()}
    return best(scores, round(density * sum(s.size for s in scores.values())))


def reference_synflow(task, r, density):
    network, prunable = plain(task, r)
    network.eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.abs_()
    dense = {name: p.detach().clone() for name, p in prunable.items()}
    total = sum(p.numel() for p in dense.values())
    for i in range(1, 101):
        network.zero_grad()
        network(torch.ones(1, *task.data.shape, dtype=torch.float64)).sum().backward()
        # A pruned weight scores 0 like a dead one's input; -1 keeps it out for good.
        scores = {n: torch.where(p == 0, -1.0, p.detach() * p.grad).numpy() for n, p in prunable.items()}
        mask = best(scores, round(total * density ** (i / 100)))
        with torch.no_grad():
            for name, p in prunable.items():
                p.copy_(dense[name] * torch.from_numpy(mask[name]))
    return mask


def reference_grasp(task, r, density):
    """As the authors' GraSP.py: gradients of both halves first, then each half's product with their sum."""
    network, prunable = plain(task, r)
    images, labels = ten_of_each(task.data, task.seeds[r])
    order = labels.argsort(stable=True)
    weights, half = list(prunable.values()), len(order) // 2
    losses = [
        F.cross_entropy(network.train()(images[part]) / 200, labels[part])
        for part in (order[:half], order[half:])
    ]
    slopes = [torch.autograd.grad(loss, weights, create_graph=True) for loss in losses]
    total = [sum(parts).detach() for parts in zip(*slopes, strict=True)]
    for part in slopes:
        sum((g * t).sum() for g, t in zip(part, total, strict=True)).backward()
    # They remove the largest of -w H g.
    scores = {name: (p.detach() * p.grad).numpy() for name, p in prunable.items()}
    return best(scores, round(density * sum(s.size for s in scores.values())))


@pytest.mark.parametrize("overrides", [LENET, RESNET], ids=["lenet", "resnet20"])
@pytest.mark.parametrize(
    ("method", "reference"),
    [(SNIP(), reference_snip), (SynFlow(), reference_synflow), (GraSP(), reference_grasp)],
)
def test_masks_equal_a_plain_float64_computation(method, reference, overrides):
    task, _ = compose_task(*overrides)
    density = 0.1
    mask = method.mask(task, task.dense(), density)
    for r in range(task.replicates):
        expected = reference(task, r, density)
        assert {name: mask[name][r].numpy().tolist() for name in mask} == {
            name: part.tolist() for name, part in expected.items()
        }


def test_grasp_keeps_the_weights_whose_removal_would_lower_the_gradient(small):
    """Frozen signs: of the same scores, the opposite choice leaves a smaller gradient norm (trap 9)."""
    task, _ = small

    def squared_gradient(mask, r=0):
        network, prunable = plain(task, r)
        images, labels = ten_of_each(task.data, task.seeds[r])
        with torch.no_grad():
            for name, p in prunable.items():
                p.mul_(mask[name][r])
        F.cross_entropy(network(images) / 200, labels).backward()
        return sum(float(p.grad.square().sum()) for p in prunable.values())

    dense, density = task.dense(), 0.9
    kept = squared_gradient(GraSP().mask(task, dense, density))
    inverse = squared_gradient(GraSP().mask(task, dense, density, invert=True))
    assert kept > squared_gradient(dense.mask) > inverse


@pytest.mark.parametrize("kind", [RandomAtInit, MagnitudeAtInit, SNIP, GraSP, SynFlow])
def test_a_round_for_the_dense_network_and_one_for_each_density(kind, small):
    task, plan = small
    rounds = [round for round, _ in interview(kind(densities=[0.5, 0.1, 0.02]), task, plan)]
    assert [round.level for round in rounds] == [0, 1, 2, 3]
    assert [round.start for round in rounds] == [0] * 4
    for round, kept in zip(rounds, [1184, 592, 118, 24], strict=True):
        assert sum(round.ticket.kept().values()).tolist() == [kept, kept]
        assert same(round.ticket.weights, task.dense().weights)


@pytest.mark.parametrize("kind", [RandomAtInit, MagnitudeAtInit, SNIP, GraSP])
def test_one_scoring_gives_nested_masks_and_its_inversion_keeps_the_rest(kind, small):
    task, _ = small
    dense = task.dense()
    half, tenth = (kind().mask(task, dense, density) for density in (0.5, 0.1))
    worst = kind().mask(task, dense, 0.5, invert=True)
    assert all(bool((tenth[name] <= half[name]).all()) for name in half)
    assert same(worst, {name: ~alive for name, alive in half.items()})


@pytest.mark.parametrize("method", [RandomAtInit(), SNIP(), SynFlow(iterations=5)], ids=repr)
def test_a_replicate_is_scored_as_if_it_were_alone(method):
    both, _ = compose_task(*LENET)
    alone, _ = compose_task("model.hidden=[16]", "seed=1")
    together, apart = (method.mask(task, task.dense(), 0.1) for task in (both, alone))
    assert all(torch.equal(together[name][1], apart[name][0]) for name in apart)


def test_the_examples_to_score_on_are_ten_of_each_class_and_each_seed_has_its_own(small):
    task, _ = small
    (images, labels), (others, _) = (examples(task, seed, 10) for seed in task.seeds)
    assert torch.bincount(labels).tolist() == [10] * 10
    assert not torch.equal(images, others)
    with pytest.raises(UserError, match=r"method.per_class=1000 is not possible: some class has only \d+"):
        SNIP(per_class=1000).suits(task.goal, task.data)


def test_dropout_while_scoring_is_drawn_from_the_seed():
    task, _ = compose_task("model=conv2", "model.width=0.05", "model.dropout=0.5", "replicates=1")
    first, again = (SNIP().mask(task, task.dense(), 0.2) for _ in range(2))
    assert same(first, again)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=synflow", "method.densities=[0.1,0.5]"], "they must fall"),
        (["method=synflow", "method.densities=[]"], "give 1 or more"),
        (["method=synflow", "method.densities=[1.5]"], "it must lie between 0 and 1"),
        (["method=synflow", "method.densities=[0.5,1e-6]"], "prunable weights they would keep 592, 0"),
        (
            ["method=synflow", "method.iterations=0"],
            "method.iterations=0 is not possible: it must be 1 or more",
        ),
        (["method=snip", "method.per_class=0"], "it must be 1 or more"),
        (["method=grasp", "method.temperature=0"], "it must be positive"),
        (
            ["config=digits_lenet", "method=criterion", "method.score=best"],
            "choose from large_final, small_final",
        ),
        (["config=digits_lenet", "method=lr_rewind", "method.rewind_step=300"], "training ends at step"),
        (
            ["config=digits_lenet", "method=finetune", "method.levels=99"],
            r"would prune no weight; at most \d+ levels",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_before_data_is_loaded(overrides, message):
    base = [] if overrides[0].startswith("config") else ["config=digits_at_init"]
    with pytest.raises(UserError, match=message) as refused:
        compose([*base, *overrides, "model.hidden=[16]"])
    assert "\n" not in str(refused.value)


# -- end to end


def rows(folder, table):
    with (folder / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


TWO_STEPS = ("recipe.steps=2", "recipe.eval_every=1", "controls=[reinit]")


# The others have tests of their own.
ALIKE = [name for name, kind in METHODS.items() if issubclass(kind, AfterTraining) or name in AT_INIT]


@pytest.mark.parametrize("method", ALIKE)
def test_two_steps_of_every_method_end_in_tables_and_are_not_trained_again(method, tmp_path, capsys):
    if method in AT_INIT:
        knobs = ["config=digits_at_init", "method.densities=[0.5,0.1]"]
    else:
        knobs = ["config=digits_lenet", "method.levels=2", "method.rewind_step=1"]
    command = [*knobs, f"method={method}", *LENET, *TWO_STEPS, f"out={tmp_path}"]
    folder = execute(compose(command))
    roles = [(row["role"], row["level"], row["seed"]) for row in rows(folder, "levels")]
    pruned = [(role, level, seed) for level in "12" for role in ("ticket", "reinit") for seed in "01"]
    assert roles == [("ticket", "0", "0"), ("ticket", "0", "1"), *pruned]
    first = {row["level"]: row["step"] for row in reversed(rows(folder, "curves"))}
    assert first == ({"0": "0", "1": "0", "2": "0"} if method in AT_INIT else {"0": "0", "1": "1", "2": "1"})
    execute(compose(command))
    assert "nothing was trained" in capsys.readouterr().err


def test_layer_collapse_is_shown_and_not_fatal(tmp_path):
    command = ["config=digits_at_init", "method=magnitude_at_init", "method.densities=[0.001]", *LENET]
    folder = execute(compose([*command, "recipe.steps=2", "controls=[]", f"out={tmp_path}"]))
    kept = [int(row["kept"]) for row in rows(folder, "layers") if row["level"] == "1" and row["seed"] == "0"]
    assert sorted(kept) == [0, 1]


def test_collapse_is_known_by_the_layers_that_are_empty():
    task, _ = compose_task(*LENET)
    assert masks.emptied(MagnitudeAtInit().mask(task, task.dense(), 0.001))


def test_a_diverged_replicate_empties_no_layer_of_the_others():
    """Its weights are not numbers and none is the smallest: it goes on, marked, and the run with it."""
    task, _ = compose_task("model.hidden=[8]", "replicates=2", "method.levels=2")
    dense, method = task.dense(), IMP(levels=2, rate=0.5, scope="global")
    scores = magnitude(dense.weights)
    scores = {name: torch.where(torch.tensor([True, False]).view(-1, *[1] * (part.dim() - 1)), part, torch.nan)
              for name, part in scores.items()}  # fmt: skip
    mask = method.pruned(task, scores, dense.mask, 1)
    kept = method.kept(task.layers, 1)[""]
    assert sum(alive.flatten(1).sum(1) for alive in mask.values()).tolist() == [kept, kept]
    assert masks.emptied(mask)  # of the second alone
    assert not masks.emptied({name: alive[:1] for name, alive in mask.items()})
