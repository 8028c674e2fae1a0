"""Lanes: processes of a core each, in which trainings that do not depend on each other go on side by side."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

import cloudpickle
import torch

from ltx.config.run import Run
from ltx.core.recipe import Plan
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree
from ltx.engine.executors import Executor
from ltx.engine.train import joined, train
from ltx.errors import Died, Interrupted
from ltx.experiment.checkpoint import Checkpoint
from ltx.experiment.cost import macs
from ltx.experiment.lane import received, send

if TYPE_CHECKING:
    from ltx.experiment.journal import Journal

LOOK_SECONDS = 0.1
"""Between two looks at whether the run was asked to stop."""


WORTH = 1e11
"""Multiply-accumulates of a level that take one core about as long as a process takes to begin: two seconds."""
STEP = 1e7
"""Those that a step of one replicate takes as long as, however small its network."""


def shares(run: Run, task: Task, plan: Plan, executor: type[Executor]) -> tuple[int, int]:
    """How many lanes a run has, and threads each.

    By itself a lane for every core, never more than there are networks of a level, and one where that is soon
    done. The cores are divided among them; a network that runs by its own loops has one thread, which is faster
    for its short operations (2,850 steps a second of a digits LeNet, 825 on two threads) and ends in the same bits.
    """
    cores = torch.get_num_threads()
    if task.device.type != "cpu":
        return 1, cores
    networks = task.replicates * (1 + len(run.controls) * run.control_draws)
    work = networks * plan.steps * max(STEP, plan.batch_size * macs(task.network(), task.data.shape))
    count = min(networks, cores if run.lanes == "auto" else int(run.lanes))
    if run.lanes == "auto" and work < WORTH:
        count = 1
    return count, max(1, cores // count) if executor.by_threads else 1


@dataclass
class Part:
    """Some replicates of a round, and what is known of their training."""

    round: Round
    rows: range
    checkpoint: Checkpoint
    step: int
    measured: dict[int, Tree] = field(default_factory=dict)
    trained: Trained | None = None
    lost: int = 0  # lanes that died of it


def divided(task: Task, rounds: Sequence[Round], lanes: int) -> Iterator[tuple[Round, range]]:
    """The rounds as they are if the lanes have equal shares so, otherwise in parts; never by what was trained.

    A method that steers or regrows all replicates as one stack has its rounds whole.
    """
    pieces = 1 if len(rounds) % lanes == 0 else min(lanes, task.replicates)
    for round in rounds:
        hooks = round.hooks
        whole = hooks.project or hooks.regrow or hooks.steer
        ends = torch.linspace(0, task.replicates, 1 + (1 if whole else pieces)).round().int().tolist()
        for first, end in pairwise(ends):
            yield round, range(first, end)


class Lane:
    """One process, and the part that it is at."""

    def __init__(self, threads: int) -> None:
        mine, its = socket.socketpair()
        code = "import sys; from ltx.experiment.lane import work; work(int(sys.argv[1]))"
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self.line = Connection(mine.detach())
        self.part: Part | None = None

    def send(self, *message: object) -> None:
        """Tell the process something; one that has died is noticed when it is listened to."""
        with suppress(OSError):
            send(self.line, *message)

    def end(self) -> int:
        """Whatever it is doing; how its process ended."""
        self.process.kill()
        self.line.close()
        return self.process.wait()


class Lanes:
    """What trains a run: some processes beside it, each with the task and its data, or this process alone."""

    def __init__(self, task: Task, count: int = 1, threads: int = 1) -> None:
        self.task, self.count, self.threads = task, count, threads
        self.lanes: list[Lane] = []
        self.waiting: list[Part] = []
        self.parts: dict[str, list[Part]] = {}  # by the name of the round
        self.stopping = False

    def __enter__(self) -> Lanes:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
        for lane in self.lanes:
            lane.end()

    def start(self, rounds: Sequence[Round], journal: Journal) -> None:
        """Begin to train what is missing of rounds that do not depend on each other; one lane does not."""
        if self.count == 1:
            return
        missing = {round.name for round in rounds if not journal.has(round)}
        for round, rows in divided(self.task, rounds, self.count):
            if round.name in missing:
                checkpoint = journal.store.checkpoint(round)
                own = checkpoint.of(rows) if len(rows) < self.task.replicates else checkpoint
                self.waiting.append(Part(round, rows, own, round.start))
                self.parts.setdefault(name(round), []).append(self.waiting[-1])
        self._occupy()

    def train(self, round: Round, session: Session) -> Trained:
        """What becomes of a round; whatever its training raises."""
        return (
            self._awaited(round, session) if name(round) in self.parts else train(self.task, round, session)
        )

    def _awaited(self, round: Round, session: Session) -> Trained:
        parts, told = self.parts[name(round)], -1
        while any(part.trained is None for part in parts):
            if not self.stopping and parts[0].checkpoint.stop():
                self.stopping = True
                for lane in self.lanes:
                    lane.send("stop")
            if self.stopping and not any(lane.part for lane in self.lanes):
                raise Interrupted
            self._listen(session)
            told = tell(round, parts, session, told)
        del self.parts[name(round)]
        return joined([part.trained for part in parts if part.trained])

    def _occupy(self) -> None:
        """Give every lane something to do; one that there is nothing for is not begun."""
        while len(self.lanes) < min(self.count, len(self.waiting)):
            self.lanes.append(self._lane())
        for lane in self.lanes:
            if lane.part is None and self.waiting and not self.stopping:
                lane.part = self.waiting.pop(0)
                lane.send("train", packed(lane.part, self.task))

    def _lane(self) -> Lane:
        lane = Lane(self.threads)
        lane.send("task", self.sent)
        return lane

    @cached_property
    def sent(self) -> bytes:
        return packed(self.task, None)

    def _listen(self, session: Session) -> None:
        by_line = {lane.line: lane for lane in self.lanes}
        for line in wait(list(by_line), LOOK_SECONDS):
            lane = by_line[line]  # type: ignore[index]
            try:
                kind, *said = received(lane.line)
            except (EOFError, ConnectionResetError):
                self._replace(lane)
                continue
            getattr(self, f"_{kind}")(lane, session, *said)
        self._occupy()

    # -- what a lane says ---------------------------------------------------------------------------------------

    def _at(self, lane: Lane, session: Session, step: int, measured: Tree | None) -> None:
        assert lane.part is not None
        lane.part.step = step
        if measured is not None:
            lane.part.measured[step] = measured

    def _trained(self, lane: Lane, session: Session, trained: bytes, passed: dict[str, int]) -> None:
        assert lane.part is not None
        lane.part.trained, lane.part = pickle.loads(trained), None
        session.checks.passed.update(passed)

    def _stopped(self, lane: Lane, session: Session) -> None:
        lane.part = None

    def _failed(self, lane: Lane, session: Session, error: bytes, told: str, trace: str) -> None:
        try:
            raised = pickle.loads(error)
        except Exception:  # one of the user's own that cannot be made again
            raised = Died(told)
        raised.add_note(trace)
        raise raised

    def _replace(self, lane: Lane) -> None:
        """Another lane for one that died, and the part once more, from where it was last saved."""
        how, part = lane.end(), lane.part
        self.lanes[self.lanes.index(lane)] = self._lane()
        if part is None or self.stopping:
            return
        part.lost += 1
        if part.lost > 1:
            why = f"by signal {-how}" if how < 0 else f"with exit code {how}"
            raise Died(
                f"level {part.round.level}, {part.round.name}: its process ended twice, {why}; was memory short? "
                "lanes=1 needs the least"
            )
        self.waiting.insert(0, part)


def name(round: Round) -> str:
    return f"level {round.level}, {round.name}"


def tell(round: Round, parts: Sequence[Part], session: Session, told: int) -> int:
    """Tell how far a round is: its replicates' mean, and what was measured where all have been; up to which step."""
    steps = sum(part.step * len(part.rows) for part in parts) // sum(len(part.rows) for part in parts)
    for step in sorted(set.intersection(*(set(part.measured) for part in parts))):
        trees = [part.measured.pop(step) for part in parts]
        session.tick(
            step, {key: torch.cat([tree[key] for tree in trees]) for key in trees[0] if key != "step"}
        )
    if steps != told:
        session.tick(steps, None)
    return steps


class _Packer(cloudpickle.Pickler):
    """Pickles what refers to a task, as a method's hooks do, without the data that every lane has."""

    def __init__(self, file: io.BytesIO, task: Task | None) -> None:
        super().__init__(file)
        self.task = task

    def persistent_id(self, thing: object) -> str | None:
        return "data" if self.task is not None and thing is self.task.data else None


def packed(thing: object, task: Task | None) -> bytes:
    if isinstance(thing, Part):
        round = replace(thing.round, inverse=None, found_by=None)
        thing = (round, thing.rows, replace(thing.checkpoint, stop=bool))
    file = io.BytesIO()
    _Packer(file, task).dump(thing)
    return file.getvalue()
