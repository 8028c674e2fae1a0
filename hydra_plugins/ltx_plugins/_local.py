"""Jobs as processes of this machine, each on its share of the cores and its own GPU."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.ltx_plugins._jobs import dead
from ltx.console import Console
from ltx.errors import Died
from ltx.plugins import told


@dataclass(frozen=True)
class Place:
    """What one job at a time may use."""

    threads: int
    gpu: str | None = None


class Local(Launcher):
    """A process for every job, so that one which dies takes no other with it (as joblib's pool does)."""

    def __init__(self, jobs: int | None, jobs_per_gpu: int) -> None:
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu
        self.hydra_context: HydraContext
        self.task_function: TaskFunction
        self.config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        # A server forks each process, which so owes nothing to the state of this one, and has imported for it
        # what takes seconds: ltx with torch, torch._dynamo (by the first optimizer), the data sets' libraries.
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            libraries = {"sklearn.datasets", "torchvision.datasets"} & set(sys.modules)
            context.set_forkserver_preload(["ltx.sweep.launch", "torch._dynamo", *libraries])
        shared = cloudpickle.dumps(
            (self.hydra_context, self.config, self.task_function, Singleton.get_state())
        )
        waiting = deque(enumerate(job_overrides))
        free = places(len(waiting), self.jobs, 0 if self.config.device == "cpu" else self.jobs_per_gpu)
        running: dict[Connection, tuple[int, Any, Place]] = {}
        returns: dict[int, JobReturn] = {}
        try:
            while waiting or running:
                while waiting and free:
                    number, overrides = waiting.popleft()
                    place, (receiver, sender) = free.pop(0), context.Pipe(duplex=False)
                    words = (shared, list(overrides), initial_job_idx + number, place, sender)
                    process = context.Process(target=work, args=words)  # type: ignore[attr-defined]
                    process.start()
                    sender.close()
                    running[receiver] = number, process, place
                for receiver in cast(list[Connection], wait(list(running))):  # a job has ended, well or not
                    number, process, place = running.pop(receiver)
                    returns[number] = returned(job_overrides[number], process, receiver)
                    free.append(place)
        except KeyboardInterrupt:
            stop([process for _, process, _ in running.values()])
            raise
        return [returns[number] for number in range(len(job_overrides))]


def places(count: int, jobs: int | None, jobs_per_gpu: int) -> list[Place]:
    """Where `count` jobs may run side by side, without two threads on a core; no GPU if none has jobs."""
    import joblib
    import torch

    cores = joblib.cpu_count()  # those that this process may use, in a container too
    gpus = visible_gpus(torch.cuda.device_count()) if jobs_per_gpu else []
    at_once = max(1, min(count, jobs or (len(gpus) * jobs_per_gpu or cores)))
    threads = max(1, cores // at_once)
    return [Place(threads, gpus[number % len(gpus)] if gpus else None) for number in range(at_once)]


def visible_gpus(count: int) -> list[str]:
    """The names that CUDA_VISIBLE_DEVICES gives `count` devices."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(count)])[:count]


def work(shared: bytes, overrides: list[str], number: int, place: Place, sender: Connection) -> None:
    """The life of one job, in its own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all at once; the parent passes it on
    threading.Thread(target=outlive_nobody, daemon=True).start()
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    os.environ["OMP_NUM_THREADS"] = str(place.threads)
    import torch

    torch.set_num_threads(place.threads)
    context, config, task_function, singletons = cloudpickle.loads(shared)
    Singleton.set_state(singletons)
    setup_globals()
    config = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    try:
        done = run_job(
            hydra_context=context,
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except BaseException as error:  # a network that calls exit(): Hydra catches exceptions alone
        done = dead(overrides, Died(told(error)))
    sender.send_bytes(packed(done))


def packed(done: JobReturn) -> bytes:
    """What a job returns, as bytes; an exception that the other side cannot make again as its type and text."""
    try:
        content: bytes = cloudpickle.dumps(done)
        cloudpickle.loads(content)
    except Exception:
        done._return_value = Died(told(done._return_value))
        content = cloudpickle.dumps(done)
    return content


def outlive_nobody() -> None:
    """Stop, as asked to, when the process that launched this one is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def returned(overrides: Sequence[str], process: Any, receiver: Connection) -> JobReturn:
    """What a job said at its end, or how its process ended without a word."""
    with receiver:
        try:
            done: JobReturn = cloudpickle.loads(receiver.recv_bytes())
        except EOFError:
            process.join()
            code = process.exitcode
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            return dead(overrides, Died(f"its process ended: {how}{hint}"))
    process.join()
    return done


def stop(processes: list[Any]) -> None:
    """Let jobs save and end; a second Ctrl-C ends them at once."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        Console(stderr=True).say("jobs were stopped at once; they go on from their last checkpoints")
