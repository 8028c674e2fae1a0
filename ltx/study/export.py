"""`ltx export`: one network of a run as a file that needs no ltx, with a card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltx.core.task import Task
from ltx.data.base import Data, Pixels
from ltx.errors import UserError, demand, unknown
from ltx.files import read_csv, write
from ltx.manifest import enter
from ltx.pruning.compact import Compactor, layers
from ltx.pruning.size import Size, size
from ltx.study.formats import FORMATS, Deployed, Model, installed, int8, opened
from ltx.study.reopen import Kept, load_task, reopen
from ltx.study.show import read_manifest

NEAR = 0.005
"""How far a density may be from the one asked for, as a fraction of it: 0.107 means 0.1074."""
CALIBRATION = 500
"""Training examples that int8's ranges are measured on."""
CHUNK = 500
"""Examples computed at once."""


@dataclass(frozen=True)
class Wish:
    """Which network of a run is asked for; without a level the last one's."""

    density: float | None = None
    level: int | None = None
    matching: bool = False
    role: str = "ticket"
    seed: int | None = None


@dataclass(frozen=True)
class Choice:
    """Which of a run's networks."""

    level: int
    role: str
    seed: int
    density: float


@dataclass(frozen=True)
class Chosen:
    """A network of a run, ready to be handed on."""

    choice: Choice
    task: Task
    manifest: dict[str, Any]
    network: Deployed  # float32, in evaluation mode
    architecture: str
    size: Size
    masked: bool

    @property
    def stem(self) -> str:
        """What its files are called, less what they are."""
        kind = "-masked" if self.masked else ""
        return f"{self.choice.role}-level_{self.choice.level:02d}-seed_{self.choice.seed}{kind}"


def export(
    folder: Path,
    to: str,
    wish: Wish | None = None,
    *,
    masked: bool = False,
    as_int8: bool = False,
    out: Path | None = None,
) -> list[Path]:
    """Write a network of a run, its card beside it; returns the files. Raises UserError, nothing half written."""
    if to not in FORMATS:
        raise unknown("--to", to, FORMATS)
    format = FORMATS[to]
    demand(not as_int8 or to == "onnx", "--int8", "true", "only --to onnx is written in int8")
    installed(f"--to {to}", format)
    manifest = read_manifest(folder)
    choice = chosen(folder, manifest, wish or Wish())
    task = load_task(reopen(folder, "cpu"), manifest)
    network = taken(folder, task, manifest, choice, masked=masked)
    path = out or folder / "export" / f"{network.stem}{'-int8' if as_int8 else ''}{format.suffix}"
    content = format.write(network.network, task.data.shape)
    if as_int8:
        content = int8(content, pixels(task, "train")[:CALIBRATION])
    write(path, content)
    model = opened(path) if format.open else torch_model(network.network)
    more = beside(path, network, measured(model, network), as_int8=as_int8, graph=bool(format.open))
    enter(folder, [path, *more])
    return [path, *more]


# -- which network


def chosen(folder: Path, manifest: dict[str, Any], wish: Wish) -> Choice:
    """The network that was asked for; raises UserError if there is none."""
    wishes = [wish.density is not None, wish.level is not None, wish.matching]
    demand(sum(wishes) <= 1, "--level", wish.level, "give one of --level, --density and --matching")
    rows = [row for row in read_csv(folder / "levels.csv") if row["draw"] == "0"]
    roles = list(dict.fromkeys(row["role"] for row in rows))
    if wish.role not in roles:
        raise unknown("--role", wish.role, roles)
    seeds = manifest["seeds"]
    seed = seeds[0] if wish.seed is None else wish.seed
    demand(seed in seeds, "--seed", seed, f"the run has seeds {', '.join(map(str, seeds))}")
    mine = [row for row in rows if (row["role"], row["seed"]) == (wish.role, str(seed))]
    found = {int(row["level"]): float(row["density"]) for row in mine}
    level = max(found) if wish.level is None else wish.level
    if wish.density is not None:
        level = of_density(found, wish.density)
    elif wish.matching:
        level = smallest_matching(folder, manifest["goal"], set(found))
    demand(level in found, "--level", level, f"{wish.role} has levels {', '.join(map(str, sorted(found)))}")
    return Choice(level, wish.role, seed, found[level])


def of_density(found: dict[int, float], density: float) -> int:
    """The level of a density; raises UserError, which names the nearest, if no level has it."""
    near = sorted(found, key=lambda level: abs(found[level] - density))[:2]
    if abs(found[near[0]] - density) > NEAR * density:
        told = " and ".join(f"{found[level]:.4g} (level {level})" for level in near)
        raise UserError(f"--density={density} is not possible: no level has it; the nearest are {told}")
    return near[0]


def smallest_matching(folder: Path, goal: dict[str, Any], levels: set[int]) -> int:
    """The sparsest level whose tickets are as good as the dense network on the validation split, in the mean."""
    measure = f"val_{goal['measure']}"
    stops = {
        (row["level"], row["seed"]): row["early_stop_step"]
        for row in read_csv(folder / "levels.csv")
        if (row["role"], row["draw"], row["diverged"]) == ("ticket", "0", "0")
    }
    values: dict[int, list[float]] = {}
    for row in read_csv(folder / "curves.csv"):
        if (row["role"], row["draw"]) == ("ticket", "0") and stops.get((row["level"], row["seed"])) == row[
            "step"
        ]:
            values.setdefault(int(row["level"]), []).append(float(row[measure]))
    means = {level: float(np.mean(found)) * (1 if goal["higher"] else -1) for level, found in values.items()}
    return max((level for level in means if level in levels and means[level] >= means[0]), default=0)


