"""`ltx sweep` and `ltx status`: grids on this machine, what fails, what is shared, what is stopped."""

import json
import re
import shutil
import signal
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import TINY, spawn
from helpers import NETS, SMALL, alive, plan_of, states, until
from PIL import Image
from rich.console import Console

from hydra_plugins.ltx_plugins import _local
from hydra_plugins.ltx_plugins._jobs import Wish, cancelling
from hydra_plugins.ltx_plugins._local import Place, places
from ltx.config.compose import compose, compose_all
from ltx.config.registry import LAUNCHERS
from ltx.errors import Died, UserError
from ltx.experiment.execute import execute
from ltx.experiment.status import SILENT_SECONDS, State, note_failure, state
from ltx.sweep.plan import planned
from ltx.sweep.watch import ORDER, overview

LONG = (*SMALL, "recipe.steps=200000", "recipe.eval_every=1000", "checkpoint_seconds=1")


# -- grids ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four jobs that has ended."""
    out = tmp_path_factory.mktemp("sweep")
    process = spawn("sweep", *SMALL, "method=imp,oneshot", "seed=0,2", f"out={out}")
    said, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return out, said, told


def test_every_combination_is_run_and_compared(swept):
    out, said, told = swept
    labels = ["method=imp seed=0", "method=imp seed=2", "method=oneshot seed=0", "method=oneshot seed=2"]
    plan = plan_of(out)
    assert plan.labels() == labels
    assert states(out) == ["complete"] * 4
    assert "4 jobs, 0 done before" in told
    for label in labels:
        assert f"{label}: complete, level 1 ticket 81.3 %" in told
    assert {path.name for path in plan.folder.iterdir()} >= {
        *("sweep.json", "accuracy_vs_sparsity.png", "accuracy_vs_sparsity.csv", "accuracy_vs_sparsity.md")
    }
    assert f"figures and tables: {plan.folder}" in said
    summary = pd.read_csv(plan.folder / "accuracy_vs_sparsity.csv")
    assert sorted(summary.method.unique()) == ["imp", "oneshot"]
    assert set(summary.n) == {4}  # two jobs of two seeds each


def test_a_job_of_a_sweep_is_the_run_of_the_same_words(swept, tmp_path):
    out, *_ = swept
    alone = execute(compose([*SMALL, "method=oneshot", "seed=2", f"out={tmp_path}"]))
    beside = next((out / "digits_lenet").glob(alone.name))
    columns = [c for c in pd.read_csv(alone / "levels.csv") if c != "seconds"]
    assert pd.read_csv(alone / "levels.csv")[columns].equals(pd.read_csv(beside / "levels.csv")[columns])


def test_the_same_sweep_again_does_nothing(swept, ltx):
    out, *_ = swept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    said = ltx("sweep", *SMALL, "method=imp,oneshot", "seed=0,2", f"out={out}")
    assert said.code == 0, said.err
    assert "4 jobs, 4 done before" in said.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


def test_a_larger_sweep_does_only_what_is_missing(swept, tmp_path, ltx):
    out = tmp_path / "copy"
    shutil.copytree(swept[0], out)
    said = ltx("sweep", *SMALL, "method=imp,oneshot", "seed=0,2,4", "launcher=local", f"out={out}")
    assert said.code == 0, said.err
    assert "6 jobs, 4 done before" in said.err
    assert said.err.count(": running") <= 2


def test_status_tells_the_same_from_the_files(swept, ltx):
    out, *_ = swept
    said = ltx("status", out)
    assert said.code == 0
    assert "4 jobs: 4 complete" in said.out
    assert "method=oneshot seed=2: complete, level 1 ticket 81.3 %" in said.out


def test_status_follows_to_the_end(swept, ltx):
    assert ltx("status", swept[0], "--follow").code == 0


