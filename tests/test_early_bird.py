"""Early-Bird tickets: when they are drawn, what is cut, and that nothing else changes."""

from contextlib import suppress
from itertools import count

import pandas as pd
import pytest
import torch
from conftest import compose_task
from torch import nn

from ltx import report
from ltx.config.compose import compose
from ltx.core.session import Session
from ltx.core.task import Layers
from ltx.core.ticket import Curve, Hooks, Round, Ticket
from ltx.engine.train import train
from ltx.errors import Interrupted, UserError
from ltx.experiment.checkpoint import Checkpoint
from ltx.experiment.execute import execute
from ltx.experiment.packing import ticket_identity
from ltx.methods.channels import kept, mask, scales
from ltx.methods.early_bird import EarlyBird, Watch, packed, stable, unpacked
from ltx.models import MODELS
from ltx.models.base import layer_kinds
from ltx.models.foreign import TorchVision
from ltx.pruning import channels
from ltx.pruning.channels import Group
from ltx.report.runs import read_table

TINY = ["config=digits_early_bird", "model.width=0.07", "recipe.batch_size=300", "recipe.drops=[]"]


class Memory:
    """A checkpoint that keeps what it is given, and stops training at the saves that it is told to."""

    def __init__(self, stop_at=()):
        self.saved, self.stop_at, self.asked, self.parts = None, set(stop_at), 0, {}

    def load(self):
        return self.saved

    def due(self):
        self.asked += 1
        return self.asked in self.stop_at

    def save(self, state):
        self.saved = {key: tensor.detach().clone() for key, tensor in state.items()}
        if self.asked in self.stop_at:
            raise Interrupted

    def part(self, r):
        return self.parts.setdefault(r, Memory(self.stop_at))


def trained(task, round, checkpoint=None):
    return train(task, round, Session(checkpoint=checkpoint or Memory()))


# -- the mask distance, and when a ticket is drawn


def masks(*rows):
    """[1, epochs, 1, channels] from rows such as "1100"."""
    return torch.tensor([[[[c == "1" for c in row]] for row in rows]])


@pytest.mark.parametrize(
    ("distance", "rows", "drawn"),
    [
        ("window", ["1100", "1100", "1100"], True),
        ("window", ["1100", "1100"], False),  # too few masks
        ("window", ["0011", "1100", "1100", "1100"], True),  # what left the window is forgotten
        ("window", ["1100", "1100", "1010"], False),
        ("window", ["1000", "1100", "1110"], False),  # drifts: the newest is far from the oldest
        ("consecutive", ["1000", "1100", "1110", "1111"], True),  # each step of the drift is small
        ("consecutive", ["1000", "1100", "1110"], False),  # three distances need four masks
        ("consecutive", ["1100", "1100", "1010", "1010"], False),
    ],
)
def test_a_ticket_is_drawn_when_the_window_stays_at_or_below_epsilon(distance, rows, drawn):
    method = EarlyBird(window=3, epsilon=0.25, distance=distance)
    assert stable(masks(*rows), method).tolist() == [[drawn]]


def test_bits_come_back_as_they_went():
    bits = torch.rand(2, 3, 2, 13) > 0.5
    assert torch.equal(unpacked(packed(bits), 13), bits)


def watched(gammas, **keys):
    """The memo and the stops of a search whose scales are, epoch by epoch, [R, channels] `gammas`."""
    channels = len(gammas[0][0])
    group = Group(channels, ("0.weight",), {"1.weight": torch.arange(channels)[:, None]})
    watch = Watch({"0": group}, EarlyBird(ratios=[0.5], window=2, **keys), len(gammas))
    memo, stops = {}, []
    for epoch, rows in enumerate(gammas, start=1):
        memo, done = watch(epoch, {"1.weight": torch.tensor(rows)}, memo)
        stops.append(done.tolist())
    return watch, memo, stops


def test_each_seed_draws_at_its_own_epoch_and_keeps_the_weights_of_that_epoch():
    still, turned = [0.9, 0.8, 0.2, 0.1], [0.1, 0.2, 0.8, 0.9]
    _, memo, stops = watched([[still, still], [still, turned], [turned, turned], [still, turned]])
    assert memo["drawn"].tolist() == [[2], [3]]
    assert stops == [[False, False], [True, False], [True, True], [True, True]]
    torch.testing.assert_close(memo["weights/0/1.weight"], torch.tensor([still, turned]))


