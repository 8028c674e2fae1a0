"""Jobs as one Slurm array, by submitit: requeued when preempted or out of time, told from squeue alone."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

from hydra_plugins.ltx_plugins._jobs import Wish, cancelling, dead
from ltx.console import Console
from ltx.errors import Died

POLL_SECONDS = 2.0, 30.0
"""Between two looks, at first and at most: submitit's own grow to ten minutes."""
TWICE = 2
"""Looks in which a job must be missing before it is given up: a result may be late on a network file system."""


@dataclass
class SlurmConf(SlurmQueueConf):
    _target_: str = "hydra_plugins.ltx_plugins._slurm.Slurm"
    on_interrupt: Wish = Wish.ask


class Slurm(SlurmLauncher):
    """Hydra's submitit launcher, which here waits for every job whatever became of the others.

    The plugin's own ends with the first dead job, and asks sacct, which knows nothing where Slurm keeps no
    accounts: a killed job would be waited for for ever.
    """

    def __init__(self, on_interrupt: Wish, **params: Any) -> None:
        super().__init__(**params)
        self.on_interrupt = on_interrupt

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        import submitit

        own = {"submitit_folder", "max_num_timeout"}
        shared = set(BaseQueueConf.__dataclass_fields__)
        executor = submitit.AutoExecutor(
            folder=self.params["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=self.params["max_num_timeout"],
        )
        executor.update_parameters(
            **{
                key if key in shared else f"slurm_{key}": value
                for key, value in self.params.items()
                if key not in own
            }
        )
        count, singletons = len(job_overrides), Singleton.get_state()
        jobs = executor.map_array(
            self,
            [list(overrides) for overrides in job_overrides],
            ["hydra.sweep.dir"] * count,
            range(initial_job_idx, initial_job_idx + count),
            [f"job_id_for_{number}" for number in range(count)],
            [singletons] * count,
        )
        array = jobs[0].job_id.partition("_")[0]
        Console(stderr=True).say(f"Slurm job array {array}: {count} jobs, `squeue -j {array}`")
        try:
            self._wait(array, jobs)
        except KeyboardInterrupt:
            still = sum(not job.paths.result_pickle.exists() for job in jobs)
            stay = "they stay, `ltx status` shows them"
            if cancelling(still, self.on_interrupt, otherwise=stay, unasked=False):
                subprocess.run(["scancel", array], check=False)
            else:
                Console(stderr=True).say(f"the jobs stay; `scancel {array}` would cancel them")
            raise
        return [outcome(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]

    def _wait(self, array: str, jobs: Sequence[Any]) -> None:
        """Until every job has left its result or is no longer known to Slurm."""
        missed, (pause, longest) = dict.fromkeys(range(len(jobs)), 0), POLL_SECONDS
        while missed:
            time.sleep(pause)
            pause = min(1.5 * pause, longest)
            if (active := queued(array)) is None:  # Slurm does not answer: ask again
                continue
            for number in list(missed):
                job = jobs[number]
                missed[number] = 0 if job.job_id in active else missed[number] + 1
                if job.paths.result_pickle.exists() or missed[number] >= TWICE:
                    del missed[number]


def queued(array: str) -> set[str] | None:
    """The jobs of an array that Slurm has pending or running; None if it does not say."""
    command = ["squeue", "--noheader", "--array", "--jobs", array, "--format", "%F_%K"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        return set() if "Invalid job id" in asked.stderr else None
    return {name.removesuffix("_N/A") for name in asked.stdout.split()}  # submitit makes no array of one job


def outcome(job: Any, overrides: Sequence[str]) -> JobReturn:
    """What a job left as its result, or how it ended without."""
    try:
        kind, result = cloudpickle.loads(job.paths.result_pickle.read_bytes())
    except OSError:
        why = f"Slurm job {job.job_id} ended without a result (killed, cancelled, out of memory or its node lost)"
        return dead(overrides, Died(why, str(job.paths.stderr)))
    if kind == "success":
        done: JobReturn = result
        return done
    last = str(result).strip().splitlines()[-1]
    return dead(overrides, Died(f"Slurm job {job.job_id}: {last}", str(job.paths.stderr)))