def test_seeds_split_over_jobs_give_the_results_of_one_batch(tmp_path, ltx):
    whole = execute(compose([*SMALL, "replicates=3", f"out={tmp_path / 'whole'}"]))
    said = ltx("sweep", *SMALL, "replicates=3", "--seeds-per-job", 2, f"out={tmp_path / 'parts'}")
    assert said.code == 0, said.err
    plan = plan_of(tmp_path / "parts")
    assert plan.labels() == ["seed=0 replicates=2", "seed=2 replicates=1"]
    for table, order in (("levels", ["level", "seed"]), ("curves", ["level", "seed", "step"])):
        parts = pd.concat([pd.read_csv(job.folder / f"{table}.csv") for job in plan.jobs])
        one = pd.read_csv(whole / f"{table}.csv").drop(columns="seconds", errors="ignore")
        both = [t[one.columns].sort_values(order).reset_index(drop=True) for t in (one, parts)]
        pd.testing.assert_frame_equal(*both, check_exact=True)


def test_methods_with_other_keys_are_swept_over_one_experiment(tmp_path, ltx):
    words = ["config=digits_lenet", "method=imp,snip", "model.hidden=[16]", "replicates=1", "controls=[]"]
    said = ltx("sweep", *words, "recipe.steps=2", "recipe.eval_every=2", f"out={tmp_path}")
    assert said.code == 0, said.err
    assert sorted(p.name.split("-")[2] for p in (tmp_path / "digits_lenet").iterdir()) == ["imp", "snip"]


def test_a_job_named_twice_is_one_job(tmp_path):
    plan = planned([*SMALL, "seed=0,0", "device=auto,cpu", f"out={tmp_path}"], None, None)
    assert len(plan.jobs) == 1


def test_experiments_of_one_sweep_have_folders_of_their_own(tmp_path):
    words = ["config=digits_lenet,digits_at_init", "recipe.steps=50", f"out={tmp_path}"]
    plan = planned(words, None, None)
    assert [job.folder.parent.name for job in plan.jobs] == ["digits_lenet", "digits_at_init"]
    assert plan.labels() == ["config=digits_lenet", "config=digits_at_init"]


def test_a_pattern_names_all_that_it_matches(tmp_path):
    plan = planned(["method=glob([i*,one*])", *SMALL, f"out={tmp_path}"], None, None)
    assert plan.labels() == ["method=imp", "method=oneshot"]


def test_every_combination_must_fit_data_that_only_tell_their_shape_when_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for part, kind, n in [(p, k, n) for p in ("train", "test") for k in "ab" for n in range(30)]:
        file = tmp_path / "images" / part / kind / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), n).save(file)
    words = [
        "dataset=image_folder",
        f"dataset.root={tmp_path / 'images'}",
        "dataset.size=8",
        "recipe.batch_size=10",
    ]
    with pytest.raises(UserError, match="rewind_step=9 is not possible"):
        planned([*words, "recipe.steps=1ep", "method.rewind_step=0,9", f"out={tmp_path}"], None, None)


def test_what_is_shared_between_combinations_makes_no_difference():
    words = ["recipe.lr=0.3", "model.hidden=[7]", "method.levels=3", "controls=[]"]
    together = compose_all([["method=imp"], [*words, "method=imp"], ["method=imp"], words])
    alone = [
        compose(["method=imp"]),
        compose([*words, "method=imp"]),
        compose(["method=imp"]),
        compose(words),
    ]
    assert [one.config for one in together] == [one.config for one in alone]
    assert [one.run for one in together] == [one.run for one in alone]
    assert together[0].config["recipe"]["lr"] == 1.2e-3
    assert together[1].config["recipe"]["lr"] == 0.3


