"""The commands that ask something of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltx.cli.commands import Paths, Trust, app
from ltx.errors import Failed


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
        bool, typer.Option("--data", help="measure losses and accuracies again from the saved weights")
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
