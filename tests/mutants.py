"""Breaks one promise after the other, and sees a test fail for each: `make mutants`.

A mutant is a line or two that are added at the end of a module, in a copy of the tree; its test must fail there.
Exit code 1 if one survives, or if a test fails without any.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Mutant(NamedTuple):
    """A promise, how it is broken, and who must notice."""

    promise: str
    module: str  # below ltx/
    code: str
    tests: str  # what pytest is told

    def survives(self, tree: Path) -> bool:
        """Whether its tests pass in a copy of the tree all the same."""
        path = tree / "ltx" / self.module
        before = path.read_text()
        path.write_text(f"{before}\n\n{self.code}\n")
        try:
            return passes(tree, self.tests)
        finally:
            path.write_text(before)


def passes(tree: Path, tests: str) -> bool:
    """Whether tests pass there, and there are any."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(tests)]
    env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{tests}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


MUTANTS = (
    Mutant(
        "masks are nested",
        "core/checks.py",
        "Checks.nested = lambda self, *_: None",
        "tests/test_checks.py -k revives",
    ),
    Mutant(
        "kept counts are exact",
        "pruning/masks.py",
        "_top = top\ntop = lambda scores, alive, count: _top(scores, alive, count - 1)",
        "tests/test_prune.py -k tie",
    ),
    Mutant(
        "equal scores fall to the lower index",
        "pruning/masks.py",
        "_top = top\ntop = lambda scores, alive, count: _top(scores.flip(1), alive.flip(1), count).flip(1)",
        "tests/test_prune.py -k lower_index",
    ),
    Mutant(
        "survivors start bit-equal to the rewind weights",
        "core/checks.py",
        "Checks.starts_from = lambda self, *_: None",
        "tests/test_checks.py -k start",
    ),
    Mutant(
        "pruned weights are exactly zero",
        "core/checks.py",
        "Checks.zero = lambda self, *_: None",
        "tests/test_checks.py -k 'leaks or weights_alone or not_zero'",
    ),
    Mutant(
        "the gradients of what is pruned are masked",
        "engine/executors/base.py",
        "Dense.mask_gradients = lambda self: None",
        "tests/test_engine.py -k after_every_step",
    ),
    Mutant(
        "rewind weights are a copy of their own",
        "core/ticket.py",
        "copied = lambda tree: dict(tree)",
        "tests/test_engine.py -k from_step_k",
    ),
    Mutant(
        "a control differs from its ticket",
        "core/checks.py",
        "Checks.control = lambda self, *_, **__: None",
        "tests/test_checks.py -k control",
    ),
    Mutant(
        "reinit redraws",
        "pruning/controls.py",
        "reinit = lambda task, round, draw: round.ticket\nCONTROLS['reinit'] = reinit",
        "tests/test_controls.py -k redraws_every",
    ),
    Mutant(
        "shuffle keeps the layer counts",
        "pruning/controls.py",
        "_shuffled = shuffled\nshuffled = lambda *a: {n: m & m.roll(1, -1) for n, m in _shuffled(*a).items()}",
        "tests/test_controls.py -k layer_counts",
    ),
    Mutant(
        "each seed has an order of its own",
        "streams.py",
        "_order = order\norder = lambda seed, epoch, examples: _order(0, epoch, examples)",
        "tests/test_engine.py -k 'neighbours or plain_loop'",
    ),
    Mutant(
        "each epoch has an order of its own",
        "streams.py",
        "_order = order\norder = lambda seed, epoch, examples: _order(seed, 0, examples)",
        "tests/test_engine.py -k plain_loop",
    ),
    Mutant(
        "early stop is the least validation loss",
        "core/ticket.py",
        "Curve.early_stop = Curve.last",
        "tests/test_engine.py -k early_stop",
    ),
    Mutant(
        "the learning rate warms up and drops",
        "core/recipe.py",
        "Plan.lr_at = lambda self, step: self.lr",
        "tests/test_recipe.py -k warms_up",
    ),
    Mutant(
        "whoever diverged is marked",
        "core/ticket.py",
        "Trained.__post_init__ = lambda self: self.diverged.zero_() and None",
        "tests/test_engine.py -k 'diverged or huge'",
    ),
    Mutant(
        "a file counts in its own place only",
        "core/sealed.py",
        "demand_place = lambda *_: None",
        "tests/test_rounds.py",
    ),
    Mutant(
        "a file's checksum covers its header and its tensors",
        "core/sealed.py",
        "checksum = lambda header, tree: ''",
        "tests/test_ticket.py -k bytes_that_changed",
    ),
    Mutant(
        "no link is followed when a file is written",
        "files.py",
        "secrets.token_hex = lambda n: 'guessed'",
        "tests/test_files.py -k 'through_a_link'",
    ),
    Mutant(
        "the executor computes what the network computes",
        "core/checks.py",
        "Checks.agree = lambda self, *_: None",
        "tests/test_executors.py",
    ),
    Mutant(
        "whoever has stopped moves no more",
        "engine/optimizer.py",
        "Optimizer.drop = lambda self, r: None",
        "tests/test_dynamic.py",
    ),
    Mutant(
        "what moved is forgotten by the optimizer",
        "engine/optimizer.py",
        "Optimizer.forget = lambda self, changed: None",
        "tests/test_dynamic.py",
    ),
    Mutant(
        "a changed network of one's own is another run",
        "config/sources.py",
        "of_files = lambda name, spec: 'the same'",
        "tests/test_config.py -k source_changes",
    ),
    Mutant(
        "a portable ticket claims no sizes that its bytes lack",
        "pruning/portable.py",
        "prod = lambda shape: 0",
        "tests/test_ticket.py -k not_what_it_says",
    ),
)


def main() -> int:
    """Try every mutant whose promise has one of the words given; all, if none is."""
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in m.promise for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "ltx")
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", ".*_cache")
        )
        for tests in dict.fromkeys(m.tests for m in chosen):
            if not passes(tree, tests):
                raise SystemExit(f"{tests} fails as it is")
        for mutant in chosen:
            survived = mutant.survives(tree)
            survivors += [mutant.promise] * survived
            print(f"{'SURVIVED' if survived else 'noticed '}  {mutant.promise}", flush=True)
    print(f"{len(chosen)} tried, {len(chosen) - len(survivors)} held: noticed by a test")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
