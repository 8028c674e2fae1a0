"""A command line taken apart: an experiment for this process, or words for Hydra, whose launchers call `job`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ltx.config.compose import checked, compose
from ltx.config.explain import first_line
from ltx.config.hydra import complete, read_flags
from ltx.config.registry import config_dir, register
from ltx.config.trust import search
from ltx.console import Console
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.files import read_json
from ltx.report.objective import objective

WITH_VALUE = (
    "-cd",
    "--config-dir",
    "-cn",
    "--config-name",
    "-cp",
    "--config-path",
    "-c",
    "--cfg",
    "-p",
    "--package",
)
"""Hydra's flags that are followed by a value."""


def launch(args: list[str]) -> None:
    """Run one experiment, or let Hydra show what it would be; raises UserError."""
    words = Words.of(args)
    several = ["--multirun"] if words.several else []
    several += [o for o in words.overrides if o.lstrip("+").startswith(("launcher=", "hydra.mode="))]
    if several:
        raise UserError(
            f"{several[0]} is not possible: `ltx run` trains one experiment here; `ltx sweep` launches several, "
            "here or elsewhere"
        )
    composed = compose(words.overrides, words.extra_dir)
    if words.shows:
        through_hydra(lambda config: None, [*search(words.extra_dir), *words.overrides], words.shows)
    else:
        finish(execute(composed))


@dataclass(frozen=True)
class Words:
    """A command line taken apart."""

    overrides: list[str]
    extra_dir: str | None  # the folder of the user's own experiments, -cd
    shows: list[str]  # flags with which Hydra shows something and runs nothing
    several: bool  # -m

    @classmethod
    def of(cls, args: list[str]) -> Words:
        """Raises UserError for a flag that Hydra has not, or that says what ltx alone says."""
        overrides: list[str] = []
        flags: list[str] = []
        for before, word in zip(["", *args], args, strict=False):  # argparse takes what stands in one stretch
            value = before in WITH_VALUE or (before == "--info" and "=" not in word)
            (flags if word.startswith("-") or value else overrides).append(word)
        extra_dir, shows, several = read_flags(flags)
        return cls(overrides, extra_dir, shows, several)


def job(config: DictConfig) -> float:
    """One job of a sweep, and its objective; of module level, for launchers send it elsewhere by its name."""
    runtime = HydraConfig.get().runtime
    os.chdir(runtime.cwd)  # a Ray cluster's workers begin where the cluster was started
    composed = replace(checked(config, runtime.choices), words=tuple(HydraConfig.get().overrides.task))
    return objective(execute(composed, logged=True), composed.run.objective)


def through_hydra(task: Callable[[DictConfig], Any], overrides: list[str], flags: list[str]) -> None:
    """Hand over to Hydra, which reads its arguments from sys.argv and calls `task`; raises UserError."""
    arguments, sys.argv = sys.argv, ["ltx", *overrides, *flags]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else it would tell of errors itself, and end the process
    try:
        register(overrides)
        hydra.main(version_base="1.3", config_path=config_dir(), config_name="ltx")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(first_line(error)) from error
    finally:
        sys.argv = arguments


def finish(folder: Path) -> None:
    """Draw the run's figures and print its table."""
    from ltx import report
    from ltx.report import grade
    from ltx.report.sizes import said

    console = Console()
    if read_json(folder / "manifest.json").get("goal", {}).get("measure", "accuracy") != "accuracy":
        console.say(f"tables: {folder}")  # figures are of accuracies
        return
    found = report.compare([folder])
    report.write(found)
    report.print_tables(found, console, ["means"])
    if sentence := said(folder):
        console.say(sentence)
    if verdicts := grade.grade([folder]):
        console.say(*grade.lines(verdicts))
    console.say(f"figures and tables: {folder}")


def completions(words: list[str], incomplete: str) -> list[str]:
    """Hydra's own completions of a half-typed override; bash hands `config=m` over as three words."""
    words, head = list(words), ""
    if words[-1:] == ["="]:  # config = m<TAB>
        words, head = words[:-2], words[-2] + "="
    elif words and "=" not in words[-1] and words[-1][0] not in "-~":  # config =<TAB>
        head = words.pop() + "="
    joined: list[str] = []
    for word in words:
        if word == "=" or (joined and joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    register()
    with initialize_config_dir(version_base="1.3", config_dir=config_dir()):
        found = complete(" ".join([*joined, head + incomplete]))
    return [word.removeprefix(head) for word in found]
