"""How much memory a form of a network takes, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltx.study.formats import Model, limited, opened

Source = nn.Module | Path
"""A network that torch computes, or a file that its own runtime does."""


def model_of(source: Source, threads: int) -> Model:
    """What computes a form, with so many threads; raises UserError for a file that is no model."""
    return opened(source, threads) if isinstance(source, Path) else limited(eager(source), threads)


def eager(network: nn.Module) -> Model:
    def model(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(pixels)))

    return model


def peak(source: Source, runtime: str, pixels: np.ndarray) -> int | None:
    """Bytes that a process holds at most beyond its runtime, when it opens a form and computes `pixels` once.

    None where the system does not tell, and for a network of a stranger's class, which no other process can be sent.
    """
    kinds = multiprocessing.get_all_start_methods()
    if "forkserver" not in kinds:
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(theirs, source, runtime, pixels), daemon=True)
    found = None
    with mine:
        with theirs, suppress(AttributeError, TypeError, ImportError):  # what cannot be sent
            process.start()
        if process.pid is not None:
            with suppress(EOFError):
                found = mine.recv()
            process.join()
    return found


def answer(connection: Connection, source: Source, runtime: str, pixels: np.ndarray) -> None:
    """In the process of its own: tell what the form took."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
    torch.set_num_threads(1)
    import_module(runtime)
    before = highest()
    model_of(source, 1)(pixels)
    connection.send(highest() - before)


def highest() -> int:
    """The most bytes that this process has held so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
