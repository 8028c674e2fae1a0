"""Experiments from Python and notebooks: `compose` and `run`, as `import ltx` offers them."""

from __future__ import annotations

import os
from pathlib import Path

from ltx.config import compose as composing
from ltx.config.identity import Composed
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.pruning.portable import Portable, read
from ltx.results import Results, load


def compose(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Composed:
    """A checked experiment from what one would type after `ltx run`; nothing is read or run yet.

    `config_dir` is a folder with experiments of one's own, as `-cd` names it. Raises UserError.
    """
    try:
        return composing.compose(overrides, config_dir if config_dir is None else os.fspath(config_dir))
    except UserError as error:
        raise error from None  # Hydra's own account of it is no news to anybody


def run(experiment: Composed) -> Results:
    """Run an experiment to its end, or continue it, and load what it left.

    Raises UserError for what the user can mend, and Interrupted after Ctrl-C, when everything so far is saved:
    the same call continues.
    """
    return load(execute(experiment), trust=True)  # its code has just been run


def load_ticket(path: str | os.PathLike[str]) -> Portable:
    """A ticket from a file that `ltx ticket` wrote; raises UserError. Nothing in the file is executed."""
    return read(Path(path))