def test_a_full_search_draws_all_the_same_and_never_stops():
    _, memo, stops = watched([[[0.9, 0.1]]] * 3, full=True)
    assert memo["drawn"].tolist() == [[2]]
    assert not any(stop for (stop,) in stops)
    assert unpacked(memo["masks"], 2)[0, :, 0].tolist() == [[True, False]] * 3


def test_equal_scales_are_kept_from_the_first_on_and_every_layer_keeps_one():
    groups = {
        "a": Group(3, scales={"a": torch.arange(3)[:, None]}),
        "b": Group(2, scales={"b": torch.arange(2)[:, None]}),
    }
    equal = {"a": torch.full((1, 3), 0.5), "b": torch.full((1, 2), 0.5)}
    assert {n: k.tolist() for n, k in kept(groups, scales(groups, equal), 0.4).items()} == {
        "a": [[True, True, False]],
        "b": [[True, False]],
    }
    small = {"a": torch.full((1, 3), 0.5), "b": torch.tensor([[0.1, 0.2]])}
    assert kept(groups, scales(groups, small), 0.9)["b"].tolist() == [[False, True]]


# -- surgery


class Odd(nn.Module):
    """Biases, a residual sum, a depthwise convolution, and channels flattened into four columns each."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8))
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.inner = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.last = nn.BatchNorm2d(8)
        self.output = nn.Linear(8 * 4, classes)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.last(self.inner(torch.relu(self.depth(x)))) + x)
        return self.output(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


NETWORKS = {
    "vgg8": MODELS["vgg8"](width=0.25).build,
    "resnet20": MODELS["resnet20"](width=0.5).build,
    "torchvision resnet18": TorchVision("resnet18").build,
    "custom": Odd,
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_shrunk_network_computes_what_the_masked_one_does(build):
    shape = (3, 16, 16)
    torch.manual_seed(0)
    network = build(shape, 10)
    for name, tensor in network.state_dict().items():  # no statistic, shift or bias may be trivial
        if tensor.is_floating_point() and tensor.dim() < 2:
            tensor.copy_(torch.rand_like(tensor) + 0.2 if "var" in name else torch.randn_like(tensor))
    names = list(layer_kinds(network, None))
    groups = channels.groups(build(shape, 10), shape, names)
    cut = {name: torch.rand(group.channels) < 0.6 for name, group in groups.items()}
    for alive in cut.values():
        alive[0] = True
    small = channels.shrunk(build(shape, 10), shape, cut)
    stack = {name: tensor.clone()[None] for name, tensor in network.state_dict().items()}
    alive = channels.masked({name: stack[name] for name in names}, [small])
    ticket = Ticket(stack, alive)
    network.load_state_dict({name: tensor[0] for name, tensor in ticket.start().items()})
    small.network.load_state_dict({name: tensor[0] for name, tensor in small.take(stack).items()})
    count = [sum(p.numel() for p in net.parameters()) for net in (small.network, network)]
    assert count[0] < 0.7 * count[1]
    images = torch.randn(4, *shape)
    with torch.no_grad():
        whole, less = network.eval()(images), small.network.eval()(images)
    torch.testing.assert_close(less / whole.std(), whole / whole.std(), rtol=0, atol=1e-5)


class Added(nn.Module):
    """Half of a layer's channels are added to the other half by their numbers: no graph shows that."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first, self.norm = nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = x * torch.linspace(0.1, 1, x.shape[1], dtype=x.dtype, device=x.device)[:, None, None]
        return self.last(self.second(x).mean((2, 3)))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_network_whose_channels_are_followed_passes_the_trial(build):
    shape = (3, 16, 16)
    groups = channels.groups(build(shape, 10), shape, list(layer_kinds(build(shape, 10), None)))
    channels.tried(lambda: build(shape, 10), shape, groups)


def test_a_network_that_would_be_cut_into_another_is_refused_before_it_is_trained():
    shape = (3, 8, 8)
    groups = channels.groups(Added(shape, 10), shape, list(layer_kinds(Added(shape, 10), None)))
    assert groups
    with pytest.raises(
        UserError, match=r"cannot be made smaller: torch-pruning does not follow .* differ by \d"
    ):
        channels.tried(lambda: Added(shape, 10), shape, groups)


