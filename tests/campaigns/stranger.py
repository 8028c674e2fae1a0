"""What a stranger's run folder may do to its reader: nothing. `python tests/campaigns/stranger.py`.

Each attack is laid into a copy of a run, which is then shown, plotted, tabulated, loaded, verified, connected and run
again in forked children. Nothing of the folder may be executed, no file outside of it may change, no command may hang
or end in a traceback, and no escape sequence may reach the terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import ltx
from ltx import cli
from ltx.config.compose import compose
from ltx.experiment.execute import execute
from ltx.study import connect, verify  # noqa: F401 (loaded once, for all children)

RUN = ("model.hidden=[16]", "replicates=2", "controls=[reinit]", "method.levels=1", "recipe.steps=20")
RUN += ("recipe.eval_every=10",)
SECONDS = 60
"""Of the clock: the machine may be shared."""
Attack = Callable[[Path, Path], object]


def put(name: str, content: bytes | str) -> Attack:
    """Another content for a file."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda run, victim: (run / name).write_bytes(raw)


def link(name: str, *, folder: bool = False) -> Attack:
    """A link to the victim, or to its folder, in the place of a file or folder."""

    def lay(run: Path, victim: Path) -> None:
        place = run / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(victim.parent if folder else victim)

    return lay


def pipe(name: str) -> Attack:
    return lambda run, victim: ((run / name).unlink(), os.mkfifo(run / name))


def config(group: str, text: str) -> Attack:
    """A group of config.yaml replaced."""

    def lay(run: Path, victim: Path) -> None:
        lines = (run / "config.yaml").read_text().splitlines(keepends=True)
        first = next(n for n, line in enumerate(lines) if line.startswith(f"{group}:"))
        last = next((n for n in range(first + 1, len(lines)) if lines[n][0] not in " -"), len(lines))
        (run / "config.yaml").write_text("".join([*lines[:first], f"{group}: {text}\n", *lines[last:]]))

    return lay


def named(name: str) -> Attack:
    """Another name of the experiment, in all tables and the manifest."""

    def lay(run: Path, victim: Path) -> None:
        rows = (run / "levels.csv").read_text().replace("digits_lenet,", f'"{name}",')
        (run / "levels.csv").write_text(rows)
        said = json.loads((run / "manifest.json").read_text())
        (run / "manifest.json").write_text(json.dumps(said | {"config": name, "network": name}))

    return lay


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
TEMPORARY = ("levels.csv", "manifest.json", "status.json", "config.yaml", "accuracy_vs_sparsity.md")

