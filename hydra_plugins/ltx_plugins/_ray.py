"""Jobs as Ray tasks, on a cluster or on one made on this machine; Ray retries a task whose worker died."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra_plugins.hydra_ray_launcher._config import RayLauncherConf
from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher
from omegaconf import DictConfig, open_dict

from hydra_plugins.ltx_plugins._jobs import cancelling, dead
from ltx.errors import Died


@dataclass
class RayConf(RayLauncherConf):
    _target_: str = "hydra_plugins.ltx_plugins._ray.Ray"
    on_interrupt: str = "ask"


class Ray(RayLauncher):
    """Hydra's Ray launcher, which here waits for every task: the plugin's own ends with the first that is lost."""

    def __init__(self, ray: DictConfig, on_interrupt: str) -> None:
        super().__init__(ray)
        self.on_interrupt = on_interrupt

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Ray 2.60 gives its clusters a token, and a client that names an address needs to be told to use it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray

        setup_globals()
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        start_ray(self.ray_cfg.init)
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            tasks.append(
                launch_job_on_ray(
                    self.hydra_context,
                    self.ray_cfg.remote,
                    config,
                    self.task_function,
                    Singleton.get_state(),
                )
            )
        while True:
            try:
                ray.wait(tasks, num_returns=len(tasks), fetch_local=False)
                break
            except KeyboardInterrupt:
                _, left = ray.wait(tasks, num_returns=len(tasks), timeout=0)
                if cancelling(
                    len(left), self.on_interrupt, otherwise="wait on, they would die with this process"
                ):
                    for task in left:
                        ray.cancel(task)
                    ray.wait(tasks, num_returns=len(tasks), timeout=60)
                    raise
        returns = []
        for task, overrides in zip(tasks, job_overrides, strict=True):
            try:
                returns.append(ray.get(task))
            except ray.exceptions.RayError as error:
                returns.append(dead(overrides, Died(" ".join(str(error).split()))))
        return returns