def test_frozen_layers_stay_frozen_when_they_are_cut():
    def build(shape=(3, 8, 8)):
        network = MODELS["vgg8"](width=0.1).build(shape, 10)
        next(network.parameters()).requires_grad_(requires_grad=False)
        return network

    first = next(name for name, _ in build().named_parameters())
    groups = channels.groups(build(), (3, 8, 8), list(layer_kinds(build(), None)))
    kept = {name: torch.arange(group.channels) % 2 == 0 for name, group in groups.items()}
    small = dict(channels.shrunk(build(), (3, 8, 8), kept).network.named_parameters())
    assert [name for name, parameter in small.items() if not parameter.requires_grad] == [first]


def weights_of(model):
    return list(layer_kinds(MODELS[model]().build((3, 8, 8), 10), None))


def test_a_residual_stream_is_one_group_and_the_outputs_are_none():
    groups = channels.groups(MODELS["resnet20"]().build((3, 8, 8), 10), (3, 8, 8), weights_of("resnet20"))
    assert sum(group.channels for group in groups.values()) == 3 * 16 + 3 * 32 + 3 * 64 + 16 + 32 + 64
    assert len(groups["stem.0"].scales) == 4
    assert "output" not in groups


def test_channels_whose_makers_may_not_be_pruned_stay():
    names = [name for name in weights_of("resnet20") if "shortcut" not in name]
    groups = channels.groups(MODELS["resnet20"]().build((3, 8, 8), 10), (3, 8, 8), names)
    assert "stage2.0.shortcut.0" not in groups
    assert "stem.0" in groups


def test_a_network_whose_channels_cannot_be_followed_is_one_line():
    shuffled = TorchVision("shufflenet_v2_x0_5").build((3, 32, 32), 10)
    with pytest.raises(UserError, match="torch-pruning cannot follow this network's channels") as caught:
        channels.groups(shuffled, (3, 32, 32), list(layer_kinds(shuffled, None)))
    assert "\n" not in str(caught.value)


# -- training what is left


def halved(task):
    """A ticket with half of all channels, drawn at random, and what it keeps."""
    groups = channels.groups(task.network(), task.data.shape, task.layers.prunable)
    generator = torch.Generator().manual_seed(1)
    noise = {n: torch.rand(task.replicates, g.channels, generator=generator) for n, g in groups.items()}
    alive, dense = kept(groups, noise, 0.5), task.dense()
    return Ticket(dense.weights, mask(task, dense.weights, alive)), alive


@pytest.mark.parametrize("model", ["vgg8", "resnet20"])
def test_training_the_small_network_is_training_the_masked_one(model):
    task, plan = compose_task(
        *TINY, f"model={model}", "model.width=0.25", "recipe.steps=2ep", "method.window=2",
        "prunable.shortcut=true", "replicates=2",
    )  # fmt: skip
    ticket, alive = halved(task)
    small = trained(task, Round(1, ticket, plan, channels=alive))
    whole = trained(task, Round(1, ticket, plan))
    for name in ticket.mask:
        # Sums of other lengths round otherwise, and SGD carries it on: 1e-3 was seen where AVX2 does the sums.
        torch.testing.assert_close(small.final[name], whole.final[name], rtol=1e-2, atol=3e-3)
        assert not small.final[name][~ticket.mask[name]].any()
    torch.testing.assert_close(small.curve.val_loss, whole.curve.val_loss, rtol=1e-3, atol=1e-3)


def test_a_replicate_that_is_done_costs_no_more_steps():
    task, plan = compose_task(*TINY, "recipe.steps=3ep", "method.window=2", "replicates=2")
    last = iter([1, 2])
    stop = []

    def watch(epoch, weights, memo):
        if epoch == 1:
            stop.append(next(last))
        return {"epochs": torch.tensor([epoch])}, torch.tensor([epoch == stop[-1]])

    outcome = trained(task, Round(0, task.dense(), plan, hooks=Hooks(watch=watch)))
    assert outcome.steps.tolist() == [plan.epoch, 2 * plan.epoch]
    assert outcome.memo["epochs"].tolist() == [1, 2]
    assert outcome.curve.step.tolist() == [0, plan.epoch, 2 * plan.epoch]
    assert outcome.curve.measured().tolist() == [[True, True, False], [True, True, True]]
    assert outcome.curve.last().tolist() == [1, 2]


