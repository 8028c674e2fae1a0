"""The sweeper of `ltx sweep`: it launches the jobs of a plan that was checked and written before."""

from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Planned(Sweeper):
    """Launches what is missing of a plan, and leaves in the run's folder why a job died without a word."""

    def __init__(self, plan: str) -> None:
        self.plan = Path(plan)
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from ltx.experiment.status import Sweep, note_failure

        missing = Sweep.read(self.plan).missing()
        returns = self.launcher.launch([job.overrides for job in missing], initial_job_idx=0)
        for job, done in zip(missing, returns, strict=True):
            if isinstance(error := done._return_value, Exception):
                note_failure(job.folder, error, getattr(error, "log", None))
        return returns
