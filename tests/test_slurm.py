"""`ltx sweep launcher=slurm` on a real Slurm: two nodes on this machine, no accounts, preemption."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import TINY, spawn
from helpers import SMALL, alive, plan_of, same_tables, until

from ltx.config.compose import compose
from ltx.experiment.execute import execute

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'ltx[slurm]'")
missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="a Slurm needs root to be started"
    ),
    pytest.mark.skipif(bool(missing), reason=f"no Slurm here: {', '.join(missing)} not found"),
]

CLUSTER = (
    "launcher=slurm",
    "hydra.launcher.partition=low",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)
LONG = (
    *TINY,
    "controls=[]",
    "method.levels=1",
    "recipe.steps=12000",
    "recipe.eval_every=1000",
    "checkpoint_seconds=0.5",
)


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """The cluster, up for the tests of this file."""
    folder, script = Path(tempfile.mkdtemp(prefix="ltx-slurm-")), Path(__file__).with_name("slurm.sh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            up = subprocess.run(["bash", script, "up", folder], capture_output=True, text=True, check=False)
            assert up.returncode == 0, up.stderr
            yield
        finally:
            subprocess.run(["scancel", "--user=root"], check=False)
            subprocess.run(["bash", script, "down", folder], check=False)
            shutil.rmtree(folder, ignore_errors=True)


def squeue(form, *words):
    """What squeue says, a line a job."""
    command = ["squeue", "--noheader", "--array", "--format", form, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def undisturbed(folder, *words):
    return execute(compose([*words, f"out={folder}"]))


@pytest.fixture
def training(tmp_path):
    """A sweep of one long job that is in training and has a checkpoint, and the job's process id."""
    process = spawn("sweep", *LONG, *CLUSTER, f"out={tmp_path}", "hydra.launcher.on_interrupt=cancel")
    until(lambda: list((tmp_path / "sweeps").glob("*/sweep.json")))
    (job,) = plan_of(tmp_path).jobs
    until(lambda: list(job.folder.rglob("progress/*.safetensors")))
    yield process, job
    process.kill()
    process.communicate()
    subprocess.run(["scancel", "--user=root"], check=False)
    until(lambda: not squeue("%A"))


def pid_of(job):
    from ltx.files import read_json

    return read_json(job.folder / "status.json")["pid"]


def test_a_grid_on_slurm_is_the_same_as_here(tmp_path):
    words = (*SMALL, "method=imp,oneshot", "seed=0,2")
    process = spawn("sweep", *words, *CLUSTER, f"out={tmp_path}")
    said, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "Slurm job array" in told
    assert "4 jobs: 4 complete" in told
    assert "figures and tables" in said
    for job, (method, seed) in zip(
        plan_of(tmp_path).jobs, [("imp", 0), ("imp", 2), ("oneshot", 0), ("oneshot", 2)], strict=True
    ):
        here = undisturbed(tmp_path / "here", *SMALL, f"method={method}", f"seed={seed}")
        assert here.name == job.folder.name
        same_tables(here, job.folder)


def test_a_killed_job_is_told_of_and_resumes_in_the_next_sweep(training, tmp_path):
    process, job = training
    os.kill(pid_of(job), signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert "ended without a result" in told
    assert job.state().name == "failed"
    assert Path(job.state().log).suffix == ".err"
    assert list(job.folder.rglob("progress/*.safetensors"))  # where the next one begins
    again = spawn("sweep", *LONG, *CLUSTER, f"out={tmp_path}")
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    same_tables(undisturbed(tmp_path / "here", *LONG), job.folder)


def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_been(training, tmp_path):
    process, job = training
    first = pid_of(job)
    urgent = [
        "sbatch",
        "--partition=high",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap",
        "sleep 3",
    ]
    subprocess.run(urgent, check=True, capture_output=True)
    until(lambda: not alive(first))
    told = to_its_end(process)
    assert process.returncode == 0, told
    log = (job.folder / "log.txt").read_text()
    assert log.count("results go to") == 2, log  # begun twice
    same_tables(undisturbed(tmp_path / "here", *LONG), job.folder)


SLOW = """
import time
from torch import nn

class Slow(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[1] * shape[2], 8), nn.Tanh(), nn.Linear(8, classes))

    def forward(self, x):
        time.sleep(0.01 if len(x) > 8 else 0)
        return super().forward(x)
"""
"""A network that takes its time however fast the machine is."""


def test_a_job_out_of_time_is_requeued_and_goes_on(tmp_path):
    (tmp_path / "nets.py").write_text(SLOW)
    words = (*LONG[1:], "model=custom", "model.path=nets:Slow", "recipe.steps=1200", "recipe.eval_every=400")
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=50")  # Slurm looks every 30 s
    process = spawn("sweep", *words, *CLUSTER, *limits, "out=there", cwd=tmp_path)
    until(lambda: list((tmp_path / "there" / "sweeps").glob("*/sweep.json")))
    (job,) = plan_of(tmp_path / "there").jobs
    told = to_its_end(process)
    assert process.returncode == 0, told
    assert (job.folder / "log.txt").read_text().count("results go to") >= 2
    alone = spawn("run", *words, "out=here", cwd=tmp_path)
    alone.communicate(timeout=300)
    same_tables(next((tmp_path / "here").rglob("levels.csv")).parent, job.folder)


def to_its_end(process):
    """Wait for a sweep, starting requeued jobs at once where Slurm would hold them for two minutes."""
    while process.poll() is None:
        for job in squeue("%A", "--states=PENDING"):
            now = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
            subprocess.run(now, check=False, capture_output=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
    return process.communicate()[1]


def test_ctrl_c_cancels_the_jobs_where_that_is_wished(training):
    process, _ = training
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    until(lambda: not squeue("%A"), 60)


def test_ctrl_c_leaves_the_jobs_to_slurm_where_nobody_can_be_asked(tmp_path):
    process = spawn("sweep", *SMALL, "recipe.steps=20000", *CLUSTER, f"out={tmp_path}")
    until(lambda: squeue("%A", "--states=RUNNING"))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the jobs stay; `scancel" in told
    (job,) = plan_of(tmp_path).jobs
    until(lambda: job.state().name == "complete", 200)