def test_a_search_that_was_killed_goes_on_bit_for_bit():
    task, plan = compose_task(*TINY, "recipe.steps=3ep", "method.window=2", "replicates=2")
    method = EarlyBird(ratios=[0.3, 0.6], window=2, full=True)
    search = method.search(task, task.dense(), plan)
    next(search)
    bird = search.send(None)
    straight = trained(task, bird)
    # Stopped in mid-epoch in each replicate, and at an epoch's end: the memo has to come back too.
    broken = Memory(stop_at=(plan.epoch + 1, 2 * plan.epoch))
    for _ in range(4):
        with pytest.raises(Interrupted):
            trained(task, bird, broken)
    again = trained(task, bird, broken)
    assert ticket_identity(Ticket(again.final, {})) == ticket_identity(Ticket(straight.final, {}))
    assert ticket_identity(Ticket(again.memo, {})) == ticket_identity(Ticket(straight.memo, {}))
    assert torch.equal(again.curve.val_loss, straight.curve.val_loss)
    assert straight.memo["drawn"].all()


# -- the whole method


WHOLE = [
    *TINY, "method.window=2", "method.epsilon=0.3", "method.ratios=[0.3,0.6]", "recipe.steps=6ep",
    "replicates=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two seeds in full, and its folder."""
    out = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    composed = compose([*WHOLE, f"out={out}"])
    return composed, execute(composed)


def early(**keys):
    """The rounds of an Early-Bird search, and what became of them."""
    task, plan = compose_task(*TINY, "method.window=2", "recipe.steps=4ep", "replicates=2")
    method = EarlyBird(ratios=[0.5], window=2, epsilon=0.4, **keys)
    search, outcomes, asked = method.search(task, task.dense(), plan), [None], []
    with suppress(StopIteration):
        while True:
            asked.append(search.send(outcomes[-1]))
            outcomes.append(trained(task, asked[-1]))
    return plan, asked, outcomes[1:]


def test_eb_train_inherits_the_weights_of_the_drawing_epoch_and_the_rest_of_the_schedule():
    # The authors' main_c.py builds a new network and copies only its shape: "EB Train" was re-init there.
    plan, (dense, _, ticket), (_, found, retrained) = early()
    assert ticket.starts == tuple((found.memo["drawn"][:, 0] * plan.epoch).tolist())
    for name, weights in ticket.ticket.weights.items():
        assert torch.equal(weights, found.memo[f"weights/0/{name}"])
        if name in ticket.ticket.mask:
            assert not torch.equal(weights, dense.ticket.weights[name])
    assert (retrained.steps + torch.tensor(ticket.starts)).tolist() == [plan.steps] * 2


def test_the_other_ways_to_retrain_begin_at_step_0_from_the_first_or_from_new_weights():
    _, (dense, _, original), _ = early(retrain="original")
    assert original.starts == ()
    assert ticket_identity(Ticket(original.ticket.weights, {})) == ticket_identity(
        Ticket(dense.ticket.weights, {})
    )
    _, (_, _, reinit), _ = early(retrain="reinit")
    for name, alive in reinit.ticket.mask.items():
        assert not torch.equal(reinit.ticket.weights[name], dense.ticket.weights[name])
        assert torch.equal(alive, original.ticket.mask[name])


def test_tickets_can_be_drawn_at_given_epochs():
    plan, (_, _, *tickets), (_, search, *_) = early(at=[1, 3])
    assert [ticket.starts for ticket in tickets] == [(plan.epoch,) * 2, (3 * plan.epoch,) * 2]
    assert search.steps.tolist() == [3 * plan.epoch] * 2


def test_a_search_without_a_ticket_fails_if_asked_to():
    task, plan = compose_task(*TINY, "method.window=2", "recipe.steps=2ep", "replicates=2")
    method = EarlyBird(ratios=[0.5], window=2, epsilon=1e-9, otherwise="fail")
    search = method.search(task, task.dense(), plan)
    next(search)
    outcome = trained(task, search.send(None))
    outcome.memo["drawn"].zero_()
    with pytest.raises(UserError, match="no ticket emerged in 2 epochs: seed 0 at ratio"):
        search.send(outcome)


def test_a_run_leaves_draws_distances_channels_and_costs(run):
    _, folder = run
    tables = {name: read_any(folder, name) for name in ("draws", "distances", "channels", "costs", "gammas")}
    costs = tables["costs"].set_index(["role", "level", "seed"])
    draws = tables["draws"].set_index(["ratio", "seed"])
    for level, ratio in enumerate([0.3, 0.6], start=1):
        for seed in (0, 1):
            row = costs.loc["ticket", level, seed]
            assert row.search_epochs == draws.loc[ratio, seed].epoch
            assert row.total_epochs == 6  # EB Train: search and retraining share one schedule
            assert row.total_macs < costs.loc["ticket", 0, seed].macs
    sums = tables["channels"].groupby("level")[["kept", "channels"]].sum()
    assert (1 - sums.kept / sums.channels).tolist() == pytest.approx([0.3, 0.6], abs=0.02)
    levels = read_table(folder / "levels.csv")
    assert levels[(levels.role == "ticket") & (levels.level == 2)].density.max() < 0.4


def test_a_run_is_replayed_without_training_and_repaired_where_a_round_is_missing(run):
    composed, folder = run
    before = {name: (folder / f"{name}.csv").read_text() for name in ("draws", "distances", "curves")}
    tickets = {file: file.read_bytes() for file in folder.glob("level_0[12]/*/*.safetensors")}
    (folder / "level_00" / "search" / "trained.safetensors").unlink()
    assert execute(composed) == folder
    assert before == {name: (folder / f"{name}.csv").read_text() for name in before}
    assert tickets == {file: file.read_bytes() for file in tickets}


def test_a_run_killed_again_and_again_comes_to_the_same_end(run, tmp_path, monkeypatch):
    _, folder = run
    elsewhere = compose([*WHOLE, f"out={tmp_path}", "checkpoint_seconds=0"])
    saves = count()

    def dies(checkpoint, state, save=Checkpoint.save):
        save(checkpoint, state)
        if next(saves) % 7 == 6:
            raise SystemExit("killed")

    monkeypatch.setattr(Checkpoint, "save", dies)
    deaths = 0
    while True:
        try:
            again = execute(elsewhere)
            break
        except SystemExit:
            deaths += 1
    assert deaths > 5
    for name in ("curves", "layers", "draws", "distances", "channels", "gammas"):
        assert (again / f"{name}.csv").read_text() == (folder / f"{name}.csv").read_text()


def read_any(folder, name):
    return pd.read_csv(folder / f"{name}.csv")


@pytest.mark.parametrize(
    ("method", "levels", "searched"),
    [("slimming", 1, 4), ("channel_oneshot", 1, 4), ("channel_random", 1, 0), ("channel_snip", 1, 0)],
)
def test_its_competitors_run_in_the_same_protocol(method, levels, searched, tmp_path):
    words = [*TINY, f"method={method}", "method.ratios=[0.5]", "recipe.steps=4ep", "replicates=1"]
    folder = execute(compose([*words, f"out={tmp_path}"]))
    costs = read_any(folder, "costs")
    ticket = costs[(costs.role == "ticket") & (costs.level == levels)].iloc[0]
    assert (ticket.search_epochs, ticket.epochs) == (searched, 4)


def test_a_search_is_drawn_beside_a_method_that_searches_not(run, tmp_path):
    _, folder = run
    words = [*TINY, "method=channel_random", "recipe.steps=1ep", "replicates=1"]
    other = execute(compose([*words, f"out={tmp_path}"]))
    files = {path.name for path in report.draw([folder, other], out=tmp_path / "drawn")}
    assert {"mask_distance.png", "gammas.png", "channels_per_layer.png"} <= files


def test_the_cost_of_imp_is_every_training_before(tmp_path):
    words = ["model.hidden=[10]", "recipe.steps=20", "recipe.eval_every=20", "replicates=1", "controls=[]"]
    words = [*words, f"out={tmp_path}"]
    for method, expected in {"imp": [0, 20, 40], "oneshot": [0, 20, 20]}.items():
        costs = read_any(execute(compose([*words, "method.levels=2", f"method={method}"])), "costs")
        assert costs.search_steps.tolist() == expected
    levels = ["config=digits_at_init", "method=snip", "method.densities=[0.5,0.2]"]
    snip = read_any(execute(compose([*levels, *words])), "costs")
    assert snip.search_steps.tolist() == [0, 0, 0]
    assert (snip.macs == 20 * 60 * (3 * (64 * 10 + 10 * 10) - 64 * 10)).all()


def test_a_network_without_scales_is_refused_before_any_data():
    with pytest.raises(UserError, match="no BatchNorm"):
        EarlyBird().check(Layers({"w": (1,)}, {"w": "dense"}, ("w",)), None)
    with pytest.raises(UserError, match="compared with reinit only"):
        compose([*TINY, "controls=[shuffle]"])


def test_early_stop_skips_what_was_not_measured():
    nan = torch.nan
    loss = torch.tensor([[nan, 0.5, 0.4], [0.3, 0.2, nan]])
    curve = Curve(torch.tensor([0, 1, 2]), loss, loss, loss, loss)
    assert curve.early_stop().tolist() == [2, 1]
    assert curve.last().tolist() == [2, 1]
