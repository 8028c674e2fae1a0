"""Compiles the sparse kernels while ltx is installed; where that fails it is installed without them.

They are C for gcc and clang without Python's headers, loaded by ctypes: one wheel serves every Python.
`python hatch_build.py` compiles them in a checkout.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("ltx/engine/kernels/sparse.c")
TARGET = SOURCE.with_name("_sparse.abi3.so")  # a name that Python's import system looks for


class Kernels(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel" and compiled(Path(self.root)):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["artifacts"].append(str(TARGET))
            build_data["tag"], build_data["pure_python"] = f"py3-none-{platform}", False


def compiled(root: Path) -> bool:
    """Whether the C compiler, $CC or cc, has made the library."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = "-O3 -std=gnu11 -shared -fPIC -fvisibility=hidden -Wno-psabi".split()
    (root / TARGET).unlink(missing_ok=True)
    try:
        subprocess.run([*compiler, *flags, "-o", root / TARGET, root / SOURCE, "-lm"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"ltx: without its sparse kernels, for they were not compiled: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(not compiled(Path(__file__).parent))
