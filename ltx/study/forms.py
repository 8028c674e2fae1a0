"""The forms that a run's network can be used in: dense, masked, compacted, exported, int8, and files as given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltx.core.task import Task
from ltx.errors import UserError, demand
from ltx.files import read_json, write
from ltx.study.export import CALIBRATION, Choice, Chosen, Wish, chosen, logits, pixels, taken, torch_model
from ltx.study.formats import FORMATS, LARGEST_BATCH, int8, opened, safetensors
from ltx.study.formats import installed as demand_installed
from ltx.study.memory import Source, model_of
from ltx.study.reopen import load_task, reopen
from ltx.study.show import read_manifest

EXPORTED = ("onnx", "pt2")
"""The formats that a run's networks are exported to, to be measured."""


@dataclass(frozen=True)
class Form:
    """One way to use a network: what computes it, and what it should compute."""

    name: str
    runtime: str
    source: Source
    bytes: int
    density: float | None = None
    macs: int | None = None
    expected: np.ndarray | None = None  # logits [N, K] of torch on the test split


@dataclass
class Bench:
    """One run and the forms to be measured, dense first."""

    title: str
    folder: Path
    task: Task
    inputs: np.ndarray  # the test split as files take it
    scratch: Path  # where exported forms lie for the while
    forms: list[Form] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def quality(self, form: Form) -> dict[str, Any]:
        """The goal's measure on the whole test split as the form's runtime computes it, and how far it is torch's."""
        mine = computed(form, self.inputs)
        goal, targets = self.task.goal, self.task.data.test.targets.cpu()
        found = goal.measures(goal.tally(torch.from_numpy(mine)[None], targets[None]), len(mine))
        facts = {"measure": goal.measure, "test": float(found[goal.measure]), "examples": len(mine)}
        if form.expected is None:
            return facts
        return facts | {
            "agreement": float((mine.argmax(1) == form.expected.argmax(1)).mean()),
            "largest_difference": float(np.abs(mine - form.expected).max()),
        }

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A form that cannot be made (a package or an operator is missing) is left out, with a note."""
        try:
            yield
        except UserError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))


def computed(form: Form, inputs: np.ndarray) -> np.ndarray:
    """Logits of a form; raises UserError for a file that was made for other inputs."""
    model = model_of(form.source, 1)
    try:
        return logits(model, inputs)
    except Exception as error:  # whatever a runtime raises for inputs that are not its own
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{form.name} does not compute inputs {list(inputs.shape[1:])}: {why}") from error


# -- what is asked for


def sorted_out(paths: list[Path]) -> dict[Path, list[Path | None]]:
    """The runs, each with what is to be measured of it: None for its own forms, and files.

    Raises UserError for what is neither, and for a file whose run is not known.
    """
    suffixes = {format.suffix for format in FORMATS.values() if format.open}
    files = [path for path in paths if path.is_file() or path.suffix in suffixes]
    runs: dict[Path, list[Path | None]] = {path: [None] for path in paths if path not in files}
    for run in runs:
        read_manifest(run)
    for file in files:
        opened(file, 1)
        runs.setdefault(home(file, list(runs)), []).append(file)
    return runs


def home(file: Path, runs: list[Path]) -> Path:
    """The run that a file is measured on: of those given the one that holds it, else the first; else any above it."""
    above = [folder for folder in file.resolve().parents if (folder / "manifest.json").is_file()]
    mine = [run for run in runs if run.resolve() in above]
    found = [*mine, *runs, *above]
    demand(bool(found), "FILE", file, "name the run whose data it is for as well, as in `ltx bench RUN FILE`")
    return found[0]


def gathered(run: Path, what: list[Path | None], wish: Wish, scratch: Path) -> Bench:
    """One run's forms: dense, for None those of the ticket wished for, and the files given; raises UserError."""
    manifest = read_manifest(run)
    choice = chosen(run, manifest, wish if None in what else Wish())
    task = load_task(reopen(run, "cpu"), manifest)
    bench = Bench(titled(run, manifest, choice, own=None in what), run, task, pixels(task, "test"), scratch)
    dense = maker(bench, manifest, Wish(level=0, seed=choice.seed))
    bench.forms.append(dense.eager("dense"))
    for file in what:
        if file is None:
            of_ticket(dense, choice)
        else:
            bench.forms.append(of_file(file, bench, manifest))
    return bench


