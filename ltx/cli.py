"""The command line: parse, call, print. Heavy imports live inside the commands, so that help is instant."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ltx import __version__
from ltx.errors import Failed, Interrupted, UserError, demand, plain, shortened

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A laboratory for the lottery ticket hypothesis: train, prune, rewind, retrain.",
)

data = typer.Typer(no_args_is_help=True, help="Data sets.")
app.add_typer(data, name="data")

HYDRA = {"ignore_unknown_options": True}  # Hydra's own flags go through


def complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from ltx.sweep.launch import completions

    return completions([*(ctx.params.get("overrides") or []), *ctx.args], incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]... [HYDRA FLAGS]",
        help="for example config=mnist_lenet recipe.steps=2000 method=oneshot; --cfg job shows every key",
        autocompletion=complete,
        show_default=False,
    ),
]
Paths = Annotated[
    list[Path], typer.Argument(help="runs, or folders with runs below them", show_default=False)
]

Tolerance = Annotated[float, typer.Option(help="accuracy that a matching ticket may lack, as a fraction")]
By = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="what makes lines: method, recipe.lr, seed, ...; else found by itself"),
]
Where = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="only these: a setting, role, level or seed; a,b or 2..5"),
]
Interval = Annotated[bool, typer.Option("--interval", help="95 % intervals over seeds, not min to max")]
Against = Annotated[
    str | None, typer.Option(metavar="LINE", help="what is subtracted from every other line of its panel")
]


Trust = Annotated[
    bool, typer.Option("--trust", help="run the code that the folder's configuration names: model.path, ...")
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from ltx.engine.kernels.library import best

        build = best()
        typer.echo(f"ltx {__version__}, sparse kernels: {build.name if build else 'not compiled'}")
        raise typer.Exit


@app.command(context_settings=HYDRA)
def run(overrides: Overrides = None) -> None:
    """Run one experiment, or continue it; ends with its table and figures."""
    from ltx.sweep.launch import launch

    launch(overrides or [])


@app.command(context_settings=HYDRA)
def sweep(
    overrides: Overrides = None,
    seeds_per_job: Annotated[
        int | None, typer.Option(help="split each run's seeds into jobs of so many; else one job has all")
    ] = None,
) -> None:
    """Run every combination of values, as in method=imp,oneshot seed=0,5,10; here, on Slurm or on Ray."""
    from ltx.sweep.plan import sweep

    sweep(overrides or [], seeds_per_job)


@app.command()
def status(
    paths: Annotated[list[Path] | None, typer.Argument(help="else results", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until nothing is running any more")] = False,
) -> None:
    """Show how far sweeps and runs have come, from any shell or machine."""
    from ltx.sweep.watch import status

    status(paths or [Path("results")], follow)


@app.command(name="list")
def list_() -> None:
    """List the experiments, methods, models, datasets and controls that exist."""
    from ltx.study.show import catalogue

    catalogue()


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="a run's folder, or a ticket's file", show_default=False)],
) -> None:
    """Show what a finished or interrupted run is, or what a ticket's file holds."""
    from ltx.study.show import summary

    summary(run)


@app.command()
def plot(
    paths: Paths,
    out: Annotated[Path | None, typer.Option(help="where figures and tables of several runs go")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="also write PDF")] = False,
    tolerance: Tolerance = 0.0,
    by: By = None,
    where: Where = None,
    interval: Interval = False,
    against: Against = None,
) -> None:
    """Draw figures and tables of every run below the paths, compared."""
    from ltx.console import Console
    from ltx.report import draw

    check_tolerance(tolerance)
    how = {"tolerance": tolerance, "by": by, "where": where or (), "interval": interval, "against": against}
    Console().say(*draw(paths, out=out, pdf=pdf, **how))


