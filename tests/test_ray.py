"""`ltx sweep launcher=ray` on a real Ray: a cluster that runs already, and one made for the sweep."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY, spawn
from helpers import NETS, SMALL, alive, plan_of, same_tables, states, until

from ltx.config.compose import compose
from ltx.experiment.execute import execute
from ltx.files import read_json

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs pip install 'ltx[ray]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the addresses are those of Linux's loopback")

ADDRESS = "127.0.0.2:46379"  # Ray takes 127.0.0.1 for the machine's outer address
LONG = (*TINY, "controls=[]", "method.levels=1", "recipe.steps=8000", "recipe.eval_every=1000")


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of one node with two cores; it has a token, as every one since Ray 2.60."""
    host, port = ADDRESS.split(":")
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    command = [ray, "start", "--head", "--block", f"--port={port}", f"--node-ip-address={host}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1"}
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in head.stdout:
        if "Ray runtime started" in line:
            break
    time.sleep(2)
    assert head.poll() is None
    yield ADDRESS
    head.terminate()
    head.communicate(timeout=60)


def test_a_killed_worker_is_retried_and_ends_as_if_nothing_had_been(cluster, tmp_path):
    words = (
        "launcher=ray",
        f"hydra.launcher.ray.init.address={cluster}",
        "checkpoint_seconds=0.5",
        "seed=0,2",
    )
    process = spawn("sweep", *LONG, *words, f"out={tmp_path}")
    until(lambda: list((tmp_path / "sweeps").glob("*/sweep.json")))
    first, second = plan_of(tmp_path).jobs
    until(lambda: list(first.folder.rglob("progress/*.safetensors")))
    killed = read_json(first.folder / "status.json")["pid"]
    os.kill(killed, signal.SIGKILL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert not alive(killed)
    assert "2 jobs: 2 complete" in told
    assert (first.folder / "log.txt").read_text().count("results go to") == 2  # begun twice
    assert (second.folder / "log.txt").read_text().count("results go to") == 1
    for job, seed in ((first, 0), (second, 2)):
        same_tables(execute(compose([*LONG, f"seed={seed}", f"out={tmp_path / 'here'}"])), job.folder)


def test_ctrl_c_lets_tasks_save_where_nobody_can_be_asked(cluster, tmp_path):
    words = ("launcher=ray", f"hydra.launcher.ray.init.address={cluster}", "recipe.steps=200000")
    process = spawn("sweep", *LONG, *words, "out=there", cwd=tmp_path)
    until(lambda: list((tmp_path / "there" / "sweeps").glob("*/sweep.json")))
    (job,) = plan_of(tmp_path / "there").jobs
    until(lambda: (job.state().step or 0) > 0)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert job.state().name == "interrupted"
    assert list(job.folder.rglob("progress/*.safetensors"))


def test_a_task_that_fails_or_dies_for_good_takes_no_other_with_it(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    paths = "model.path=nets:Raises,nets:Dies,nets:Net"
    ray = ("launcher=ray", "hydra.launcher.ray.remote.max_retries=1", "+hydra.launcher.ray.init.num_cpus=2")
    process = spawn("sweep", "model=custom", paths, *SMALL[1:], *ray, "out=out", cwd=tmp_path)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 1, told
    assert states(tmp_path / "out") == ["failed", "failed", "complete"]
    assert "model.path=nets:Raises: failed, ZeroDivisionError: no weight is left" in told
    assert "model.path=nets:Dies: failed" in told
    assert "nets:Net: complete" in told
