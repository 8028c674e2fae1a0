"""Names are text: no terminal, table, formula, page or path obeys what stands in them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ltx import console
from ltx.report import draw, escape

EVIL = r"we[/bold]$\frac{a$|<script>alert(1)</script>" + "\x1b]0;gone\x07\x1b[2J"


def build(folder: Path, config: str = "tiny", method: str = "imp") -> Path:
    """A run by hand: two seeds, two levels, tickets and one control."""
    folder.mkdir(parents=True)
    rows = [
        {
            "config": config, "method": method, "role": role, "draw": 0, "level": level, "seed": seed,
            "density": 0.5**level, "weights_remaining": 1000 * 0.5**level, "early_stop_step": 100,
            "early_stop_val_loss": 0.1, "early_stop_test_accuracy": 0.9 + seed / 100, "final_test_accuracy": 0.9,
            "final_train_accuracy": 1.0, "steps": 200, "seconds": 1.0, "diverged": 0,
        }
        for role in ("ticket", "reinit") for level in range(role != "ticket", 2) for seed in (0, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "levels.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps({"status": "complete"}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": {"name": method}, "seed": 0}))
    return folder


@pytest.mark.parametrize(
    ("write", "text", "expected"),
    [
        (console.plain, "a\x1b[31mb\rc\u202ed", r"a\x1b[31mb\rc\u202ed"),
        (console.plain, "übergröße – 9 ± 1 µ", "übergröße – 9 ± 1 µ"),
        (escape.markdown, "a|b <i>[x](http://y)*_z_", r"a\|b &lt;i&gt;\[x](http://y)\*\_z\_"),
        (escape.markdown, "channel_oneshot", "channel_oneshot"),
        (escape.latex, r"\input{x} $5 & 100%", r"\textbackslash{}input\{x\} \$5 \& 100\%"),
        (escape.html, "<b title='x'>", "&lt;b title=&#x27;x&#x27;&gt;"),
        (escape.cell, "=HYPERLINK(1)", "'=HYPERLINK(1)"),
        (escape.cell, "@x", "'@x"),
        (escape.cell, -0.5, -0.5),
    ],
)
def test_a_format_obeys_nothing_in_a_name(write, text, expected):
    assert write(text) == expected


@pytest.mark.parametrize(
    "name", ["..", "../../x", "/etc", ".", "", "a/../b", "x" * 5000, "a\0b", "CON\n", "~"]
)
def test_no_name_leaves_its_folder_or_is_too_long(name, tmp_path):
    place = escape.places([name])[name]
    assert not place.is_absolute()
    assert (tmp_path / place).resolve().is_relative_to(tmp_path)
    assert (tmp_path / place).resolve() != tmp_path
    (tmp_path / place).mkdir(parents=True)


def test_no_two_names_share_a_folder():
    names = ["a/x", "b/x", "A/x", "a|x", "a?x", "a_x", "..", "._"]
    assert len({str(place).casefold() for place in escape.places(names).values()}) == len(names)
    assert escape.places(["a/x", "digits_lenet"]) == {
        "a/x": Path("a/x"),
        "digits_lenet": Path("digits_lenet"),
    }


def test_experiments_of_one_last_name_have_figures_of_their_own(tmp_path):
    for place in ("a", "b"):
        build(tmp_path / place, config=f"{place}/x")
    files = draw([tmp_path], tmp_path / "out")
    assert len(set(files)) == len(files)
    assert (tmp_path / "out/a/x/accuracy_vs_sparsity.csv").exists()
    assert (tmp_path / "out/b/x/accuracy_vs_sparsity.csv").exists()


def test_a_name_of_every_kind_of_markup_is_shown_as_it_is(ltx, tmp_path):
    run = build(tmp_path / "run", config=EVIL)
    build(tmp_path / "other", config="=cmd()", method="[red]x")
    said = ltx("table", tmp_path)
    assert said.code == 0
    assert "\x1b" not in said.out
    assert r"we[/bold]$\frac{a$|<script>" in said.out
    assert ltx("plot", tmp_path, "--out", tmp_path / "out").code == 0
    pages = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.md"))
    assert "<script>" not in pages
    table = (tmp_path / "out" / "comparison.csv").read_text()
    assert "'=cmd()" in table
    assert ltx("plot", run).code == 0


def test_a_name_in_brackets_is_not_markup(ltx, tmp_path):
    for place, skip in enumerate(("[a]", "[b]")):
        build(tmp_path / skip, method="imp").joinpath("config.yaml").write_text(
            yaml.safe_dump({"method": {"name": "imp"}, "prunable": {"skip": skip}, "seed": place})
        )
    said = ltx("table", tmp_path, "--only", "matching")
    assert "[a]" in said.out
    assert "[b]" in said.out


@pytest.mark.parametrize("tolerance", ["nan", "-1", "inf", "1"])
def test_a_tolerance_is_a_fraction(ltx, tmp_path, tolerance):
    said = ltx("table", build(tmp_path / "a"), "--tolerance", tolerance)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"ltx: --tolerance={float(tolerance)} is not possible: it must lie in [0, 1)")


# Streams


def command(*words, **how):
    env = os.environ | {"PYTHONPATH": os.getcwd()} | how.pop("env", {})
    return subprocess.Popen([sys.executable, "-m", "ltx", *map(str, words)], env=env, **how)


def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path):
    run = build(tmp_path / "a")
    process = command("table", run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr as told:
        assert told.read() == b""
    assert process.wait() == console.GONE == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(tmp_path):
    run = build(tmp_path / "a")
    with open("/dev/full", "w") as full:
        process = command("table", run, "--format", "csv", stdout=full, stderr=subprocess.PIPE, text=True)
        with process.stderr as told:
            assert told.read() == "ltx: cannot write to standard output: No space left on device\n"
        assert process.wait() == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_progress_that_nobody_can_read_ends_nothing(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        told = console.Console(stderr=True)
        told.say("level 0")
        told.say("level 1")
        monkeypatch.undo()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_is_not_utf8_gets_the_nearest_signs(tmp_path, encoding):
    process = command(
        "table", build(tmp_path / "a"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PYTHONIOENCODING": encoding, "COLUMNS": "200"},
    )  # fmt: skip
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert ">= the dense mean" in out.decode(encoding)


@pytest.mark.parametrize(
    "settings", [{"MPLBACKEND": "nonsense"}, {"MATPLOTLIBRC": "usetex"}], ids=["backend", "matplotlibrc"]
)
def test_figures_do_not_depend_on_settings_of_matplotlib(tmp_path, settings):
    run = build(tmp_path / "a")
    drawn = {file: file.read_bytes() for file in draw([run]) if file.suffix == ".svg"}
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\n")
    if "MATPLOTLIBRC" in settings:
        settings = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    process = command("plot", run, env=settings, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert (process.communicate()[1], process.returncode) == (b"", 0)
    assert {file: file.read_bytes() for file in drawn} == drawn


def test_two_may_draw_one_folder_at_once(tmp_path):
    run = build(tmp_path / "a")
    both = [command("plot", run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 2
