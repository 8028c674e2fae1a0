"""How long `ltx plot` takes over hundreds of runs, beside merely reading their files.

    python benchmarks/plot.py [runs] [folder]

Makes a tree of synthetic runs that look like those of a sweep (two experiments, three methods, five learning
rates, the rest in seeds; 20 levels, 5 seeds a run, tickets and reinitialised controls, 30 evaluations each),
plots it with `ltx plot` in a process of its own, and reads every csv of it with pandas.read_csv. All of it
on one core. The folder, if named, is kept; a tree that is there is used again.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

CONFIGS, METHODS, RATES = ("digits_lenet", "mnist_lenet"), ("imp", "oneshot", "snip"), (2, 4, 8, 12, 20)
LEVELS, SEEDS, EVALUATIONS = 20, 5, 30
SIZES = {"1.weight": 19200, "3.weight": 30000, "5.weight": 1000}
WATCHED = """
import sys; sys.argv = ["ltx", "plot", {folder!r}]
from ltx.cli import main
main()
assert "torch" not in sys.modules
"""


def networks(config: int, method: int, rate: int, first: int, draw: np.random.Generator) -> pd.DataFrame:
    """A row per trained network: who it is, how dense, and how accurate at best."""
    names = [("ticket", level) for level in range(LEVELS + 1)] + [
        ("reinit", level) for level in range(1, LEVELS + 1)
    ]
    rows = pd.DataFrame(
        [(role, 0, level, first + seed) for role, level in names for seed in range(SEEDS)],
        columns=["role", "draw", "level", "seed"],
    )
    control = rows.role == "reinit"
    knee = 0.02 * (1 + method) * np.where(control, 5, 1)
    lost = 0.05 * np.log1p(np.maximum(knee / 0.8**rows.level - 1, 0))
    top = 0.98 - 0.01 * config - 0.004 * abs(rate - 8) / 8 + 0.004 * np.minimum(rows.level, 6) / 6
    rows["density"] = 0.8**rows.level
    rows["best"] = (top - np.where(control, 0.002 * rows.level, 0) - lost).clip(0.1)
    rows["best"] += draw.normal(0, 0.003, len(rows))
    rows["speed"] = np.where(control, 1 + 0.1 * rows.level, 1 / (1 + 0.05 * rows.level))
    return rows


def write(folder: Path, config: str, method: str, rate: int, first: int) -> None:
    """One run's folder as ltx leaves it, without weights."""
    draw = np.random.default_rng([CONFIGS.index(config), METHODS.index(method), rate, first])
    rows = networks(CONFIGS.index(config), METHODS.index(method), rate, first, draw)
    who = rows[["role", "draw", "level", "seed"]]
    folder.mkdir(parents=True)
    levels = who.assign(
        config=config, method=method, density=rows.density, weights_remaining=(50200 * rows.density).round(),
        early_stop_step=(200 * rows.speed * draw.uniform(0.8, 1.2, len(rows))).round(), early_stop_val_loss=0.1,
        early_stop_test_accuracy=rows.best.round(8), final_test_accuracy=(rows.best - 0.001).round(8),
        final_train_accuracy=1.0, steps=600, seconds=0.05, diverged=0,
    )  # fmt: skip
    order = ["config", "method", *who]
    levels[[*order, *levels.columns.drop(order)]].to_csv(folder / "levels.csv", index=False)

    steps = np.tile(np.arange(EVALUATIONS) * 20, len(rows))
    many = who.loc[who.index.repeat(EVALUATIONS)].assign(step=steps)
    far = 1 - np.exp(-steps / (40 * rows.speed.loc[many.index]))
    value = (0.1 + (rows.best.loc[many.index] - 0.1) * far + draw.normal(0, 0.003, len(many))).round(8)
    loss = (2.3 * (1 - far) + 0.3 * steps / 600 + draw.normal(0, 0.01, len(many))).round(8)
    many.assign(train_loss=loss, val_loss=loss, val_accuracy=value, test_accuracy=value).to_csv(
        folder / "curves.csv", index=False
    )

    parts, facts = [], []
    for layer, size in SIZES.items():
        kept = (size * rows.density ** (1 - 0.3 * (size < 2000))).round().astype(int)
        parts.append(who.assign(layer=layer, kind="dense", size=size, kept=kept))
        facts.append(
            who.assign(
                layer=layer,
                overlap=rows.density.round(8),
                chance=rows.density.round(8),
                outputs=100,
                dead_outputs=0,
                inputs=64,
                dead_inputs=0,
            )
        )
    pd.concat(parts).sort_index(kind="stable").to_csv(folder / "layers.csv", index=False)
    pd.concat(facts).sort_index(kind="stable").to_csv(folder / "masks.csv", index=False)

    before = 600 * rows.level if method == "imp" else 600
    costs = {"search_steps": before, "steps": 600, "total_steps": before + 600}
    for unit, factor in (("epochs", 0.05), ("macs", 7_884_000), ("seconds", 0.0001)):
        costs |= {f"{part}_{unit}".lstrip("_"): factor * costs[f"{part}_steps".lstrip("_")]
                  for part in ("search", "", "total")}  # fmt: skip
    who.assign(**costs).to_csv(folder / "costs.csv", index=False)

    settings = {
        "model": {"name": "lenet", "hidden": [300, 100]},
        "dataset": {"name": config.partition("_")[0]},
        "method": {"name": method, "levels": LEVELS, "rate": 0.2, "rewind_step": "0"},
        "recipe": {"optimizer": "adam", "lr": rate / 1e4, "batch_size": 60, "steps": "600", "drops": []},
        "prunable": {"conv": True, "dense": True, "output": True, "skip": []},
        "seed": first, "replicates": SEEDS, "controls": ["reinit"], "control_draws": 1,
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(settings))  # which is yaml too
    files = {f"level_{level:02d}/ticket/{part}.safetensors": "0" * 64 for level in range(21) for part in "ab"}
    manifest = {"status": "complete", "config": config, "fingerprint": config, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def make(tree: Path, runs: int) -> None:
    """So many runs: every experiment, method and learning rate in turn, then the next seeds."""
    choices = list(product(CONFIGS, METHODS, RATES))
    for place in range(runs):
        config, method, rate = choices[place % len(choices)]
        first = SEEDS * (place // len(choices))
        write(tree / config / f"lenet-{method}-lr{rate}-s{first}x{SEEDS}", config, method, rate, first)


def main(runs: str = "300", folder: str | None = None) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(folder or temporary) / "results"
        if not tree.exists():
            make(tree, int(runs))
        found = list(tree.rglob("*/*.csv"))
        files = [file for file in found if (file.parent / "manifest.json").exists()]
        began = time.perf_counter()
        for file in files:
            pd.read_csv(file)
        reading = time.perf_counter() - began
        began = time.perf_counter()
        code = WATCHED.format(folder=str(tree))
        drawn = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        plotting = time.perf_counter() - began
        size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len({file.parent for file in files})} runs, {len(files)} csv files, {size:.0f} MB, one core")
    print(f"pandas.read_csv of all {reading:6.1f} s")
    print(f"ltx plot               {plotting:6.1f} s, {len(drawn.stdout.splitlines())} files, without torch")
    print(f"ratio                  {plotting / reading:6.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
