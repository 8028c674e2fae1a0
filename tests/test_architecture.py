"""The shape of the house: who may import whom, what no file may contain, and the frozen command line."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ltx.cli import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "ltx"

# The house has floors: a module imports from lower floors and from its own folder, nothing else, what is imported
# for types alone included. So each file can be read knowing only what stands below it.
FLOORS = [
    "errors",
    "files schema plugins knobs console",
    "manifest streams",
    "data models report",
    "core",
    "pruning",
    "engine methods",
    "config",
    "experiment",
    "sweep",
    "study",
    "results",
    "api estimators",
    "cli",
    "__main__ __init__",
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
# And of the world outside: no torch for a figure, no figure for torch.
MAY_NOT_LOAD = {
    "report": {"torch", "torchvision", "hydra", "omegaconf"},
    "results": {"torch", "torchvision", "hydra", "omegaconf"},
    "cli": {"torch", "hydra", "pandas", "matplotlib", "numpy", "rich"},
    "__init__": {"torch", "hydra", "typer"},
    "errors": {"torch", "hydra", "typer"},
    "files": {"torch", "hydra", "typer", "pandas"},
    "schema": {"torch", "hydra", "typer", "pandas"},
    "manifest": {"torch", "hydra", "typer", "pandas"},
    "plugins": {"torch", "hydra", "typer"},
    "knobs": {"torch", "hydra", "typer"},
    "experiment/status.py": {"torch", "hydra", "pandas", "typer", "rich"},
    "sweep/watch.py": {"torch", "hydra", "pandas", "typer"},
    "core": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer"},
    "pruning": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer"},
    "models": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer"},
    "data": {"hydra", "omegaconf", "matplotlib", "typer"},
    "methods": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer", "safetensors"},
    "engine": {"hydra", "omegaconf", "pandas", "matplotlib", "rich", "typer", "safetensors"},
}
MODULES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def owner(path):
    """The file or folder of ltx/ that a module belongs to."""
    return path.parts[0].removesuffix(".py")


def imports(tree, *, inside_functions, typing=True):
    """Dotted names of everything imported, `typing`: for types alone too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            continue
        elif inside_functions or not isinstance(node, ast.FunctionDef):
            yield from imports(node, inside_functions=inside_functions, typing=typing)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_down(path):
    mine = owner(path)
    for name in imports(ast.parse((SOURCE / path).read_text()), inside_functions=True):
        if name.startswith("ltx.") and name != "ltx.__version__":
            theirs = name.split(".")[1]
            assert theirs == mine or FLOOR[theirs] < FLOOR[mine], f"ltx/{path} looks up to {name}"


def kept_out(path):
    """What a module must not load."""
    return MAY_NOT_LOAD.get(str(path), MAY_NOT_LOAD.get(owner(path), set()))


@pytest.mark.parametrize("path", [path for path in MODULES if kept_out(path)], ids=str)
def test_what_is_heavy_stays_out(path):
    mine = owner(path)
    tree = ast.parse((SOURCE / path).read_text())
    loaded = {name.split(".")[0] for name in imports(tree, inside_functions=mine != "cli", typing=False)}
    assert not loaded & kept_out(path)


def test_cli_loads_only_errors_at_import():
    trees = [ast.parse(path.read_text()) for path in (SOURCE / "cli").glob("*.py")]
    names = [name for tree in trees for name in imports(tree, inside_functions=False)]
    ours = {name.rsplit(".", 1)[0] for name in names if name.startswith("ltx")}
    assert ours == {"ltx", "ltx.cli", "ltx.errors", "ltx.cli.commands", "ltx.cli.process"}


def test_a_configuration_is_not_a_program():
    for path in [*(ROOT / "configs").rglob("*.yaml"), *SOURCE.rglob("*.py")]:
        text = path.read_text()
        assert "instantiate(" not in text, path
        if "config" not in path.parts:  # which refuses it
            assert "_target_" not in text, path


def test_nothing_but_tensors_is_loaded():
    """Of a state dict, tensors alone. Pickles are the publishers' CIFAR, compared with their checksum first, and
    what goes between a run and its own lanes over a pair of sockets that nobody else has."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert (
            text.count("torch.load(") == text.count("weights_only=True)") == (path.name == "pretrained.py")
        ), path
        assert path.name in ("images.py", "lane.py", "lanes.py") or "pickle" not in text, path


# What users type. Extending it is a line here; changing a line breaks somebody's script.
SURFACE = {
    "bench": "paths --density --level --matching --role --seed --batch --turns --out",
    "clean": "paths --figures --yes",
    "compare": "run --other --levels --trust",
    "connect": "run --levels --steps --recalibrate --device --trust",
    "data fetch": "names --root",
    "export": "run --to --density --level --matching --role --seed --masked --int8 --out",
    "grade": "paths --claims --format",
    "list": "",
    "plot": "paths --out --pdf --tolerance --by --where --interval --against",
    "report": "paths --out",
    "run": "overrides",
    "show": "run",
    "status": "paths --follow",
    "sweep": "overrides --seeds-per-job",
    "ticket": "run --out --level --density --seed --role --draw --weights",
    "verify": "paths --data --json",
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


def test_the_readme_draws_the_house_as_it_is():
    code = "import map, sys; page = open('README.md').read(); sys.exit(map.drawn(page) != page)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "docs"}, check=False)
    assert done.returncode == 0, "draw it again: python docs/map.py"


def functions(path):
    """Every function of a file with the lines of its body, its documentation apart."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            said = ast.get_docstring(node) is not None and len(node.body) > 1
            yield node, node.end_lineno - node.body[said].lineno + 1


def test_files_and_functions_are_short():
    sources = [*SOURCE.rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    assert [path.name for path in sources if len(path.read_text().splitlines()) > 300] == []
    found = [
        (f"{path.name}: {node.name}", node, lines) for path in sources for node, lines in functions(path)
    ]
    assert [name for name, node, _ in found if node.end_lineno - node.lineno >= 60] == []
    assert statistics.median(lines for _, _, lines in found) <= 8
