"""The figures of one config, drawn and written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ltx.report.comparison import Comparison, Page
from ltx.report.figures import drawing, sparsity, style
from ltx.report.figures.channels import accuracy_vs_drawing_epoch, channels_per_layer, gammas, mask_distance
from ltx.report.figures.cost import accuracy_vs_cost
from ltx.report.figures.curves import learning_curves
from ltx.report.figures.features import feature_importance, feature_path, feature_selection
from ltx.report.figures.layers import density_per_layer
from ltx.report.figures.sparsity import accuracy_vs_sparsity, early_stop_vs_sparsity


def write(folder: Path, page: Page, kinds: Sequence[str]) -> list[Path]:
    """Draw into `folder` every figure for which there are numbers, in all `kinds` of files."""
    experiments, summary = page.experiments, page.summary
    drawn = summary[(summary.n > 0) & (summary.density > 0)]
    if drawn.empty:
        return []
    with drawing(style.STYLE):
        figures = {
            "accuracy_vs_sparsity": accuracy_vs_sparsity(drawn, page.general),
            "early_stop_vs_sparsity": early_stop_vs_sparsity(drawn, page.general),
            "learning_curves": learning_curves(experiments, drawn),
            "density_per_layer": density_per_layer(experiments, drawn),
            "accuracy_vs_cost": accuracy_vs_cost(experiments, drawn),
            "mask_distance": mask_distance(experiments, drawn),
            "accuracy_vs_drawing_epoch": accuracy_vs_drawing_epoch(experiments, drawn),
            "channels_per_layer": channels_per_layer(experiments, drawn),
            "gammas": gammas(experiments, drawn),
            "feature_path": feature_path(experiments, drawn),
            "feature_importance": feature_importance(experiments, drawn),
            "feature_selection": feature_selection(experiments, drawn),
        }
        return saved(folder, figures, kinds)


def write_comparison(folder: Path, comparison: Comparison, kinds: Sequence[str]) -> list[Path]:
    """Draw into `folder` what compares all configs, in as many figures as that takes."""
    summary, layout = comparison.summary, comparison.layout
    drawn = summary[(summary.n > 0) & (summary.density > 0)]
    if drawn.empty:
        return []
    keys = [key for key in layout.panels if drawn[key].nunique(dropna=False) > 1]
    with drawing(style.STYLE):
        figures = sparsity.comparison(drawn, layout.by, keys, comparison.notes)
        names = ["comparison", *(f"comparison_{place}" for place in range(2, len(figures) + 1))]
        return saved(folder, dict(zip(names, figures, strict=True)), kinds)


def saved(folder: Path, figures: Mapping[str, Figure | None], kinds: Sequence[str]) -> list[Path]:
    """The files of the figures that there are."""
    return [
        file
        for name, figure in figures.items()
        if figure is not None
        for file in style.save(figure, folder / name, kinds)
    ]
