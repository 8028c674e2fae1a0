"""The shape of the house: who may import whom, what no file may contain, and the frozen command line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ltx.cli import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "ltx"

# A module may import these modules of ltx and nothing else of it: imports run one way, so each file can be
# read knowing only what stands to its right. `package` stands for every module in it.
MAY_IMPORT = {
    "__init__": "",
    "__main__": "cli",
    "errors": "",
    "files": "errors",
    "status": "errors files",
    "watch": "errors status",
    "draw": "",
    "plugins": "errors",
    "recipe": "errors",
    "ticket": "recipe",
    "scores": "ticket task data recipe draw engine.feed",
    "prune": "ticket",
    "masks": "ticket",
    "shrink": "errors ticket",
    "checks": "errors ticket",
    "models": "errors plugins",
    "data": "errors plugins draw",
    "task": "data models draw errors recipe ticket",
    "controls": "draw task ticket",
    "methods": "controls draw errors prune recipe scores shrink task ticket",
    "energy": "",
    "engine": "checks data draw energy recipe shrink task ticket",
    "cost": "shrink task ticket",
    "store": "__init__ cost engine.train errors files masks task ticket",
    "loop": "checks controls engine methods.base recipe store task ticket",
    "line": "engine files ticket task data checks draw recipe errors store",
    "progress": "prune recipe task ticket",
    "objective": "errors recipe report",
    "tracking": "engine.train errors files plugins store task ticket",
    "config": "controls data draw errors methods models objective plugins recipe task tracking",
    "launch": "checks config engine errors files loop objective progress recipe status store task report tracking",
    "sweep": "config data errors launch report status tracking watch",
    "show": "errors config controls report status watch",
    "reopen": "config draw engine errors recipe store task ticket",
    "connect": "files reopen checks config engine errors launch line progress recipe report show store task ticket",
    "report": "errors files",
    "results": "errors objective reopen report show",
    "api": "config errors launch results",
    "cli": "errors __init__ launch sweep watch show report data connect",
}
# And of the world outside: no torch for a figure, no figure for torch.
MAY_NOT_LOAD = {
    "report": {"torch", "torchvision", "hydra", "omegaconf"},
    "results": {"torch", "torchvision", "hydra", "omegaconf"},
    "objective": {"torch", "torchvision", "hydra", "omegaconf"},
    "cli": {"torch", "hydra", "pandas", "matplotlib", "numpy", "rich"},
    "__init__": {"torch", "hydra", "typer"},
    "errors": {"torch", "hydra", "typer"},
    "files": {"torch", "hydra", "typer"},
    "status": {"torch", "hydra", "pandas", "typer", "rich"},
    "watch": {"torch", "hydra", "pandas", "typer"},
    "recipe": {"torch", "hydra"},
    "models": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer"},
    "data": {"hydra", "omegaconf", "matplotlib", "typer"},
    "methods": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer", "safetensors"},
    "engine": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer", "safetensors"},
}
MODULES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def owner(path):
    """The entry of the tables above that a file belongs to."""
    return path.parts[0].removesuffix(".py")


def imports(tree, *, inside_functions):
    """Dotted names of every module imported, outside `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from below if node.module == "ltx" else [node.module]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif inside_functions or not isinstance(node, ast.FunctionDef):
            yield from imports(node, inside_functions=inside_functions)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    tree, mine = ast.parse((SOURCE / path).read_text()), owner(path)
    assert mine in MAY_IMPORT, f"say in MAY_IMPORT what ltx/{path} may import"
    allowed = [mine, *MAY_IMPORT[mine].split()]
    for name in imports(tree, inside_functions=True):
        if name.split(".")[0] == "ltx":
            module = name.removeprefix("ltx").removeprefix(".").removesuffix(".__version__") or "__init__"
            module = "__init__" if module == "__version__" else module
            assert any(module == a or module.startswith(f"{a}.") for a in allowed), (
                f"ltx/{path} imports {name}"
            )


@pytest.mark.parametrize("path", [path for path in MODULES if owner(path) in MAY_NOT_LOAD], ids=str)
def test_what_is_heavy_stays_out(path):
    mine = owner(path)
    tree = ast.parse((SOURCE / path).read_text())
    loaded = {name.split(".")[0] for name in imports(tree, inside_functions=mine != "cli")}
    assert not loaded & MAY_NOT_LOAD[mine]


def test_cli_loads_only_errors_at_import():
    tree = ast.parse((SOURCE / "cli.py").read_text())
    ours = {name for name in imports(tree, inside_functions=False) if name.startswith("ltx")}
    assert ours == {"ltx.__version__", "ltx.errors"}


def test_a_configuration_is_not_a_program():
    for path in [*(ROOT / "configs").rglob("*.yaml"), *SOURCE.rglob("*.py")]:
        text = path.read_text()
        assert "instantiate(" not in text, path
        if path.name != "config.py":  # which refuses it
            assert "_target_" not in text, path


def test_nothing_but_tensors_is_loaded():
    """The one pickle is the publishers' CIFAR, compared with their checksum first."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert "torch.load" not in text, path
        assert path.name == "images.py" or "pickle" not in text, path


# What users type. Extending it is a line here; changing a line breaks somebody's script.
SURFACE = {
    "connect": "run --levels --steps --recalibrate --device",
    "data fetch": "names --root",
    "list": "",
    "plot": "paths --out --pdf --tolerance --by --where --interval --against",
    "run": "overrides",
    "show": "run",
    "status": "paths --follow",
    "sweep": "overrides --seeds-per-job",
    "table": "paths --tolerance --by --where --interval --against --only --format",
}


def surface(group, prefix=""):
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from surface(command, f"{prefix}{name} ")
        else:
            words = [p.opts[0] if p.param_type_name == "option" else p.name for p in command.params]
            yield f"{prefix}{name}", " ".join(words)


def test_the_command_line_is_frozen():
    assert dict(surface(typer.main.get_command(app))) == SURFACE


def test_help_loads_neither_torch_nor_hydra():
    code = (
        "import sys; sys.argv = ['ltx', '--help']\nfrom ltx.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'hydra', 'pandas', 'matplotlib', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
