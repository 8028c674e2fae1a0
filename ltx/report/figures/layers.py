"""How pruning spread over the layers, level by level."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ltx.report.figures import style
from ltx.report.figures.lines import title
from ltx.report.figures.style import COLOURS, DASHES, MARKERS
from ltx.report.layers import few
from ltx.report.runs import Experiment


def density_per_layer(experiments: Sequence[Experiment], summary: pd.DataFrame) -> Figure | None:
    """Percent of each layer's weights remaining in the tickets, level by level; None without layers."""
    shown, notes = few(experiments)
    layers = {e.name: e.table("layers") for e in shown}
    tables = {name: rows[rows.role == "ticket"] for name, rows in layers.items() if len(rows)}
    names = list(dict.fromkeys(name for table in tables.values() for name in table.layer))
    if not names:
        return None
    notes = ["A line ends where every weight of its layer is pruned.", *notes]
    if len(tables) > 1:
        notes.append("Mean over seeds.")
    blocks = -(-len(names) // 28)  # legend columns
    right = 0.2 + blocks * (0.55 + 0.07 * max(map(len, names)))
    height = max(2.6, 0.17 * -(-len(names) // blocks))
    figure, axes = style.sheet(
        *(title(summary), 1, len(tables)),
        height=height,
        below=style.below([], notes),
        right=right,
        names=[f"{name} tickets{', mean over seeds' if len(tables) == 1 else ''}" for name in tables],
    )
    colours = COLOURS if len(names) <= len(COLOURS) else style.viridis(len(names))
    for panel, table in zip(axes[0], tables.values(), strict=True):
        for place, name in enumerate(names):
            density = 100 * layer_density(table[table.layer == name])
            panel.plot(
                density.index, density.where(density > 0), label=name, color=colours[place],
                marker=MARKERS[place % len(MARKERS)], linestyle=DASHES[place % len(DASHES)],
                fillstyle="none",  # layers pruned alike stay visible behind each other
            )  # fmt: skip
        panel.set_xlabel("Level (times pruned)")
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    style.log_percent(axes[0, 0].yaxis)
    axes[0, 0].set_ylabel("Percent of the layer's weights remaining")
    style.footer(figure, [], notes)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="center right", ncols=blocks)
    return figure


def layer_density(rows: pd.DataFrame) -> pd.Series:
    """The density of one layer by level, over all seeds."""
    sums = rows.groupby("level")[["kept", "size"]].sum()
    return sums["kept"] / sums["size"]
