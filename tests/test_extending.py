"""What CONTRIBUTING.md says of adding things is all there is to do: its five files and lines, and an experiment."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
LINE = re.compile(r"`(ltx/[\w/]+\.py)`: `(.+?)`( before `(\w+)`)?")
FILE = re.compile(r"```python\n# (ltx/\S+\.py)\n(.*?)```", re.DOTALL)


def enlisted(text, line, name, module, before):
    """A list's file with an import and a line more."""
    text = re.sub(
        r"(\n\nfrom ltx|\nimport ltx|\nfrom ltx)", rf"\nfrom {module} import {name}\1", text, count=1
    )
    if line.startswith('"'):
        return re.sub(r"(: (?:dict|Mapping)\[str, \S+\] = \{\n)", rf"\1    {line}\n", text, count=1)
    return re.sub(
        rf"\b{before or 'Custom'}\b(?=[,)])(?=[^\n]*\),?\n)", f"{line} {before or 'Custom'}", text, count=1
    )


def test_five_files_and_five_lines_are_all_that_is_needed(tmp_path):
    for folder in ("ltx", "configs", "hydra_plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    files, lines = FILE.findall(PAGE), LINE.findall(PAGE)
    assert len(files) == len(lines) == 5
    for (path, code), (register, line, _, before) in zip(files, lines, strict=True):
        (tmp_path / path).write_text(code)
        name = re.search(r"\w+(?=,$)", line)[0]
        module = path.removesuffix(".py").replace("/", ".")
        there = tmp_path / register
        there.write_text(enlisted(there.read_text(), line, name, module, before))

    def run(*words):
        words = [
            "replicates=2",
            "model.hidden=[8]",
            "controls=[]",
            "method.levels=1",
            "recipe.steps=30",
            *words,
        ]
        argv = [sys.executable, "-m", "ltx", "run", *words, "recipe.eval_every=10"]
        env = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run("dataset=parity", "goal=margin", "method=early_mask", "method.at=10", "out=a")
    run("method=criterion", "method.score=relative_change", "out=b")
    (manifest,) = tmp_path.glob("a/*/*/manifest.json")
    told = json.loads(manifest.read_text())
    assert told["engine"] == "unfused"
    assert told["goal"]["name"] == "margin"
    assert told["dataset"] == "parity"
    assert told["method"] == "early_mask"
    levels = pd.read_csv(manifest.with_name("levels.csv"))
    assert levels[levels.level == 1].density.max() < 0.85
    assert list(tmp_path.glob("b/*/*/levels.csv"))
