"""Where numbers come from: the machine, the versions, the code; nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ltx import __version__


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know about where numbers came from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "versions": {"ltx": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "commit": commit(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """The git commit of the code, with a + if it was changed since; None outside a checkout."""
    here = Path(__file__).parent.parent
    try:
        if not (here.parent / ".git").exists():
            return None
        changed = git(here, "status", "--porcelain", "--", ".")
        return git(here, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(folder: Path, *words: str) -> str:
    """What git answers in a folder, when neither the environment nor a configuration may have it run programs."""
    settings = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "safe.directory=*")
    own = [word for setting in settings for word in ("-c", setting)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    nothing = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", *own, *words], cwd=folder, env=clean | nothing, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
