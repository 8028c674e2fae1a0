"""Runs killed at random moments, resumed, and compared bit for bit: `python tests/campaigns/kill.py [COUNT [SEED]]`.

Each trial forks a run, kills it with SIGKILL one to three times, lets it end, and compares every tensor and table
with those of a run that nothing happened to. Nothing else may be left: no checkpoint, no temporary file.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers import assert_same

from ltx.config.compose import compose
from ltx.experiment.execute import execute
from ltx.study.verify import verify_run

SHORT = (
    "replicates=2",
    "controls=[reinit]",
    "recipe.steps=60",
    "recipe.eval_every=20",
    "checkpoint_seconds=0.01",
)
LENET = ("model.hidden=[16]", *SHORT)
METHODS = {
    "imp": (*LENET, "method.levels=2", "method.rewind_step=10"),
    "oneshot": (*LENET, "method=oneshot", "method.levels=2"),
    "lr_rewind": (*LENET, "method=lr_rewind", "method.levels=2"),
    "finetune": (*LENET, "method=finetune", "method.levels=2", "method.rewind_step=30"),
    "snip": (*LENET, "method=snip", "method.per_class=2", "method.densities=[0.5,0.1]"),
    "synflow": (*LENET, "method=synflow", "method.densities=[0.5,0.1]"),
}


def child(words: tuple[str, ...], out: Path) -> int:
    """A forked process that runs an experiment; its number."""
    if number := os.fork():
        return number
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    code = 1
    try:
        execute(compose([*words, f"out={out}"]))
        code = 0
    finally:
        os._exit(code)


def trial(words: tuple[str, ...], whole: Path, seconds: float, chance: random.Random) -> tuple[int, str]:
    """How many kills met a living process, and what is wrong with what the run left; nothing if all is well."""
    hit = 0
    with tempfile.TemporaryDirectory() as out:
        for _ in range(chance.randint(1, 3)):
            number = child(words, Path(out))
            time.sleep(chance.uniform(0, seconds))
            os.kill(number, signal.SIGKILL)
            hit += os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == -signal.SIGKILL
        if os.waitstatus_to_exitcode(os.waitpid(child(words, Path(out)), 0)[1]):
            return hit, "it does not end"
        folder = next(Path(out).rglob("config.yaml")).parent
        left = [str(path) for path in folder.rglob("*") if path.name == "progress" or path.suffix == ".tmp"]
        try:
            assert_same(folder, whole)
        except AssertionError as error:
            return hit, f"other bits: {error}"
        broken = verify_run(folder).broken
        return hit, "; ".join(left + broken)


def main(count: int = 60, seed: int = 0) -> int:
    torch.set_num_threads(1)
    chance, failed, hit = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as home:
        whole, seconds = {}, {}
        for name, words in METHODS.items():
            began = time.monotonic()
            os.waitpid(child(words, Path(home, name)), 0)
            seconds[name] = time.monotonic() - began
            whole[name] = next(Path(home, name).rglob("config.yaml")).parent
        for n in range(count):
            name = list(METHODS)[n % len(METHODS)]
            kills, why = trial(METHODS[name], whole[name], seconds[name], chance)
            hit, failed = hit + kills, failed + bool(why)
            if why:
                print(f"{name}, trial {n}: {why}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
    print(f"{count} tried, {count - failed} held: runs ended in the same bits; {hit} kills met one alive")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