# -- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=0,1", "methd=imp"], "unknown key methd"),
        (["method=imp,ipm"], "method=ipm does not exist; did you mean imp"),
        (["recipe.lr=1e-3,fast"], "recipe.lr=fast is not possible: it must be a number"),
        (["method.levels=3,0"], "method.levels=0"),
        (["out=a,b"], "a sweep has one out"),
        (["launcher=local,slurm"], "a sweep has one launcher"),
        (["launcher=cloud"], "launcher=cloud does not exist; choose from local, ray, slurm"),
        (["hydra.launcher.job=3"], "unknown key hydra.launcher.job: did you mean hydra.launcher.jobs?"),
        (["recipe.lr=interval(0,1)"], "only a sweeper that searches takes it"),
        (["--seeds-per-job", "0"], "--seeds-per-job 0 is not possible: it must be 1 or more"),
        (["--cfg", "job"], "--cfg is not for a sweep"),
        (["device=cuda:99"], "device=cuda:99 is not on this machine"),
        (["hydra.launcher.jobs=0"], "hydra.launcher.jobs=0 is not possible: it must be 1 or more"),
        (["hydra.launcher.jobs=two"], "hydra.launcher.jobs=two is not possible: Value 'two' of type"),
        (["hydra.mode=RUN", "seed=0,1"], "hydra.mode=RUN is not possible: `ltx sweep` launches jobs"),
        (["seed=range(3,0)"], "seed=range(3,0) names no combination: a range is empty"),
        (["method=glob(zzz)"], "method=glob(zzz) matches nothing; choose from"),
        (["seed=0,"], "'seed=0,' cannot be read: it ends too early\n"),
        (["out=a=b"], "'out=a=b' cannot be read: mismatched input '='; a value with = , [ ] or such"),
        (["out=/proc/nowhere"], "/proc/nowhere/sweeps/digits_lenet-"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_mistake_is_found_before_anything_is_launched(words, told, ltx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = ltx("sweep", *words)
    assert said.code == 2
    assert said.err.startswith("ltx: ")
    assert said.err.count("\n") == 1
    assert told in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["seed=0,1"], ["-m", "seed=0,1"], ["launcher=slurm"], ["hydra.mode=MULTIRUN"]]
)
def test_run_refuses_what_is_for_a_sweep(words, ltx):
    said = ltx("run", *words)
    assert said.code == 2
    assert "ltx sweep" in said.err


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_the_cluster_file_in_the_docs_is_accepted(name, tmp_path):
    pytest.importorskip(LAUNCHERS[name], reason=f"needs pip install 'ltx[{name}]'")
    docs = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text()
    (text,) = [
        t for t in re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL) if f"defaults: [{name}, _self_]" in t
    ]
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "mycluster.yaml").write_text(text)
    assert compose([*SMALL, "launcher=mycluster"], str(tmp_path)).run.replicates == 2


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_launcher_that_is_not_installed_says_what_to_install(name, ltx, monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "ltx.config.overrides.find_spec", lambda module: None if "launcher" in module else find(module)
    )
    said = ltx("sweep", "seed=0,1", f"launcher={name}")
    assert said.code == 2
    assert said.err == f"ltx: launcher={name} needs more than is installed: pip install 'ltx[{name}]'\n"


def test_status_of_nothing_is_a_mistake(ltx, tmp_path):
    assert "no run and no sweep" in ltx("status", tmp_path).err
    assert "no such folder" in ltx("status", tmp_path / "nowhere").err
    (tmp_path / "sweep.json").write_text("{}")
    assert "sweep.json is damaged: it has no jobs" in ltx("status", tmp_path).err


# -- failures -------------------------------------------------------------------------------------------------


