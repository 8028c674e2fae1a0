"""Figures and tables of finished, running and interrupted runs, from their csv files alone: no torch here."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ltx.errors import UserError
from ltx.report import cost, masks
from ltx.report.runs import Experiment, find_runs, pool, read_run
from ltx.report.stats import summarize
from ltx.report.tables import markdown, print_table

__all__ = ["draw", "find_runs", "print_table", "table"]


def draw(
    paths: Sequence[Path], out: Path | None = None, pdf: bool = False, tolerance: float = 0.0
) -> list[Path]:
    """Write the figures and tables of the runs at or below `paths`, and return the files.

    One run is drawn into its own folder, several into their common parent, unless `out` says where; several
    configs get a folder each. `tolerance` is a fraction of accuracy. UserError if there is nothing to draw.
    """
    from ltx.report import plots  # matplotlib costs a quarter of a second that a table need not pay

    runs = find_runs(paths)
    folder = out or Path(os.path.commonpath([run.resolve() for run in runs]))
    configs = read(runs)
    files = []
    for config, experiments in configs.items():
        place = folder / Path(config).name if len(configs) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        summary = summarize(experiments)
        summary.to_csv(
            place / "accuracy_vs_sparsity.csv", index=False, float_format="%.10g", lineterminator="\n"
        )
        text = markdown(summary, tolerance, [note for e in experiments for note in e.notes])
        text += masks.markdown(experiments)
        text += cost.markdown(experiments, summary)
        (place / "accuracy_vs_sparsity.md").write_text(text, encoding="utf-8")
        files += [place / f"accuracy_vs_sparsity.{kind}" for kind in ("csv", "md")]
        files += plots.write(place, experiments, summary, ["png", "svg", *(["pdf"] if pdf else [])])
    return files


def table(runs: Path | Sequence[Path]) -> pd.DataFrame:
    """The summary of the runs at or below `runs`: one row per line and level, as in `stats.summarize`."""
    configs = read(find_runs([runs] if isinstance(runs, Path) else runs))
    summary = pd.concat([summarize(experiments) for experiments in configs.values()], ignore_index=True)
    summary.attrs["notes"] = {
        config: [note for experiment in experiments for note in experiment.notes]
        for config, experiments in configs.items()
    }
    return summary


def read(folders: Sequence[Path]) -> dict[str, list[Experiment]]:
    """The experiments of every config; a UserError if no network has been trained yet."""
    runs = [run for run in map(read_run, folders) if len(run.levels)]
    if not runs:
        raise UserError(f"no network has been trained yet in {', '.join(map(str, folders))}")
    return pool(runs)
