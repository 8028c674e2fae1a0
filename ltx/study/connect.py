"""`ltx connect`: the instability of a run's networks to SGD noise, from its folder to tables and figures."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ltx.core import sealed
from ltx.core.checks import Checks
from ltx.core.recipe import Plan, in_steps
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Trained, Tree
from ltx.engine.train import train
from ltx.errors import Damaged, Interrupted, UserError, demand
from ltx.experiment.checkpoint import Checkpoint
from ltx.experiment.execute import stopping
from ltx.experiment.packing import mask_digest, ticket_identity
from ltx.experiment.progress import Progress as Show
from ltx.experiment.tables import number, table
from ltx.files import write
from ltx.manifest import enter
from ltx.report.figures.connect import draw
from ltx.study.line import POINTS, barrier, between, doubled, halves, twins
from ltx.study.reopen import diverged, load_task, open_ticket, reopen, trained_levels
from ltx.study.show import read_manifest

LINES = ["level", "density", "k", "seed", "alpha", "train_error", "test_error"]
BARRIERS = ["level", "density", "k", "seed", "train_barrier", "test_barrier", "l2", "disagreement"]


@dataclass(frozen=True)
class Question:
    """How stable is a level's network (its mask) to the noise that follows step k of the dense training?"""

    tag: str  # the run's
    level: int
    k: int
    mask: Tree  # [R, *shape]
    lost: Tensor  # [R] bool: the mask follows from a diverged training

    @property
    def name(self) -> str:
        return named(self.level, self.k)

    @property
    def place(self) -> dict[str, Any]:
        """What an answer to it says of itself."""
        about = {"kind": "connection", "tag": self.tag, "level": self.level, "k": self.k}
        return {**about, "mask": mask_digest(self.mask)}


def connect(
    folder: Path,
    *,
    levels: str | None = None,
    steps: str | None = None,
    recalibrate: bool = False,
    device: str | None = None,
    trust: bool = False,
) -> Path:
    """Answer each (level, k) that was not answered before, then draw; returns the folder of the results.

    `trust`: run the code that the folder's configuration names. Raises UserError.
    """
    manifest, run = read_manifest(folder), reopen(folder, device, trust=trust)
    plan = run.recipe.plan(manifest["examples"]["train"])
    tickets = {level: open_ticket(folder, level) for level in chosen_levels(folder, levels)}
    last, header = tickets[max(tickets)]
    normalised = any(name.endswith("running_mean") for name in last.weights)
    demand(normalised or not recalibrate, "--recalibrate", "true", "this network has no BatchNorm")
    questions = [
        Question(manifest["tag"], level, k, ticket.mask, diverged(folder, level, run.seeds))
        for level, (ticket, _) in tickets.items()
        for k in chosen_steps(str(header["start"]) if steps is None else steps, plan)
    ]
    out = folder / "connect" / ("recalibrated" if recalibrate else "")
    with held(out):
        if left := [question for question in questions if not answered(out, question)]:
            task = load_task(run, manifest)
            demand(
                task.goal.takes == "classes",
                "RUN",
                folder,
                "it is no classification: there is no error to tell",
            )
            answer(task, plan, left, out, recalibrate=recalibrate)
        tabulate(out, manifest["tag"])
    statistics = "measured at each point, on an epoch of training batches" if recalibrate else "interpolated"
    notes = [f"BatchNorm's running statistics are {statistics}."] if normalised else []
    drawn = draw(out, f"{manifest['config']} · {manifest['method']}", notes)
    enter(folder, [*drawn, *out.glob("*.csv"), *out.glob("level_*.safetensors")])
    return out


def answer(task: Task, plan: Plan, questions: list[Question], out: Path, *, recalibrate: bool) -> None:
    """Train both copies for each question, measure the line between them, save; Interrupted if told to."""
    show = Show()
    with stopping() as stop:
        try:
            early = beginnings(task, plan, sorted({q.k for q in questions}), out, stop)
            for question in questions:
                began = time.perf_counter()
                found = ask(task, plan, question, early[question.k], out, stop, recalibrate=recalibrate)
                about = {**question.place, "seeds": list(task.seeds)}
                sealed.save(out / f"{question.name}.safetensors", found, about, out)
                show.say(spoken(question, found, time.perf_counter() - began))
                if stop():
                    raise Interrupted
        except (Interrupted, KeyboardInterrupt):
            tabulate(out, questions[0].tag)
            raise Interrupted(f"stopped; everything so far is in {out}, the same command continues") from None


def beginnings(
    task: Task, plan: Plan, steps: list[int], out: Path, stop: Callable[[], bool]
) -> dict[int, Tree]:
    """The dense network's weights at `steps`: its first steps trained again, from the run's own seeds."""
    short = replace(plan, steps=steps[-1], eval_every=max(1, steps[-1]))
    round = Round(0, task.dense(), short, keep=tuple(steps), role=f"dense to step {steps[-1]}")
    return trained(task, round, out / f"beginning_{'_'.join(map(str, steps))}", stop).at


