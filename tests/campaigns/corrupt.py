"""Every file of a finished run, damaged in every way, found by `ltx verify` and mended by the same command:
`python tests/campaigns/corrupt.py`.

Each case damages a copy of one run. `verify_run` must find it; running the experiment again must end in the bits of
the run before, by training the damaged rounds alone, and verify must then find nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers import assert_same

from ltx.config.compose import compose
from ltx.experiment.execute import execute
from ltx.study.verify import verify_run

RUN = ("model.hidden=[16]", "replicates=2", "controls=[reinit]", "method.levels=2", "recipe.steps=30")
RUN += ("recipe.eval_every=10",)
Harm = Callable[[Path], object]


def flipped(share: float) -> Harm:
    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(share * (len(content) - 1))] ^= 4
        file.write_bytes(content)

    return flip


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_link(file: Path) -> None:
    moved = Path(tempfile.mkdtemp()) / "elsewhere"
    file.rename(moved)
    file.symlink_to(moved)


HARMS: dict[str, Harm] = {
    "a bit near the start": flipped(0.01),
    "a bit in the middle": flipped(0.5),
    "a bit near the end": flipped(0.99),
    "half": cut,
    "empty": emptied,
    "gone": Path.unlink,
    "another's content": lambda file: file.write_bytes(b"nonsense\n" * 40),
    "a folder": as_folder,
    "a pipe": as_pipe,
    "a link": as_link,
}


def cases(whole: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Every file of the run with every harm, and the files of rounds in each other's places."""
    tensors = sorted([*whole.glob("level_*/*/*.safetensors"), *whole.glob("weights/*")])
    for path in [
        *tensors,
        *(whole / f"{name}.csv" for name in ("levels", "curves", "layers", "masks", "costs", "size")),
    ]:
        name = path.relative_to(whole)
        for harm, do in HARMS.items():
            yield f"{name}: {harm}", lambda run, name=name, do=do: do(run / name)
    for name in ("manifest.json", "config.yaml"):
        for harm in ("a bit in the middle", "half", "empty", "gone", "another's content"):
            yield f"{name}: {harm}", lambda run, name=name, do=HARMS[harm]: do(run / name)
    rounds = [path.relative_to(whole) for path in tensors if path.parts[-3].startswith("level_")]
    for a in rounds:
        for b in rounds:
            if a != b:
                yield f"{a} <- {b}", lambda run, a=a, b=b: shutil.copy(run / b, run / a)


def tried(whole: Path, home: Path, harm: Callable[[Path], object]) -> str:
    """What is wrong after a harm; nothing if it was found and mended."""
    out = Path(tempfile.mkdtemp(dir=home))
    run = Path(shutil.copytree(whole, out / whole.parent.name / whole.name))
    harm(run)
    if (run / "manifest.json").exists() and not verify_run(run).broken:
        return "verify finds nothing"
    execute(compose([*RUN, f"out={out}"]))
    assert_same(run, whole)
    left = verify_run(run).broken
    shutil.rmtree(out)
    return f"not mended: {left[0]}" if left else ""


def main() -> int:
    torch.set_num_threads(1)
    failed = count = 0
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stderr(io.StringIO()):
            whole = execute(compose([*RUN, f"out={home}/whole"]))
        for name, harm in cases(whole):
            count += 1
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    why = tried(whole, Path(home), harm)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            if why:
                failed += 1
                print(f"{name}: {why.splitlines()[0]}", flush=True)
    print(
        f"{count} tried, {count - failed} held: found by ltx verify, and mended by the same command",
        flush=True,
    )
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
