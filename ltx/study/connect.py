"""`ltx connect`: the instability of a run's networks to SGD noise, from its folder to tables and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ltx.core.checks import Checks
from ltx.core.recipe import Plan, in_steps
from ltx.core.task import Task
from ltx.core.ticket import Round, Ticket, Trained, Tree, digest
from ltx.engine.train import below, train
from ltx.errors import Interrupted, UserError, demand
from ltx.experiment.execute import stopping
from ltx.experiment.progress import Progress as Show
from ltx.experiment.store import Progress, identity, number, read, save, table
from ltx.files import write
from ltx.report.figures.connect import draw
from ltx.study.line import POINTS, barrier, between, doubled, halves, twins
from ltx.study.reopen import diverged, load_task, open_ticket, reopen, trained_levels
from ltx.study.show import read_manifest

LINES = ["level", "density", "k", "seed", "alpha", "train_error", "test_error"]
BARRIERS = ["level", "density", "k", "seed", "train_barrier", "test_barrier", "l2", "disagreement"]


@dataclass(frozen=True)
class Question:
    """How stable is a level's network (its mask) to the noise that follows step k of the dense training?"""

    level: int
    k: int
    mask: Tree  # [R, *shape]
    lost: Tensor  # [R] bool: the mask follows from a diverged training

    @property
    def name(self) -> str:
        return f"level_{self.level:02d}_step_{self.k}"


def connect(
    folder: Path,
    *,
    levels: str | None = None,
    steps: str | None = None,
    recalibrate: bool = False,
    device: str | None = None,
) -> Path:
    """Answer each (level, k) that was not answered before, then draw; returns the folder of the results."""
    manifest, run = read_manifest(folder), reopen(folder, device)
    plan = run.recipe.plan(manifest["examples"]["train"])
    tickets = {level: open_ticket(folder, level) for level in chosen_levels(folder, levels)}
    last, header = tickets[max(tickets)]
    normalised = any(name.endswith("running_mean") for name in last)
    demand(normalised or not recalibrate, "--recalibrate", "true", "this network has no BatchNorm")
    questions = [
        Question(level, k, below(tree, "mask/"), diverged(folder, level, run.seeds))
        for level, (tree, _) in tickets.items()
        for k in chosen_steps(steps or header["start"], plan)
    ]
    out = folder / "connect" / ("recalibrated" if recalibrate else "")
    with held(out):
        if left := [question for question in questions if not answered(out, question)]:
            answer(load_task(run, manifest), plan, left, out, recalibrate=recalibrate)
        tabulate(out)
    statistics = "measured at each point, on an epoch of training batches" if recalibrate else "interpolated"
    notes = [f"BatchNorm's running statistics are {statistics}."] if normalised else []
    draw(out, f"{manifest['config']} · {manifest['method']}", notes)
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
                about = {"level": question.level, "k": question.k, "mask": digest(question.mask)}
                seeds = " ".join(map(str, task.seeds))
                save(out / f"{question.name}.safetensors", found, **about, seeds=seeds)
                show.say(spoken(question, found, time.perf_counter() - began))
                if stop():
                    raise Interrupted
        except (Interrupted, KeyboardInterrupt):
            tabulate(out)
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
    return vars(line) | {"density": task.alive(ticket).cpu() / task.layers.total}


def trained(task: Task, round: Round, scratch: Path, stop: Callable[[], bool]) -> Trained:
    """The round trained, with a bar, from where an earlier process was stopped in it."""
    path = scratch.with_name(f".{scratch.name}.safetensors")
    with Show() as show:
        show.begin(task, round)
        outcome = train(task, round, Checks(), Progress(path, identity(round.ticket), stop), show.tick)
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
    wanted = {int(part) if part.strip().isdigit() else -1 for part in text.split(",")}
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
    found = read(out / f"{question.name}.safetensors")
    return found is not None and found[1].get("mask") == digest(question.mask)


def tabulate(out: Path) -> None:
    """Write connect.csv and barriers.csv of every answer in the folder."""
    found = [known for path in out.glob("level_*.safetensors") if (known := read(path))]
    lines: list[tuple] = []
    barriers: list[tuple] = []
    for tree, header in sorted(found, key=lambda known: (int(known[1]["level"]), int(known[1]["k"]))):
        train_error, test_error = tree["train_error"], tree["test_error"]
        measures = (barrier(train_error), barrier(test_error), tree["l2"], tree["disagreement"])
        for r, seed in enumerate(header["seeds"].split()):
            key = (header["level"], number(tree["density"][r]), header["k"], seed)
            barriers.append((*key, *(number(measure[r]) for measure in measures)))
            for i in range(POINTS):
                errors = (number(train_error[r, i]), number(test_error[r, i]))
                lines.append((*key, round(i / (POINTS - 1), 6), *errors))
    if found:
        write(out / "connect.csv", table(LINES, lines))
        write(out / "barriers.csv", table(BARRIERS, barriers))


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