def test_a_job_that_fails_or_dies_takes_no_other_with_it(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    paths = "model.path=nets:Raises,nets:Dies,nets:Unsendable,nets:Exits,nets:Net"
    words = ("sweep", "model=custom", paths, *SMALL[1:], "hydra.launcher.jobs=1", "out=out")
    process = spawn(*words, cwd=tmp_path)
    said, told = process.communicate(timeout=300)
    assert process.returncode == 1, told
    assert states(tmp_path / "out") == ["failed"] * 4 + ["complete"]
    assert "5 jobs: 4 failed, 1 complete" in told
    assert "Traceback" not in told
    raises, dies, *_ = plan_of(tmp_path / "out").jobs
    log = raises.folder / "log.txt"
    assert "Traceback" in log.read_text()
    reason = "failed, ZeroDivisionError: no weight is left; log: out/"
    assert f"model.path=nets:Raises: {reason}" in told
    assert "model.path=nets:Dies: failed, its process ended: killed by SIGKILL" in told
    assert "model.path=nets:Unsendable: failed, Odd: this and that" in told
    assert "SystemExit: goodbye; log: out/" in told
    assert told.strip().splitlines()[-1] == "ltx: 4 of 5 jobs failed; the same sweep tries them again"
    assert "figures and tables" in said  # of what did not fail

    (tmp_path / "mended").touch()
    process = spawn(*words, cwd=tmp_path)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "5 jobs, 1 done before" in told
    assert states(tmp_path / "out") == ["complete"] * 5
    assert not list((tmp_path / "out").rglob("status.json"))
    assert dies.state().reason == ""


def test_two_sweeps_that_share_runs_do_not_collide(tmp_path):
    words = ("sweep", *TINY, "seed=0,1", f"out={tmp_path}")
    both = [spawn(*words, "replicates=1"), spawn(*words, "replicates=1")]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    for job in plan_of(tmp_path).jobs:
        assert job.state().name == "complete"
        log = (job.folder / "log.txt").read_text()
        assert log.count("level  2  ticket") == 1, log  # trained once


def test_a_failure_that_a_full_disk_does_not_take_is_told_all_the_same(tmp_path, monkeypatch):
    said = {"state": "running", "level": 3, "role": "ticket", "updated": time.time()}
    (tmp_path / "status.json").write_text(json.dumps(said))

    def full(*_):
        raise UserError("no space left")

    monkeypatch.setattr("ltx.experiment.status.UNWRITTEN", {})
    monkeypatch.setattr("ltx.experiment.status.write", full)
    note_failure(tmp_path, UserError("cannot write levels.csv: No space left on device"))
    assert state(tmp_path).name == "failed"
    assert state(tmp_path).level == 3
    assert state(tmp_path).reason == "cannot write levels.csv: No space left on device"


@pytest.mark.parametrize(("failed", "code"), [(False, 2), (True, 1)])
def test_a_sweep_whose_figures_cannot_be_written_still_says_what_failed(
    failed, code, swept, tmp_path, ltx, monkeypatch
):
    out = tmp_path / "copy"
    shutil.copytree(swept[0], out)
    if failed:
        monkeypatch.setattr("ltx.sweep.plan.through_hydra", lambda *_: None)
        job = plan_of(out).jobs[0].folder
        (job / "manifest.json").unlink()
        note_failure(job, UserError("cannot write levels.csv: No space left on device"))

    def full(path, content):
        raise UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("ltx.report.figures.style.write", full)
    said = ltx("sweep", *SMALL, "method=imp,oneshot", "seed=0,2", f"out={out}")
    assert said.code == code
    assert "accuracy_vs_sparsity.png: No space left on device" in said.err
    assert ("ltx: 1 of 4 jobs failed" in said.err) == failed


# -- seeing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 160])
def test_a_live_table_has_a_line_a_job_on_any_terminal(width):
    labels = [f"method=oneshot seed={seed} recipe.lr=0.00{seed}" for seed in range(9)]
    now = [State("complete", 2, "ticket", 0.663)] * 6
    now += [
        State("running", 1, "ticket", 0.813, 8249, 30000, 0.975),
        State("queued"),
        State("failed", reason="x " * 99),
    ]
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(overview(labels, now, 4))
    lines = [line for line in console.file.getvalue().splitlines() if line.strip()]
    assert lines[0].strip() == "9 jobs: 1 running, 1 failed, 1 queued, 6 complete"
    assert len(lines) == 3 + 4
    assert [next(w for w in ORDER if w in line) for line in lines[3:]] == [
        "complete",
        "running",
        "queued",
        "failed",
    ]


def test_show_says_of_a_run_what_status_says(swept, tmp_path, ltx):
    run = tmp_path / "run"
    shutil.copytree(plan_of(swept[0]).jobs[0].folder, run)
    note_failure(run, Died("its process ended: killed by SIGKILL"))
    said = ltx("show", run).out
    assert "status     failed (" in said
    assert "its process ended: killed by SIGKILL" in said
    assert "the command that began this run continues it" in said
    (run / "manifest.json").unlink()
    assert "has trained no ticket to its end" in ltx("show", run).err


# -- stopping -------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path):
    """A sweep in the midst of training two long jobs, its folder, and the jobs' process ids."""
    process = spawn("sweep", *LONG, "seed=0,5", "hydra.launcher.jobs=2", f"out={tmp_path}")
    until(lambda: list((tmp_path / "sweeps").glob("*/sweep.json")))
    jobs = plan_of(tmp_path).jobs
    until(lambda: all((job.state().step or 0) > 0 for job in jobs))
    pids = [json.loads((job.folder / "status.json").read_text())["pid"] for job in jobs]
    yield process, jobs, pids
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_lets_its_jobs_save_and_leaves_no_process(running, number):
    process, jobs, pids = running
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.strip().splitlines()[-1] == (
        "ltx: stopped; what is done is kept, the same sweep goes on with what is missing"
    )
    assert not any(alive(pid) for pid in pids)
    for job in jobs:
        assert job.state().name == "interrupted"
        assert list(job.folder.rglob("progress/*.safetensors"))


def test_jobs_stop_when_their_sweep_is_killed(running):
    process, jobs, pids = running
    process.kill()
    until(lambda: not any(alive(pid) for pid in pids), 30)
    assert [job.state().name for job in jobs] == ["interrupted", "interrupted"]


def test_status_shows_a_running_sweep_from_outside(running, ltx):
    _, jobs, _ = running
    said = ltx("status", jobs[0].folder.parent.parent)
    assert "2 jobs: 2 running" in said.out
    assert "seed=5: running, level 0 ticket 100 %, step " in said.out
    assert "of 200,000, val " in said.out


def test_a_run_that_says_nothing_any_more_is_silent(tmp_path):
    said = {"state": "running", "level": 3, "role": "reinit", "density": 0.512, "updated": time.time()}
    (tmp_path / "status.json").write_text(json.dumps(said))
    assert state(tmp_path).name == "running"
    (tmp_path / "status.json").write_text(json.dumps(said | {"updated": time.time() - SILENT_SECONDS - 1}))
    assert state(tmp_path).name == "silent"
    (tmp_path / "status.json").write_text("{")
    assert state(tmp_path).name == "damaged"


# -- places ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "gpus", "count", "jobs", "per_gpu", "expected"),
    [
        (8, 0, 20, None, 1, [Place(1)] * 8),
        (8, 0, 3, None, 1, [Place(2)] * 3),
        (8, 0, 20, 2, 1, [Place(4)] * 2),
        (2, 0, 1, None, 1, [Place(2)]),
        (2, 0, 20, 5, 1, [Place(1)] * 5),
        (16, 2, 20, None, 1, [Place(8, "0"), Place(8, "1")]),
        (16, 2, 20, None, 2, [Place(4, "0"), Place(4, "1"), Place(4, "0"), Place(4, "1")]),
        (16, 2, 1, None, 2, [Place(16, "0")]),
    ],
)
def test_processes_share_cores_and_gpus(cores, gpus, count, jobs, per_gpu, expected, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places(count, jobs, per_gpu) == expected


def test_gpus_keep_the_names_that_the_environment_gives_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert _local.visible_gpus(2) == ["3", "GPU-7f"]


# -- what becomes of a cluster's jobs on Ctrl-C -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "terminal", "answer", "unasked", "expected"),
    [
        (Wish.cancel, False, None, False, True),
        (Wish.leave, True, None, True, False),
        (Wish.ask, True, "y", False, True),
        (Wish.ask, True, " Yes", False, True),
        (Wish.ask, True, "n", True, False),
        (Wish.ask, True, "", True, False),
        (Wish.ask, False, None, True, True),  # nobody to ask
        (Wish.ask, False, None, False, False),
    ],
)
def test_a_clusters_jobs_are_cancelled_as_wished_or_answered(
    wish, terminal, answer, unasked, expected, monkeypatch
):
    asked = []
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    assert cancelling(3, wish, otherwise="they stay", unasked=unasked) is expected
    assert bool(asked) == (answer is not None)
    assert all("cancel the 3 jobs" in question and "they stay" in question for question in asked)
