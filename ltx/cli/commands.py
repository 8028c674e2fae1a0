"""The commands: parse, call, print. Heavy imports live inside them, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltx import __version__
from ltx.errors import demand

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


@app.command()
def report(
    paths: Paths,
    out: Annotated[Path | None, typer.Option(help="the file; else report.html beside the runs")] = None,
) -> None:
    """Write one HTML page of every run below the paths: the answer, charts, tables, checks, how to repeat it."""
    from ltx.console import Console
    from ltx.report.html import write

    Console().say(write(paths, out))


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no fraction; raises UserError."""
    demand(0 <= tolerance < 1, "--tolerance", tolerance, "it must lie in [0, 1)")


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
def clean(
    paths: Paths,
    figures: Annotated[bool, typer.Option("--figures", help="figures too: they can be drawn again")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do it; else it is only said")] = False,
) -> None:
    """Free what tables do not need of complete runs: the tensors of all rounds."""
    from ltx.console import Console
    from ltx.study.clean import clean

    Console().say(*clean(paths, figures=figures, yes=yes))