def titled(run: Path, manifest: dict[str, Any], choice: Choice, *, own: bool) -> str:
    name = f"{manifest['config']} ({run.resolve().name})"
    if not own:
        return name
    return f"{name}, {choice.role} of level {choice.level}, {100 * choice.density:.3g} % of weights, seed {choice.seed}"


# -- making them


@dataclass(frozen=True)
class Maker:
    """Makes the forms of one network."""

    bench: Bench
    network: Chosen
    expected: np.ndarray  # logits [N, K] of torch, zeros and all

    def form(self, name: str, runtime: str, source: Source, bytes: int) -> Form:
        density, macs = self.network.choice.density, self.network.size.macs
        return Form(name, runtime, source, bytes, density, macs, self.expected)

    def eager(self, name: str) -> Form:
        """As torch computes it; its bytes are those of its safetensors."""
        network, shape = self.network.network, self.bench.task.data.shape
        return self.form(name, "torch", network, len(safetensors(network, shape)))

    def exported(self, name: str, to: str, *, as_int8: bool = False) -> Form:
        """As a file of its own, which that format's runtime computes; raises UserError."""
        format = FORMATS[to]
        demand_installed(f"the form {'int8' if as_int8 else to}", format)
        content = format.write(self.network.network, self.bench.task.data.shape)
        if as_int8:
            content = int8(content, pixels(self.bench.task, "train")[:CALIBRATION])
        file = self.bench.scratch / f"{len(self.bench.forms)}{format.suffix}"
        write(file, content)
        runtime = {"pt2": "torch.export"}.get(to, format.runtime)
        return self.form(name, runtime, file, len(content))


def maker(bench: Bench, manifest: dict[str, Any], wish: Wish) -> Maker:
    """Of a network of the run as it was trained, zeros and all."""
    choice = chosen(bench.folder, manifest, wish)
    network = taken(bench.folder, bench.task, manifest, choice, masked=True)
    return Maker(bench, network, logits(torch_model(network.network), bench.inputs))


def of_ticket(dense: Maker, choice: Choice) -> None:
    """Add the forms of a ticket, and the dense network in the same formats."""
    bench, manifest = dense.bench, dense.network.manifest
    masked = maker(bench, manifest, Wish(level=choice.level, role=choice.role, seed=choice.seed))
    network = taken(bench.folder, bench.task, manifest, choice, masked=False)
    small = Maker(bench, network, masked.expected)
    bench.forms += [masked.eager("masked"), small.eager("compacted")]
    for to in EXPORTED:
        for name, made in (("dense, exported", dense), ("exported", small)):
            with bench.attempt():
                bench.forms.append(made.exported(name, to))
    with bench.attempt():
        bench.forms.append(small.exported("int8", "onnx", as_int8=True))


def of_file(file: Path, bench: Bench, manifest: dict[str, Any]) -> Form:
    """A file as it was given, beside the network that its card names, if it has one."""
    runtime = next(format.runtime for format in FORMATS.values() if format.suffix == file.suffix)
    card = read_json(file.with_name(f"{file.name}.json"))
    form = Form(file.name, runtime, file, file.stat().st_size, card.get("density"), card.get("macs"))
    if card.get("fingerprint") != manifest["fingerprint"]:
        return form
    wish = Wish(level=card.get("level"), role=card.get("role", ""), seed=card.get("seed"))
    return Form(*(*list(vars(form).values())[:6], maker(bench, manifest, wish).expected))


def check_batch(batch: int) -> None:
    """Raise UserError for more examples at once than a graph takes."""
    demand(1 <= batch <= LARGEST_BATCH, "--batch", batch, f"it must lie in [1, {LARGEST_BATCH}]")
