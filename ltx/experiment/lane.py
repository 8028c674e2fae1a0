"""In the process of a lane: it is sent a task, then parts of rounds, trains them, and says what came of each."""

from __future__ import annotations

import io
import os
import pickle
import signal
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from ltx.core.checks import Checks
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Round, Trained, Tree, unmeasured
from ltx.data.base import Data
from ltx.engine.device import tuned
from ltx.engine.train import train
from ltx.errors import Interrupted
from ltx.experiment.checkpoint import Checkpoint
from ltx.plugins import told

LOOK_SECONDS = 0.05
"""Between two looks at the line."""


def send(line: Connection, *message: object) -> None:
    """A message by value: Python's own `send` would have torch share the memory of its tensors."""
    line.send_bytes(pickle.dumps(message))


def received(line: Connection) -> Any:
    """The next message; raises EOFError or OSError if nobody is there any more."""
    return pickle.loads(line.recv_bytes())


class Line:
    """The line to the run's own process, which may say stop; when that process is gone, so is this one."""

    def __init__(self, line: Connection) -> None:
        self.line, self.stopped, self.looked = line, False, 0.0

    def due(self) -> bool:
        """Whether it is time to look and to tell."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return False
        self.looked = now
        return True

    def stop(self) -> bool:
        """Whether the run was asked to stop."""
        if self.due():
            try:
                while self.line.poll():
                    self.stopped |= received(self.line) == ("stop",)
            except (EOFError, OSError):
                os._exit(1)
        return self.stopped

    def tick(self, step: int, measured: Tree | None) -> None:
        if measured is not None or time.monotonic() - self.looked > LOOK_SECONDS / 2:
            send(self.line, "at", step, measured)


def work(number: int) -> None:
    """Serve the socket of that number until it is closed. Ctrl-C and SIGTERM are for the run's own process."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    line = Line(Connection(number))
    task: Task | None = None
    with tuned():
        while True:
            try:
                kind, *said = received(line.line)
            except (EOFError, OSError):
                return
            if kind == "task":
                task = unpacked(said[0], None)
            elif kind == "train":
                assert task is not None
                send(line.line, *answer(task, line, *unpacked(said[0], task.data)))


def answer(task: Task, line: Line, round: Round, rows: range, checkpoint: Checkpoint) -> tuple[object, ...]:
    """What came of a part, for the run's own process."""
    checks = Checks()
    try:
        session = Session(checks, replace(checkpoint, stop=line.stop), line.tick)
        trained = train(task.part(rows), round.part(rows), session)
        return "trained", packed(replace(trained, joules=unmeasured())), dict(checks.passed)
    except Interrupted:
        return ("stopped",)
    except BaseException as error:  # whatever a network of the user's own raises
        return "failed", packed(error), told(error), traceback.format_exc()


def packed(thing: Trained | BaseException) -> bytes:
    try:
        return bytes(cloudpickle.dumps(thing))
    except Exception:
        return b""


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, data: Data | None) -> None:
        super().__init__(file)
        self.data = data

    def persistent_load(self, name: str) -> Data | None:
        return self.data


def unpacked(sent: bytes, data: Data | None) -> Any:
    """What a lane was sent, with its own data in the place of the run's."""
    return _Unpacker(io.BytesIO(sent), data).load()