def taken(folder: Path, task: Task, manifest: dict[str, Any], choice: Choice, *, masked: bool) -> Chosen:
    """The chosen network, compact unless `masked`."""
    weights = Kept(folder, choice.level, choice.seed, choice.role).trained
    if masked:
        network, architecture = task.network().eval(), ""
        network.load_state_dict(weights)
    else:
        small = Compactor(task.network(), task.data.shape).compact(weights)
        network, architecture = small.network.float(), small.architecture
    whole = Deployed(network, *normalisation(task.data)).eval()
    return Chosen(
        *(choice, task, manifest, whole, architecture or summed(network)),
        size(network, task.data.shape),
        masked,
    )


def normalisation(data: Data) -> tuple[Tensor, Tensor]:
    """What inputs are multiplied with and what is added then: nothing to data that come as they are used."""
    if isinstance(data.prepare, Pixels):
        return data.prepare.scale.cpu(), data.prepare.shift.cpu()
    return torch.ones(1), torch.zeros(1)


def summed(network: nn.Module) -> str:
    return f"{sum(layer.weight.numel() for layer in layers(network).values()):,} weights, masked"


# -- what its file computes


def pixels(task: Task, split: str) -> np.ndarray:
    """A split's inputs as a file takes them, float32."""
    parts = [inputs for inputs, _ in getattr(task.data, split).chunks()]
    return torch.cat(parts).float().numpy()


def torch_model(network: nn.Module) -> Model:
    def model(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(pixels)))

    return model


def logits(model: Model, inputs: np.ndarray) -> np.ndarray:
    """Outputs for a whole split, chunk by chunk."""
    return np.concatenate([model(inputs[i : i + CHUNK]) for i in range(0, len(inputs), CHUNK)])


def measured(model: Model, chosen: Chosen) -> dict[str, float | int]:
    """What a file's runtime makes of the test split, and how far that is from what torch makes of it."""
    inputs = pixels(chosen.task, "test")
    mine, theirs = logits(model, inputs), logits(torch_model(chosen.network), inputs)
    goal, targets = chosen.task.goal, chosen.task.data.test.targets
    found = goal.measures(goal.tally(torch.from_numpy(mine)[None], targets[None]), len(inputs))
    return {
        goal.measure: float(found[goal.measure]),
        "examples": len(inputs),
        "agreement": float((mine.argmax(1) == theirs.argmax(1)).mean()),
        "largest_difference": float(np.abs(mine - theirs).max()),
    }


# -- its card


def beside(
    path: Path, chosen: Chosen, found: dict[str, float | int], *, as_int8: bool, graph: bool
) -> Sequence[Path]:
    """Write what a reader and a program need to know of a file beside it."""
    facts = {**about(chosen, as_int8=as_int8), "test": found}
    files = {path.with_name(f"{path.name}.json"): json.dumps(facts, indent=2) + "\n"}
    files[path.with_name(f"{path.name}.md")] = card(path, facts, graph=graph)
    if not graph:
        files[path.with_name("preprocess.json")] = json.dumps(facts["preprocess"], indent=2) + "\n"
    for file, text in files.items():
        write(file, text.encode())
    return list(files)


def about(chosen: Chosen, *, as_int8: bool) -> dict[str, Any]:
    manifest, choice, data = chosen.manifest, chosen.choice, chosen.task.data
    return {
        "experiment": manifest["config"],
        "model": manifest["model"],
        "dataset": manifest["dataset"],
        "method": manifest["method"],
        "fingerprint": manifest["fingerprint"],
        "role": choice.role,
        "level": choice.level,
        "seed": choice.seed,
        "density": choice.density,
        "architecture": chosen.architecture,
        "int8": as_int8,
        "parameters": chosen.size.parameters,
        "macs": chosen.size.macs,
        "preprocess": {
            "shape": list(data.shape),
            "scale": chosen.network.scale.flatten().tolist(),
            "shift": chosen.network.shift.flatten().tolist(),
            "classes": names(chosen.task),
        },
    }


def names(task: Task) -> list[str]:
    """What the outputs stand for: a folder's names of its classes, else their numbers."""
    return list(task.data.labels or map(str, range(task.data.outputs)))


def card(path: Path, facts: dict[str, Any], *, graph: bool) -> str:
    """A page for whoever finds the file."""
    found, preprocess = facts["test"], facts["preprocess"]
    measure = next(iter(found))
    shape = ", ".join(map(str, preprocess["shape"]))
    takes = (
        f"float32 pixels [N, {shape}] as they are stored, 0 to 255; it normalises them itself"
        if graph
        else f"pixels [N, {shape}] times `scale` plus `shift`, both in preprocess.json"
    )
    lines = [
        f"- what: {facts['model']} ({facts['architecture']}){', in int8' if facts['int8'] else ''}, "
        f"{facts['parameters']:,} parameters, {facts['macs']:,} multiply-accumulates an inference",
        f"- from: experiment {facts['experiment']}, method {facts['method']} on {facts['dataset']} "
        f"(fingerprint {facts['fingerprint']}), {facts['role']} of level {facts['level']}, seed {facts['seed']}, "
        f"{100 * facts['density']:.4g} % of weights",
        f"- test {measure}: {found[measure]:.4f} on {found['examples']:,} examples, computed from this file",
        f"- agreement with the run's network: {100 * found['agreement']:.4g} % of classes, logits within "
        f"{found['largest_difference']:.1e}",
        f"- takes: {takes}",
        f"- gives: logits of {', '.join(preprocess['classes'])}",
        "- licence: yours to choose; the data's own terms hold as well",
    ]
    return f"# {path.name}\n\n" + "\n".join(lines) + "\n"
