"""`import ltx`: tables, weights and networks of runs, and experiments composed and run from Python."""

import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from helpers import interrupt_at, ticket_on_disk
from safetensors.torch import load_file

import ltx

DOCS = Path(__file__).parent.parent / "docs"
SMALL = (*TINY, "control_draws=2")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small run with two draws of its control."""
    torch.set_num_threads(1)
    return ltx.run(ltx.compose(*SMALL, f"out={tmp_path_factory.mktemp('python')}"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three runs: two learning rates, and a third that differs from the first in its seeds alone."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("tree")
    for change in ("recipe.lr=0.001", "recipe.lr=0.002", "seed=2"):
        ltx.run(ltx.compose(*TINY, "recipe.lr=0.001", "method.levels=1", "controls=[]", change, f"out={out}"))
    return ltx.load(out)


# -- tables ---------------------------------------------------------------------------------------------------


def test_a_table_is_the_csv_file_with_the_run_in_every_row(results):
    for name in ("levels", "curves", "layers", "masks", "costs"):
        table, file = getattr(results, name), pd.read_csv(results.folder / f"{name}.csv")
        assert list(table)[:3] == ["run", "config", "method"]
        assert set(table.run) == {f"digits_lenet/{results.folder.name}"}
        assert set(table.config) == {"digits_lenet"}
        own = [column for column in file if column not in ("config", "method")]
        pd.testing.assert_frame_equal(table[own], file[own], check_dtype=False)
    assert list(results.levels).count("config") == 1


def test_a_table_that_no_run_has_is_empty(results):
    assert len(results.draws) == 0
    assert {"run", "config", "method", "seed", "ratio"} <= set(results.draws)


def test_settings_that_vary_between_runs_are_columns(tree):
    assert len(tree) == 3
    assert list(tree.runs) == ["run", "config", "method", "recipe.lr", "status", "folder"]
    assert sorted(tree.runs["recipe.lr"]) == [0.001, 0.001, 0.002]
    levels = tree.levels
    assert list(levels)[:4] == ["run", "config", "method", "recipe.lr"]
    assert levels.groupby("recipe.lr").seed.unique().map(sorted).to_dict() == {
        0.001: [0, 1, 2, 3],
        0.002: [0, 1],
    }
    assert len(tree.curves) == 3 * 2 * 2 * 4  # runs, levels, seeds, evaluations
    assert set(tree.runs.status) == {"complete"}


def test_one_run_of_several_is_chosen_by_place_or_name(tree):
    first = tree[0]
    assert first.names == tree.names[:1]
    assert tree[tree.names[2]].folder == tree.folders[2]
    assert [run.folder for run in tree] == tree.folders
    assert tree[1:].names == tree.names[1:]
    assert tree[-1].names == tree.names[2:]
    assert all(name in repr(tree) and name in tree._repr_html_() for name in tree.names)
    with pytest.raises(ltx.UserError, match=r"3 runs are loaded: choose one, as in results\[0\]"):
        _ = tree.manifest
    with pytest.raises(ltx.UserError, match="run=nope does not exist"):
        tree["nope"]


def test_runs_of_the_same_name_are_told_apart_by_their_folders(results):
    both = type(results)([results.folder, results.folder.parent / "." / results.folder.name])
    assert both.names == [str(folder) for folder in both.folders]


def test_config_and_manifest_are_the_run_s(results):
    assert results.config["model"] == {"name": "lenet", "hidden": [16], "weights": None, "fresh": []}
    assert results.manifest["status"] == "complete"
    assert results.manifest["seeds"] == [0, 1]


def test_the_summary_is_that_of_the_plots(results):
    summary = results.summary()
    assert summary.line.unique().tolist() == ["ticket", "reinit"]
    assert summary.n.tolist() == [2, 2, 2, 4, 4]


def test_the_figures_go_where_they_are_wanted(results, tmp_path):
    files = results.draw(tmp_path / "figures")
    assert tmp_path / "figures" / "accuracy_vs_sparsity.png" in files
    assert all(file.stat().st_size > 0 for file in files)


def test_tables_need_no_torch_and_the_import_needs_nothing(results):
    code = (
        "import sys, ltx\n"
        "heavy = {'torch', 'pandas', 'numpy', 'hydra', 'matplotlib', 'yaml', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"loaded = ltx.load({str(results.folder)!r})\n"
        "assert len(loaded.levels) == 14 and len(loaded.curves) and loaded.config and len(loaded.summary())\n"
        "assert loaded.manifest['status'] == 'complete' and 'levels' in dir(loaded)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_committed_reference_runs_load():
    reference = ltx.load(DOCS / "gallery")
    assert set(reference.runs.config) >= {"digits_lenet", "mnist_lenet"}
    assert reference.levels.groupby("run")["level"].max().min() >= 1
    assert "model.hidden" in reference.runs  # which a network without the key lacks


def test_what_is_not_offered_is_an_ordinary_attribute_error(results):
    with pytest.raises(AttributeError, match="no levelz in results; their tables are levels, curves"):
        _ = results.levelz
    with pytest.raises(AttributeError, match="module 'ltx' has no attribute 'loud'"):
        _ = ltx.loud
    assert {"compose", "load", "run", "UserError"} <= set(dir(ltx))


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(ltx.UserError, match="no run"):
        ltx.load(tmp_path)


# -- weights and networks -------------------------------------------------------------------------------------


def test_a_ticket_is_what_is_on_the_disk(results):
    place = results.folder / "level_02" / "ticket"
    (mask, weights), trained = ticket_on_disk(place), load_file(place / "trained.safetensors")
    one, every = results.ticket(level=2, seed=1), results.ticket(level=2)
    assert one.mask.keys() == {"1.weight", "3.weight"}
    assert torch.equal(one.mask["1.weight"], mask["1.weight"][1])
    assert torch.equal(one.start["1.weight"], weights["1.weight"][1] * mask["1.weight"][1])
    assert torch.equal(one.start["1.bias"], weights["1.bias"][1])
    assert torch.equal(one.trained["3.weight"], trained["final/3.weight"][1])
    assert torch.equal(every.trained["3.weight"], trained["final/3.weight"])
    assert every.mask["1.weight"].shape == (2, 16, 64)
    assert (one.trained["1.weight"][~one.mask["1.weight"]] == 0).all()
    assert int(one.mask["1.weight"].sum() + one.mask["3.weight"].sum()) == 655 + 130


def test_a_control_is_found_by_its_role_and_draw(results):
    ticket = results.ticket(level=1, seed=0)
    controls = [results.ticket(level=1, seed=0, role="reinit", draw=draw) for draw in (0, 1)]
    assert all(torch.equal(control.mask["1.weight"], ticket.mask["1.weight"]) for control in controls)
    starts = [control.start["1.weight"] for control in (ticket, *controls)]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


@pytest.mark.parametrize(("role", "draw"), [("ticket", 0), ("reinit", 1)])
def test_a_network_is_as_accurate_as_its_row_says(role, draw, results):
    images, labels = results.examples("test")
    rows = results.levels.query("role == @role and draw == @draw and level > 0")
    assert len(rows) == 4
    for row in rows.itertuples():
        network = results.network(level=row.level, seed=row.seed, role=role, draw=draw)
        correct = int((network(images).argmax(1) == labels).sum())
        assert correct == round(row.final_test_accuracy * 360)


def test_a_network_whose_channels_were_cut_computes_what_it_did_when_it_was_small(tmp_path):
    overrides = (
        *("config=digits_early_bird", "replicates=1", "recipe.steps=4ep", "recipe.eval_every=2ep"),
        *(
            "recipe.drops=[]",
            "recipe.warmup=0",
            "model.width=0.25",
            "method.ratios=[0.3]",
            "controls=[]",
            "method.window=2",
        ),
    )
    results = ltx.run(ltx.compose(*overrides, f"out={tmp_path}"))
    assert len(results.draws) == 1
    images, labels = results.examples("test")
    for row in results.levels.query("role == 'ticket'").itertuples():
        correct = int((results.network(row.level, row.seed)(images).argmax(1) == labels).sum())
        assert correct == round(row.final_test_accuracy * 360)


def test_reading_a_network_leaves_the_random_stream_alone(results):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    results.network(level=1, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"level": 9, "seed": 0},
            r"does not exist; the folder has the weights of level_00/ticket, level_01/rein",
        ),
        ({"level": 1, "seed": 7}, r"seed=7 is not possible: the run has seeds 0, 1"),
        ({"level": 1, "seed": 0, "role": "shuffle"}, "shuffle/trained.safetensors does not exist"),
    ],
)
def test_weights_that_are_not_there_are_one_line(asked, told, results):
    with pytest.raises(ltx.UserError, match=told) as caught:
        results.network(**asked)
    assert "\n" not in str(caught.value)


def test_a_split_that_does_not_exist_is_named_with_those_that_do(results):
    with pytest.raises(ltx.UserError, match="split=tset does not exist; did you mean test"):
        results.examples("tset")
    assert [len(results.examples(split)[1]) for split in ("train", "val", "test")] == [1257, 180, 360]


# -- running --------------------------------------------------------------------------------------------------


def test_a_mistake_is_an_exception_with_one_line_and_composing_goes_on(tmp_path):
    with pytest.raises(
        ltx.UserError, match=r"unknown key recipe\.stepz: did you mean recipe\.steps\?"
    ) as caught:
        ltx.compose("recipe.stepz=3")
    assert caught.value.__suppress_context__
    (tmp_path / "config").mkdir()
    own = "# @package _global_\ndefaults: [digits_lenet, _self_]\nseed: 5\n"
    (tmp_path / "config" / "own.yaml").write_text(own)
    assert ltx.compose("config=own", config_dir=tmp_path).run.seed == 5
    assert ltx.compose().run.seed == 0


def test_running_again_finds_the_run_complete(results, capsys):
    again = ltx.run(ltx.compose(*SMALL, f"out={results.folder.parent.parent}"))
    assert again.folder == results.folder
    assert "was complete already; nothing was trained" in capsys.readouterr().err


def test_an_interrupt_leaves_a_run_that_continues(results, tmp_path, monkeypatch):
    experiment = ltx.compose(*SMALL, f"out={tmp_path}")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(ltx.Interrupted, match="the same command continues"):
            ltx.run(experiment)
    assert ltx.load(tmp_path).manifest["status"] == "interrupted"
    whole = ltx.run(experiment)
    assert whole.manifest["status"] == "complete"
    own = [column for column in whole.levels if column not in ("run", "seconds")]
    pd.testing.assert_frame_equal(whole.levels[own], results.levels[own], check_exact=True)


def test_a_run_may_be_in_any_thread(results, tmp_path):
    """Widgets and servers call from threads, where no signal can be caught."""
    found = []
    call = threading.Thread(target=lambda: found.append(ltx.run(ltx.compose(*SMALL, f"out={tmp_path}"))))
    call.start()
    call.join()
    assert found[0].levels.final_test_accuracy.tolist() == results.levels.final_test_accuracy.tolist()


def test_a_network_may_be_defined_where_it_is_used(tmp_path):
    code = (
        "import ltx\nfrom torch import nn\n"
        "def small(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        f"overrides = {[o for o in TINY if not o.startswith('model')]!r}\n"
        "results = ltx.run(ltx.compose(*overrides, 'model=custom', 'model.path=__main__:small', "
        f"'out={tmp_path}'))\n"
        "assert results.network(level=2, seed=1)(results.examples()[0]).shape == (360, 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the documentation ----------------------------------------------------------------------------------------


def test_every_snippet_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S)
    assert len(snippets) == 5
    space = {}
    for snippet in snippets:
        exec(snippet, space)
    assert space["accuracy"] > 0.9
    assert space["ticket"].mask["1.weight"].shape == (300, 64)
    assert space["every"].mask["1.weight"].shape == (2, 300, 64)
    assert 0 < space["shared"] <= 300 * 64


DRAWING = """
import random
import numpy as np
import torch
from torch import nn

