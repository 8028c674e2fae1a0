"""Two settings of a CPU process that training needs; they change no result worth keeping."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def tune() -> None:
    """Flush denormals, and keep freed memory; call it before the first computation.

    Denormals: Adam's moments of weights that get no gradient decay into them, and arithmetic on them slowed the
    second half of a LeNet training by a third. Memory: glibc returns every large buffer to the system when it is
    freed and maps it anew at the next step, a page fault for each 4 KB; a Conv-2 step took 303 ms with that and
    91 ms without (2 cores).
    """
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc, not musl
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
