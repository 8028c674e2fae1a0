"""ltx's plugins, where Hydra looks for them: in the namespace package hydra_plugins."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.ltx_plugins._local import Local
from hydra_plugins.ltx_plugins._own import Own
from hydra_plugins.ltx_plugins._planned import Planned

__all__ = ["Local", "Own", "Planned"]


@dataclass
class LocalConf:
    _target_: str = "hydra_plugins.ltx_plugins._local.Local"
    jobs: int | None = None
    jobs_per_gpu: int = 1


@dataclass
class PlannedConf:
    _target_: str = "hydra_plugins.ltx_plugins._planned.Planned"
    plan: str | None = None


def offer(group: str, name: str, node: Any) -> None:
    ConfigStore.instance().store(group=f"hydra/{group}", name=name, node=node, provider="ltx")


offer("launcher", "ltx_local", LocalConf)
offer("sweeper", "ltx", PlannedConf)

if find_spec("hydra_plugins.hydra_submitit_launcher"):
    from hydra_plugins.ltx_plugins._slurm import Slurm, SlurmConf

    offer("launcher", "ltx_slurm", SlurmConf)
    __all__ += ["Slurm"]

if find_spec("hydra_plugins.hydra_ray_launcher"):
    from hydra_plugins.ltx_plugins._ray import Ray, RayConf

    offer("launcher", "ltx_ray", RayConf)
    __all__ += ["Ray"]
