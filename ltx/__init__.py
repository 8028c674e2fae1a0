"""ltx: a command-line laboratory for the lottery ticket hypothesis."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltx.api import compose, load_ticket, run
    from ltx.errors import Interrupted, UserError
    from ltx.estimators import LassoNetClassifier, LassoNetRegressor
    from ltx.results import Results, load

__version__ = "0.1.0"

OFFERED = {
    "compose": "ltx.api",
    "run": "ltx.api",
    "load": "ltx.results",
    "load_ticket": "ltx.api",
    "Results": "ltx.results",
    "LassoNetClassifier": "ltx.estimators",
    "LassoNetRegressor": "ltx.estimators",
    "UserError": "ltx.errors",
    "Interrupted": "ltx.errors",
}
"""What `import ltx` offers, and where it lives: imported when it is first asked for, so that help is instant."""

__all__ = [
    "Interrupted",
    "LassoNetClassifier",
    "LassoNetRegressor",
    "Results",
    "UserError",
    "__version__",
    "compose",
    "load",
    "load_ticket",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in OFFERED:
        raise AttributeError(f"module 'ltx' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(OFFERED[name]), name)


def __dir__() -> list[str]:
    return __all__