@app.command()
def table(
    paths: Paths,
    tolerance: Tolerance = 0.0,
    by: By = None,
    where: Where = None,
    interval: Interval = False,
    against: Against = None,
    only: Annotated[str | None, typer.Option(help="means, matching or differences; else all")] = None,
    format: Annotated[
        str, typer.Option(help="text, csv (one part, else the means), markdown or latex")
    ] = "text",
) -> None:
    """Print the tables of every run below the paths: means, smallest matching tickets, paired differences."""
    from ltx.report import show

    check_tolerance(tolerance)
    how = {"tolerance": tolerance, "by": by, "where": where or (), "interval": interval, "against": against}
    show(paths, format, only, **how)


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no fraction; raises UserError."""
    demand(0 <= tolerance < 1, "--tolerance", tolerance, "it must lie in [0, 1)")


@app.command()
def ticket(
    run: Annotated[Path, typer.Argument(help="a run's folder", show_default=False)],
    out: Annotated[Path, typer.Option(help="the file to write, as in ticket.safetensors")],
    level: Annotated[int | None, typer.Option(help="which level's ticket")] = None,
    density: Annotated[
        float | None, typer.Option(help="or the one of so many weights, as a fraction")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="whose ticket; else the first seed's")] = None,
    role: Annotated[str, typer.Option(help="ticket, or a control")] = "ticket",
    draw: Annotated[int, typer.Option(help="which of a control's draws")] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="with its weights, if a seed draws them too")
    ] = False,
) -> None:
    """Write one ticket of a run as a small file of its own, to carry to another network, data set or program."""
    from ltx.study.ticket import pack

    written = pack(run, out, level=level, density=density, seed=seed, role=role, draw=draw, weights=weights)
    typer.echo(written)


@app.command()
def grade(
    paths: Paths,
    claims: Annotated[Path | None, typer.Option(help="a folder of claims; else those that ship")] = None,
    format: Annotated[str, typer.Option(help="text, markdown or json")] = "text",
) -> None:
    """Set runs beside what was published: a verdict on every claim that speaks of them."""
    from ltx.console import Console
    from ltx.report.grade import graded

    Console().pour(graded(paths, claims, format))


@data.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(help="data sets, as `ltx list` names them", show_default=False)
    ],
    root: Annotated[Path | None, typer.Option(help="where to put them, as dataset.root")] = None,
) -> None:
    """Download data sets now, for machines that will have no network later."""
    from ltx.console import Console
    from ltx.data import fetch_all

    Console().say(*fetch_all(names, root))


@app.command()
def connect(
    run: Annotated[Path, typer.Argument(help="a run's folder", show_default=False)],
    levels: Annotated[str | None, typer.Option(help="as in 0,7,16; else first, middle, last")] = None,
    steps: Annotated[str | None, typer.Option(help="as in 0,500,2ep; else the run's rewind step")] = None,
    recalibrate: Annotated[bool, typer.Option("--recalibrate", help="BatchNorm measured anew")] = False,
    device: Annotated[str | None, typer.Option(help="else the run's own")] = None,
    trust: Trust = False,
) -> None:
    """Linear mode connectivity: how SGD noise after step k decides what a run's networks become."""
    from ltx.console import Console
    from ltx.study.connect import connect

    out = connect(run, levels=levels, steps=steps, recalibrate=recalibrate, device=device, trust=trust)
    Console().pour((out / "connect.md").read_text(encoding="utf-8"))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run's folder", show_default=False)],
    to: Annotated[str, typer.Option(help="state_dict, safetensors, pt2, onnx or executorch")] = "pt2",
    density: Annotated[float | None, typer.Option(help="the level with this share of weights")] = None,
    level: Annotated[int | None, typer.Option(help="how often it was pruned; else the last level")] = None,
    matching: Annotated[
        bool, typer.Option("--matching", help="the sparsest that validates like the dense network")
    ] = False,
    role: Annotated[str, typer.Option(help="ticket, or a control")] = "ticket",
    seed: Annotated[int | None, typer.Option(help="else the run's first")] = None,
    masked: Annotated[bool, typer.Option("--masked", help="whole, with zeros where it is pruned")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="calibrated on training examples; onnx only")] = False,
    out: Annotated[Path | None, typer.Option(help="the file; else in the run's folder")] = None,
) -> None:
    """Write one network of a run as a file that needs no ltx: without what is dead in it, and with a card."""
    from ltx.study.export import Wish, export

    wish = Wish(density, level, matching, role, seed)
    for file in export(run, to, wish, masked=masked, as_int8=int8, out=out):
        typer.echo(file)


