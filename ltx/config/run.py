"""The experiment as typed data, checked before any data are touched."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING

from ltx.config.sizes import check_network, check_training
from ltx.config.trackers import TRACKERS
from ltx.core.goal import Choice
from ltx.core.goals import demand_takes, demand_works
from ltx.core.recipe import Plan, Recipe
from ltx.core.task import ENGINES, Layers, Prunable, Task
from ltx.data.base import Data, Dataset
from ltx.errors import UserError, demand
from ltx.knobs import Knobs, Rule, at_least, each, knob, one_of
from ltx.methods.base import Method
from ltx.models.base import Model, Shape
from ltx.models.freeze import fixed, freeze
from ltx.models.pretrained import brought, read
from ltx.models.trial import demand_drawn, tried
from ltx.pruning.controls import CONTROLS, REDRAWN
from ltx.report.objective import Objective
from ltx.streams import drawing

NAME_MAX = 255
"""Bytes of a folder's name, on the file systems of today."""
DEVICE = Rule(
    "choose auto, cpu, cuda or cuda:N",
    lambda name: re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name) is not None,
)
"""Where a network can be trained: scores and sums are in float64, which Apple's GPUs have not."""

LANES = Rule(
    "choose auto or a number from 1 on", lambda text: re.fullmatch(r"auto|[1-9]\d{0,2}", text) is not None
)
"""How many processes train side by side."""


@dataclass(frozen=True)
class Run(Knobs):
    """One experiment: a network on a data set, trained by a recipe, searched by a method, for some seeds."""

    model: Any = knob(MISSING, None, "the network")
    dataset: Any = knob(MISSING, None, "what it learns")
    goal: Any = knob(MISSING, None, "what it is to be good at")
    method: Any = knob(MISSING, None, "how its tickets are found")
    recipe: Recipe = knob(Recipe, None, "how one network is trained")
    prunable: Prunable = knob(Prunable, None, "which weights may be pruned")
    seed: int = knob(0, at_least(0), "the first seed")
    replicates: int = knob(1, at_least(1), "how many seeds: seed, seed + 1, ...")
    controls: list[str] = knob(
        [],
        each(one_of(CONTROLS)),
        "tickets made worse on purpose, trained beside each ticket",
        grows=True,
    )
    control_draws: int = knob(1, at_least(1), "how often each control is drawn for each ticket", grows=True)
    out: str = knob("results", None, "the folder that runs go under", result=False)
    device: str = knob("auto", DEVICE, "auto | cpu | cuda | cuda:1", result=False)
    lanes: str = knob(
        "auto",
        LANES,
        "auto (as many cores as have something to do) | N: processes that train side by side on a CPU",
        result=False,
    )
    engine: str = knob(
        "dense",
        one_of(ENGINES),
        "dense | auto (by density, on a CPU) | kernel | csr: how pruned layers are computed",
    )
    checkpoint_seconds: float = knob(
        60.0, at_least(0.0), "a kill costs at most this much training", result=False
    )
    objective: Objective = knob(
        Objective,
        None,
        "the validation measure that a search for hyper-parameters is told",
        result=False,
    )
    tracker: str | None = knob(
        None,
        one_of(TRACKERS),
        "mirrors the metrics: tensorboard | wandb | trackio | mlflow | ...",
        result=False,
    )

    def __post_init__(self) -> None:
        for key, kind in (("model", Model), ("dataset", Dataset), ("goal", Choice), ("method", Method)):
            chosen = getattr(self, key)
            demand(isinstance(chosen, kind), key, chosen, "choose one with `ltx list`")
        super().__post_init__()
        longest = max(map(len, map(os.fsencode, self.folder.parts)), default=0)
        demand(longest <= NAME_MAX and "\0" not in self.out, "out", self.out, "no folder has such a name")
        for control in self.controls:
            demand(
                control in self.method.controls,
                "controls",
                self.controls,
                f"this method's tickets can be compared with {', '.join(self.method.controls) or 'no control'} only",
            )
        if (kind := self.dataset.goal) is not None:
            goal = self.goal.of(kind)
            demand_takes(goal, kind, self.dataset.name)
            self.method.suits(goal, None)
        demand(len(set(self.controls)) == len(self.controls), "controls", self.controls, "name each once")
        demand(self.seed + self.replicates <= 2**63, "replicates", self.replicates, "seeds end at 2^63")
        if self.dataset.shape and self.dataset.outputs:
            layers = self.layers(self.dataset.shape, self.dataset.outputs)
            size = self.dataset.train_size
            self.check(self.dataset.shape, layers, self.recipe.plan(size) if size else None)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.replicates))

    @property
    def folder(self) -> Path:
        """The folder that runs go under; ~ is the user's home."""
        return Path(self.out).expanduser()

    def check(self, shape: Shape, layers: Layers, plan: Plan | None) -> None:
        """Refuse what cannot be done with inputs of a shape; raises UserError."""
        self.recipe.augment.check(shape)
        self.method.check(layers, plan)

    def afford(self) -> None:
        """Refuse, before data are read, what memory cannot hold and weights that do not fit; raises UserError."""
        data = self.dataset
        if self.model.weights and not (data.shape and data.outputs):
            read(
                self.model.weights
            )  # whether it fits is told when the data have said how large the inputs are
        elif self.model.weights:
            with drawing(0):
                brought(self.model, self.model.build(data.shape, data.outputs))
        if data.shape and data.outputs and data.train_size:
            check_training(
                self.replicates, self.layers(data.shape, data.outputs), self.recipe.plan(data.train_size)
            )

    def layers(self, shape: Shape, outputs: int) -> Layers:
        """The network's layers for inputs of a shape, once it has been tried; raises UserError."""
        check_network(self.model, shape, outputs)
        with drawing(0):
            network = self.model.build(shape, outputs)
            freeze(network, self.recipe.freeze)
            output = tried(network, shape, outputs, self.recipe.batch_size)
        layers = Layers.of(network, self.prunable, output, fixed(network, *self.method.frozen(self.recipe)))
        if asked := self.redraws:
            with drawing(1):
                demand_drawn(asked, network, self.model.build(shape, outputs), layers.prunable)
        return layers

    @property
    def redraws(self) -> str:
        """What asks for initial weights that are drawn once more, as key=value; nothing if nothing does."""
        again = [name for name in self.controls if name in REDRAWN]
        return f"controls=[{','.join(again)}]" if again else self.method.redraws

    def task(self, data: Data, device: torch.device) -> Task:
        """What is to be learned of data, which are moved to the device; raises UserError."""
        goal = self.goal.of(data.goal)
        demand_takes(goal, data.goal, self.dataset.name)
        demand_works(goal, data)
        self.method.suits(goal, data)
        layers = self.layers(data.shape, data.outputs)
        return Task(self.model, data.to(device), layers, self.seeds, device, goal, self.engine)

    def torch_device(self) -> torch.device:
        """The device to run on; raises UserError if this machine lacks it."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"device={self.device} is not on this machine; choose auto, cpu"
                + (f" or cuda:0..{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "")
            ) from error
        return device
