"""The compiled kernels: found, loaded, and called. What they compute stands in lanes.h."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from itertools import count, takewhile
from pathlib import Path
from typing import Any

FORWARD, GRADIENT, LOAD, STORE, MOMENTS, NORMALISE, DENORMALISE, POOL, UNPOOL = range(9)
SET, ADD, RELU, GATE = range(4)  # how a product ends: y = a, y += a, y = relu(a), y = a where gate > 0


class Product(ctypes.Structure):
    """`product` of sparse.c: one layer of one replicate."""

    _fields_ = (
        [(name, c_void_p) for name in "row off which value bias x gate y dvalue dbias sums".split()]
        + [(name, c_int64) for name in "xb xh xw yc yb yh yw".split()]
        + [(name, c_int32) for name in "outputs outer height width end".split()]
    )


class Image(ctypes.Structure):
    """`image` of sparse.c: one replicate's images as examples (x) and in lanes (y)."""

    _fields_ = (
        [(name, c_void_p) for name in "x y".split()]
        + [(name, c_int64) for name in "yc yb yh".split()]
        + [(name, c_int32) for name in "batch blocks channels height width".split()]
    )


class Norm(ctypes.Structure):
    """`norm` of sparse.c: one replicate's BatchNorm."""

    _fields_ = (
        *[(name, c_void_p) for name in "x weight bias y d mean variance dweight dbias".split()],
        *[(name, c_int64) for name in "b c h".split()],
        ("epsilon", c_double),
        *[(name, c_int32) for name in "batch blocks channels height width relu".split()],
    )


class Window(ctypes.Structure):
    """`window` of sparse.c: one replicate's max pool."""

    _fields_ = (
        [(name, c_void_p) for name in "x dy y dx".split()]
        + [(name, c_int64) for name in "xb xc xh yb yc yh".split()]
        + [(name, c_int32) for name in "blocks channels height width size relu".split()]
    )


class Library:
    """The kernels in one of their builds."""

    def __init__(self, library: ctypes.CDLL, number: int, digest: str) -> None:
        self.name = library.build(number).decode()  # the instruction set
        self.digest = digest  # of the compiled file: what else a result's last bits depend on
        self._run, self._number = library.run, number

    def run(self, kernel: int, wide: bool, what: ctypes.Array[Any], first: int = 0, last: int = -1) -> None:
        """Run a kernel on structures first to last of an array; `wide`: their numbers are float64."""
        last = len(what) if last < 0 else last
        where = ctypes.addressof(what) + first * ctypes.sizeof(what._type_)
        self._run(self._number, kernel, wide, where, last - first)


@cache
def builds() -> dict[str, Library]:
    """Every build that this CPU can run, the fastest one last; none where nothing was compiled."""
    found = find_spec("ltx.engine.kernels._sparse")
    if found is None or found.origin is None:
        return {}
    library = ctypes.CDLL(found.origin)
    library.build.restype, library.build.argtypes = c_char_p, [c_int]
    library.run.restype, library.run.argtypes = None, [c_int, c_int, c_int, c_void_p, c_int]
    usable = takewhile(library.build, count())
    digest = sha256(Path(found.origin).read_bytes()).hexdigest()[:8]
    return {build.name: build for build in (Library(library, number, digest) for number in usable)}


def best() -> Library | None:
    """The fastest build for this CPU, if any."""
    return next(reversed(builds().values()), None)
