"""matplotlib, as ltx uses it: whatever the user's own settings are, and without a window."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

# A backend is for windows, of which there is none here; a name that matplotlib does not know would end its import.
_theirs = os.environ.pop("MPLBACKEND", None)
import matplotlib as matplotlib  # noqa: E402

if _theirs is not None:
    os.environ["MPLBACKEND"] = _theirs
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _theirs

THEIRS = ("backend", "backend_fallback", "interactive", "toolbar", "timezone")
"""Settings that no figure of ours depends on."""
TEXT: dict[Any, Any] = {"text.usetex": False, "text.parse_math": False}
"""A name is what it is: no formula comes of its dollars, and no program of its own reads it."""


@contextmanager
def drawing(style: Mapping[Any, Any]) -> Iterator[None]:
    """Figures look alike everywhere: matplotlib's own defaults and `style`, not what a matplotlibrc says."""
    own: dict[Any, Any] = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if key not in THEIRS
    }
    with matplotlib.rc_context({**own, **TEXT, **style}):
        yield
