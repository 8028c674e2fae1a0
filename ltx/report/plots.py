"""The figures of one config, drawn and written."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from ltx.report import style
from ltx.report.channels import accuracy_vs_drawing_epoch, channels_per_layer, gammas, mask_distance
from ltx.report.cost import accuracy_vs_cost
from ltx.report.curves import learning_curves
from ltx.report.layers import density_per_layer
from ltx.report.runs import Experiment
from ltx.report.sparsity import accuracy_vs_sparsity, early_stop_vs_sparsity


def write(
    folder: Path, experiments: Sequence[Experiment], summary: pd.DataFrame, kinds: Sequence[str]
) -> list[Path]:
    """Draw into `folder` every figure for which there are numbers, in all `kinds` of files."""
    drawn = summary[(summary.n > 0) & (summary.density > 0)]
    if drawn.empty:
        return []
    with matplotlib.rc_context(style.STYLE):
        figures = {
            "accuracy_vs_sparsity": accuracy_vs_sparsity(drawn),
            "early_stop_vs_sparsity": early_stop_vs_sparsity(drawn),
            "learning_curves": learning_curves(experiments, drawn),
            "density_per_layer": density_per_layer(experiments, drawn),
            "accuracy_vs_cost": accuracy_vs_cost(experiments, drawn),
            "mask_distance": mask_distance(experiments, drawn),
            "accuracy_vs_drawing_epoch": accuracy_vs_drawing_epoch(experiments, drawn),
            "channels_per_layer": channels_per_layer(experiments, drawn),
            "gammas": gammas(experiments, drawn),
        }
        return [
            file
            for name, figure in figures.items()
            if figure is not None
            for file in style.save(figure, folder / name, kinds)
        ]