def ask(
    task: Task,
    plan: Plan,
    question: Question,
    weights: Tree,
    out: Path,
    stop: Callable[[], bool],
    *,
    recalibrate: bool,
) -> Tree:
    """What was measured on the line between two copies, trained from `weights` under the question's mask."""
    ticket = Ticket(weights, {name: alive.to(task.device) for name, alive in question.mask.items()})
    copies = Ticket(doubled(weights), doubled(ticket.mask))
    blind = replace(plan, eval_every=plan.steps)  # only the end counts
    # By the plan alone: a method's hooks inside training (penalties, projections) are not repeated.
    round = Round(question.level, copies, blind, start=question.k, role=f"copies from step {question.k}")
    outcome = trained(twins(task), round, out / question.name, stop)
    line = between(task, plan, *halves(outcome.final), recalibrate=recalibrate)
    lost = outcome.diverged.view(2, -1).any(0) | question.lost
    for value in vars(line).values():
        value[lost] = torch.nan
    return vars(line) | {"density": task.density(ticket).float().cpu()}


def trained(task: Task, round: Round, scratch: Path, stop: Callable[[], bool]) -> Trained:
    """The round trained, with a bar, from where an earlier process was stopped in it."""
    path = scratch.with_name(f".{scratch.name}.safetensors")
    with Show() as show:
        show.begin(task, round)
        place = {"level": round.level, "role": round.role, "ticket": ticket_identity(round.ticket)}
        outcome = train(task, round, Session(Checks(), Checkpoint(path, place, stop), show.tick))
    path.unlink(missing_ok=True)
    return outcome


def spoken(question: Question, found: Tree, seconds: float) -> str:
    """One answer as a line for the terminal."""
    density = 100 * float(found["density"].mean())
    over = {split: 100 * float(barrier(found[f"{split}_error"]).nanmean()) for split in ("train", "test")}
    return (
        f"level {question.level:2d}  {density:6.2f} % of weights   k = {question.k:<6d}  barrier "
        f"{over['test']:5.2f} points of test error, {over['train']:5.2f} of train error   {seconds:.1f} s"
    )


# -- what is asked -------------------------------------------------------------------------------------------


def chosen_levels(folder: Path, text: str | None) -> list[int]:
    """The levels asked for; without a wish the dense network, the middle level and the last."""
    there = trained_levels(folder)
    if text is None:
        return sorted({there[0], there[len(there) // 2], there[-1]})
    wanted = {int(part) if re.fullmatch("[0-9]{1,5}", part.strip()) else -1 for part in text.split(",")}
    allowed = f"the run has levels {there[0]} to {there[-1]}, written 0,7,16"
    demand(wanted <= set(there), "--levels", text, allowed)
    return sorted(wanted)


def chosen_steps(text: str, plan: Plan) -> list[int]:
    """The steps k asked for, written as in a recipe: 0,500,2ep."""
    steps = sorted({in_steps("--steps", part, plan.epoch) for part in text.split(",")})
    demand(steps[-1] < plan.steps, "--steps", text, f"training ends at step {plan.steps}")
    return steps


# -- what is answered ----------------------------------------------------------------------------------------


def answered(out: Path, question: Question) -> bool:
    """Whether the question's answer is on the disk, whole, and about the same mask."""
    return read(out / f"{question.name}.safetensors", question.place) is not None


def read(path: Path, place: Mapping[str, Any]) -> sealed.Sealed | None:
    """An answer that is whole and says that it belongs here; None if there is none."""
    try:
        found = sealed.read(path)
        sealed.demand_place(path, found.header, place)
        sealed.demand_place(path, found.header, {"kind": "connection"})
    except (FileNotFoundError, Damaged, sealed.Outdated):
        return None
    return found if path.stem == named(found.header["level"], found.header["k"]) else None


def named(level: int, k: int) -> str:
    return f"level_{level:02d}_step_{k}"


def tabulate(out: Path, tag: str) -> None:
    """Write connect.csv and barriers.csv of every answer in the folder that is the run's."""
    for name, content in tables(out, tag).items():
        write(out / name, content)


def tables(out: Path, tag: str) -> dict[str, bytes]:
    """connect.csv and barriers.csv of every answer in the folder that is the run's; nothing if there is none."""
    found = [known for path in out.glob("level_*.safetensors") if (known := read(path, {"tag": tag}))]
    lines: list[tuple[Any, ...]] = []
    barriers: list[tuple[Any, ...]] = []
    for file in sorted(found, key=lambda known: (known.header["level"], known.header["k"])):
        tree, header = file.tree, file.header
        train_error, test_error = tree["train_error"], tree["test_error"]
        measures = (barrier(train_error), barrier(test_error), tree["l2"], tree["disagreement"])
        for r, seed in enumerate(header["seeds"]):
            key = (header["level"], number(tree["density"][r]), header["k"], seed)
            barriers.append((*key, *(number(measure[r]) for measure in measures)))
            for i in range(POINTS):
                errors = (number(train_error[r, i]), number(test_error[r, i]))
                lines.append((*key, round(i / (POINTS - 1), 6), *errors))
    return {"connect.csv": table(LINES, lines), "barriers.csv": table(BARRIERS, barriers)} if found else {}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone; raises UserError."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder} is in use by another ltx process; wait for it or stop it") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