class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
    def forward(self, x):
        x = nn.functional.dropout(self.first(x.flatten(1)).relu(), 0.3, self.training)
        return self.last(x) * (1 + 0.1 * self.training * (random.random() + np.random.rand()))

def drawing(shape, classes): return Drawing()
"""


def test_two_runs_in_two_threads_have_the_bits_of_one_after_the_other(tmp_path, monkeypatch):
    """Initialisation, dropout and whatever else a network draws from: the global generators are one at a time."""
    (tmp_path / "drawing_nets.py").write_text(DRAWING)
    monkeypatch.chdir(tmp_path)
    small = (
        "model=custom",
        "model.path=drawing_nets:drawing",
        "replicates=2",
        "method.levels=1",
        "controls=[]",
    )
    made = [
        ltx.compose(
            *small, "recipe.steps=40", "recipe.eval_every=20", f"seed={seed}", f"out={tmp_path / name}"
        )
        for name in ("alone", "beside")
        for seed in (0, 7)
    ]
    before = sys.getswitchinterval()
    alone, beside = [ltx.run(experiment) for experiment in made[:2]], {}
    calls = [
        threading.Thread(target=lambda i=i, made=experiment: beside.update({i: ltx.run(made)}))
        for i, experiment in enumerate(made[2:])
    ]
    sys.setswitchinterval(1e-5)
    try:
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    finally:
        sys.setswitchinterval(before)
    for i, one in enumerate(alone):
        own = [column for column in one.curves if column != "run"]
        pd.testing.assert_frame_equal(one.curves[own], beside[i].curves[own], check_exact=True)


def test_a_run_is_undisturbed_by_a_thread_that_draws_and_seeds(tmp_path):
    """Whoever calls from a thread may draw from torch's global generator at any moment, in another thread."""
    made = [ltx.compose(*SMALL, f"out={tmp_path / name}") for name in ("alone", "beside")]
    alone, over = ltx.run(made[0]), threading.Event()

    def disturb():
        while not over.is_set():
            torch.manual_seed(5)
            torch.rand(3)

    thread, before = threading.Thread(target=disturb), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        beside = ltx.run(made[1])
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
    own = [column for column in alone.curves if column != "run"]
    pd.testing.assert_frame_equal(alone.curves[own], beside.curves[own], check_exact=True)


def test_a_run_leaves_the_process_as_it_was(tmp_path):
    def state():
        denormal = torch.full((1,), 1e-39) * 1
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            denormal.item(),
        )

    before = state()
    assert before[-1] != 0
    ltx.run(ltx.compose(*SMALL, f"out={tmp_path}"))
    assert state() == before