ATTACKS: dict[str, Attack] = {
    "code as the model": config("model", "{name: custom, path: 'evil_ltx:net'}"),
    "code as the data set": config("dataset", "{name: custom, path: 'evil_ltx:data'}"),
    "os:abort as the data set": config("dataset", "{name: custom, path: 'os:abort'}"),
    "a python tag in YAML": put("config.yaml", "model: !!python/object/apply:os.abort []\n"),
    "a resolver in YAML": config("out", "${oc.env:HOME}"),
    "an alias bomb": put("config.yaml", BOMB),
    "a list that holds itself": put("config.yaml", "model: &a [*a]\n"),
    "YAML 20,000 deep": put("config.yaml", "model: " + "[" * 20_000 + "]" * 20_000),
    "YAML of 20 MB": put("config.yaml", "#" * (20 << 20)),
    "manifest 100,000 deep": put("manifest.json", "[" * 100_000 + "]" * 100_000),
    "manifest a list": put("manifest.json", "[]"),
    "manifest of 5,000 digits": put("manifest.json", '{"seconds": 1' + "0" * 5000 + "}"),
    "manifest NaN": put("manifest.json", '{"seconds": NaN}'),
    "manifest of other types": put(
        "manifest.json", '{"seeds": 3, "versions": [], "checks": "x", "files": []}'
    ),
    "manifest names files outside": put("manifest.json", '{"schema": 2, "files": {"../../victim": "0"}}'),
    "status 100,000 deep": put("status.json", "[" * 100_000 + "]" * 100_000),
    "status of other types": put("status.json", '{"state": [], "updated": "x", "level": {}}'),
    "sweep without jobs": put("sweep.json", "{}"),
    "sweep of a number": put(
        "sweep.json", '{"launcher": "local", "jobs": [{"overrides": 3, "folder": "x"}]}'
    ),
    "table not UTF-8": put("levels.csv", b"\xff\xfe\x00"),
    "header of 4 GB": put("level_01/ticket/trained.safetensors", b"\xff\xff\xff\xff\x00\x00\x00\x00{}"),
    "header 100,000 deep": put(
        "level_01/ticket/ticket.safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000
    ),
    **{
        f"a pipe for {name}": pipe(name)
        for name in ("levels.csv", "manifest.json", "config.yaml", "curves.csv")
    },
    "a pipe for a tensor file": pipe("level_01/ticket/trained.safetensors"),
    **{
        f"a link for {name}": link(name)
        for name in ("levels.csv", "manifest.json", "config.yaml", "status.json")
    },
    **{f"a link for .{name}.tmp": link(f".{name}.tmp") for name in TEMPORARY},
    "a link for the lock": link(".lock"),
    "a link for the log": link("log.txt"),
    "a link for a level": link("level_00", folder=True),
    "a link for a round": link("level_01/ticket", folder=True),
    "a link for the weights": link("weights", folder=True),
    "a name that is a formula": named("=HYPERLINK(1)"),
    "a name that is HTML": named("<script>alert(1)</script>"),
    "a name that is markup": named("[/bold]x"),
    "a name that is mathtext": named("$\\\\frac{a$"),
    "a name that leads out": named("../../.."),
    "a name with escapes": named("\x1b]0;owned\x07x"),
}
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "show": lambda run: ["show", str(run)],
    "status": lambda run: ["status", str(run)],
    "table": lambda run: ["table", str(run)],
    "plot": lambda run: ["plot", str(run)],
    "verify": lambda run: ["verify", str(run)],
    "connect": lambda run: ["connect", str(run), "--levels", "0"],
    "run": lambda run: ["run", *RUN, f"out={run.parents[1]}"],
}


def child(words: list[str], home: Path) -> tuple[int, str]:
    """What a command says in a forked process, and its exit code; -1 if it hangs."""
    said = home / "said"
    if not (number := os.fork()):
        os.chdir(home)
        sink = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        signal.alarm(SECONDS)
        sys.argv = ["ltx", *words]
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return code, said.read_text(errors="replace")


def tried(whole: Path, home: Path, lay: Attack) -> list[str]:
    """What an attack has achieved, by command."""
    out, victim, mark = home / "out", home / "outside" / "victim", home / "PWNED"
    run = Path(shutil.copytree(whole, out / whole.parent.name / whole.name))
    victim.parent.mkdir()
    victim.write_text("precious")
    (home / "evil_ltx.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    lay(run, victim)
    achieved = []
    for name, words in COMMANDS.items():
        code, said = child(words(run), home)
        if code < 0 or code == 99:
            achieved.append(
                f"{name}: {'it hangs or is killed' if code < 0 else said.strip().splitlines()[-1][:120]}"
            )
        if mark.exists():
            achieved.append(f"{name}: its code was run")
        if victim.read_text() != "precious" or len(list(victim.parent.iterdir())) > 1:
            achieved.append(f"{name}: a file outside was written")
        if "\x1b]" in said or "\x07" in said:
            achieved.append(f"{name}: an escape sequence was printed")
        if strays := [path.name for path in out.iterdir() if path != run.parent]:
            achieved.append(f"{name}: {strays} beside the run")
        if achieved:
            break
    return achieved


def main(*chosen: str) -> int:
    torch.set_num_threads(1)
    failed = count = 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = execute(compose([*RUN, f"out={scratch}/whole"]))
        ltx.load(whole).draw()  # matplotlib is loaded once
        for name, lay in ATTACKS.items():
            if chosen and not any(word in name for word in chosen):
                continue
            count += 1
            home = Path(tempfile.mkdtemp(dir=scratch))
            achieved = tried(whole, home, lay)
            shutil.rmtree(home, ignore_errors=True)
            failed += bool(achieved)
            for line in achieved:
                print(f"{name}: {line}", flush=True)
    print(f"{count} tried, {count - failed} held: a stranger's folder achieved nothing")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