@app.command()
def bench(
    paths: Annotated[
        list[Path], typer.Argument(help="runs, and files that `ltx export` wrote", show_default=False)
    ],
    density: Annotated[float | None, typer.Option(help="the level with this share of weights")] = None,
    level: Annotated[int | None, typer.Option(help="how often it was pruned; else the last level")] = None,
    matching: Annotated[
        bool, typer.Option("--matching", help="the sparsest that validates like the dense network")
    ] = False,
    role: Annotated[str, typer.Option(help="ticket, or a control")] = "ticket",
    seed: Annotated[int | None, typer.Option(help="else the run's first")] = None,
    batch: Annotated[int, typer.Option(help="examples at once, for the throughput")] = 256,
    turns: Annotated[int, typer.Option(help="how often every form is visited")] = 20,
    out: Annotated[Path | None, typer.Option(help="the folder; else `bench` in the run's")] = None,
) -> None:
    """Measure a ticket in every form, dense to int8: accuracy, bytes, memory, latency, each beside dense."""
    from ltx.console import Console
    from ltx.report.forms import show
    from ltx.study.bench import bench
    from ltx.study.export import Wish

    wish = Wish(density, level, matching, role, seed)
    show(bench(paths, wish, batch=batch, turns=turns, out=out), Console())


@app.command()
def verify(
    paths: Paths,
    data: Annotated[
        bool, typer.Option("--data", help="measure accuracies again from the saved weights")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Check again, from the files alone, all that runs promise; exit code 1 if anything is broken."""
    from ltx.console import Console
    from ltx.study.findings import report
    from ltx.study.verify import verify

    findings = verify(paths, data=data)
    Console().pour(f"{report(findings, as_json=json)}\n")
    if broken := [str(found.run) for found in findings if found.broken]:
        raise Failed(f"broken promises in {', '.join(broken)}")


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="a run's folder", show_default=False)],
    other: Annotated[Path | None, typer.Option(help="another run on the same data")] = None,
    levels: Annotated[str | None, typer.Option(help="as in 0,7,16; else all")] = None,
    trust: Trust = False,
) -> None:
    """What tickets are: how far they agree with each other, with the dense network and with what they were cut from."""
    from ltx.console import Console
    from ltx.study.compare import compare

    Console().pour((compare(run, levels, other, trust=trust) / "compare.md").read_text(encoding="utf-8"))


STOPPED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 2, a failed job 1, a requested stop 130."""
    try:
        prepare()
        try:
            code = app(standalone_mode=False)
        finally:
            sys.stdout.flush()
        if code == STOPPED:  # the parser has caught Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        leave(str(error), 2)
    except BrokenPipeError:  # `| head` has seen enough
        leave("", 1)
    except OSError as error:  # a disk, a folder or a stream that is not as it should be
        name = f" {shortened(str(error.filename))}" if error.filename else ""
        leave(f"{error.strerror or error}{name}", 2)
    except Failed as error:
        leave(str(error), 1)
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stop:
        leave(str(stop) or "stopped", STOPPED)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        usage(error)


def prepare() -> None:
    """Make sure of what Python, torch and matplotlib take for granted; raises UserError."""
    # libgomp's threads spin while they wait: 300,000 turns, where another process needs the core. With 3,000 two
    # digits experiments side by side on 2 cores take 45 s instead of minutes, one alone 19 s instead of 17.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # read when torch is loaded
    os.environ["MPLBACKEND"] = "agg"  # figures are files
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working directory is gone; change into another") from None
    if "TORCH_LOGS" in os.environ:
        try:
            import torch  # noqa: F401
        except ValueError:
            raise UserError(
                f"TORCH_LOGS={os.environ['TORCH_LOGS']} is not possible: torch has no such log"
            ) from None


def usage(error: Any) -> NoReturn:
    """What the parser of the command line refused; where nothing was typed at all, the help that it made of that."""
    told = error.format_message()
    if "\n" in told:
        print(told)
        sys.exit(2)
    command = error.ctx.command_path if error.ctx else "ltx"
    leave(f"{told} `{command} --help` says what there is", 2)


def leave(line: str, code: int) -> NoReturn:
    """Say why on one line, and end the process, whose output may have nowhere to go."""
    with suppress(OSError):
        if line:
            print(f"ltx: {plain(' '.join(line.split()))}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at its end, and fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()
