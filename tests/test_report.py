"""Figures and tables say what the csv files of a run say, and nothing else."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import yaml

from ltx.console import Console
from ltx.errors import UserError
from ltx.report import compare, draw, find_runs, print_tables, table
from ltx.report.figures import drawing, style
from ltx.report.figures.curves import learning_curves
from ltx.report.figures.layers import density_per_layer
from ltx.report.figures.sparsity import accuracy_vs_sparsity, early_stop_vs_sparsity
from ltx.report.stats import band, matching
from ltx.report.tables import captions, means, percent

FIGURES = ["accuracy_vs_sparsity", "early_stop_vs_sparsity", "learning_curves", "density_per_layer"]
TABLES = {f"accuracy_vs_sparsity.{kind}" for kind in ("csv", "md", "tex")} | {"differences.csv"}
FILES = TABLES | {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}

# (role, draw, level, seed): accuracy at early stop, early-stop step. The dense mean is 0.95.
NETWORKS = {
    ("ticket", 0, 0, 0): (0.94, 300), ("ticket", 0, 0, 1): (0.96, 500),
    ("ticket", 0, 1, 0): (0.95, 200), ("ticket", 0, 1, 1): (0.98, 300),
    ("reinit", 0, 1, 0): (0.90, 400), ("reinit", 0, 1, 1): (0.91, 600),
    ("reinit", 1, 1, 0): (0.92, 500), ("reinit", 1, 1, 1): (0.95, 700),
    ("ticket", 0, 2, 0): (0.93, 100), ("ticket", 0, 2, 1): (0.95, 100),
    ("reinit", 0, 2, 0): (0.80, 800), ("reinit", 0, 2, 1): (0.10, 100),
    ("reinit", 1, 2, 0): (0.84, 900), ("reinit", 1, 2, 1): (0.85, 700),
}  # fmt: skip
DIVERGED = ("reinit", 0, 2, 1)


def build(
    folder: Path, *, method: str = "imp", seeds: tuple[int, ...] = (0, 1), shift: float = 0.0, **settings
) -> Path:
    """A run by hand: two seeds, densities 1, 0.5 and 0.05, two draws of reinit; one network diverged."""
    folder.mkdir(parents=True)
    levels, curves, layers = [], [], []
    for (role, drawn, level, seed), (accuracy, step) in NETWORKS.items():
        if seed not in seeds:
            continue
        name = {"role": role, "draw": drawn, "level": level, "seed": seed}
        density = (1.0, 0.5, 0.05)[level]
        levels.append({
            "config": "tiny", "method": method, **name,
            "density": density, "weights_remaining": round(1000 * density),
            "early_stop_step": step, "early_stop_val_loss": 0.1, "early_stop_test_accuracy": accuracy + shift,
            "final_test_accuracy": accuracy - 0.01, "final_train_accuracy": 1.0,
            "steps": 1000, "seconds": 1.5, "diverged": int((role, drawn, level, seed) == DIVERGED),
        })  # fmt: skip
        for at in (0, 500, 1000):
            value = 0.1 + (accuracy - 0.1) * at / 1000
            curves.append({**name, "step": at, "train_loss": 1.0, "val_loss": 1 - value,
                           "val_accuracy": value, "test_accuracy": value})  # fmt: skip
        for layer, size in (("fc1", 900), ("fc2", 100)):
            layers.append(
                {
                    **name,
                    "layer": layer,
                    "kind": "dense",
                    "size": size,
                    "kept": round(size * density) - seed * (level > 0),
                }
            )
    for name, rows in (("levels", levels), ("curves", curves), ("layers", layers)):
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "manifest.json").write_text(
        json.dumps({"status": "complete", "config": "tiny", "method": method})
    )
    config = {
        "method": {"name": method},
        "recipe": {"lr": 0.1},
        "seed": seeds[0],
        "replicates": len(seeds),
        **settings,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path / "run")


def row(summary: pd.DataFrame, line: str, level: int) -> pd.Series:
    (found,) = summary.index[(summary.line == line) & (summary.level == level)]
    return summary.loc[found]


def figures(run: Path) -> dict[str, matplotlib.figure.Figure]:
    (page,) = compare([run]).pages
    experiments, drawn = page.experiments, page.summary[page.summary.n > 0]
    with drawing(style.STYLE):
        return {
            "accuracy": accuracy_vs_sparsity(drawn),
            "step": early_stop_vs_sparsity(drawn),
            "curves": learning_curves(experiments, drawn),
            "layers": density_per_layer(experiments, drawn),
        }


# Numbers


def test_the_summary_holds_means_and_ranges_of_the_networks_that_did_not_diverge(run):
    summary = table(run)
    assert list(zip(summary.line, summary.level, strict=True)) == [
        *(("ticket", 0), ("ticket", 1), ("ticket", 2), ("reinit", 1), ("reinit", 2))
    ]
    ticket = row(summary, "ticket", 1)
    assert ticket.early_stop_test_accuracy_mean == pytest.approx(0.965)
    assert (ticket.early_stop_test_accuracy_min, ticket.early_stop_test_accuracy_max) == (0.95, 0.98)
    assert ticket.early_stop_test_accuracy_std == pytest.approx(0.0212132)
    assert ticket.final_test_accuracy_mean == pytest.approx(0.955)
    assert ticket.early_stop_step_mean == 250
    assert (ticket.n, ticket.density, ticket.weights_remaining) == (2, 0.5, 500)

    reinit = row(summary, "reinit", 2)
    assert (reinit.n, reinit.diverged, reinit.seeds, reinit.draws) == (3, 1, 2, 2)
    assert reinit.early_stop_test_accuracy_mean == pytest.approx(0.83)
    assert (reinit.early_stop_test_accuracy_min, reinit.early_stop_step_max) == (0.80, 900)


def test_the_smallest_matching_ticket_depends_on_the_tolerance(run):
    summary = table(run)
    ticket, reinit = matching(summary)
    assert (ticket.line, ticket.smallest["level"], ticket.unbroken["level"]) == ("ticket", 1, 1)
    assert reinit.smallest is None
    assert reinit.unbroken is None
    assert matching(summary, 0.01)[0].smallest["level"] == 2  # 0.94 against 0.95 - 0.01
    assert matching(summary, 0.03)[1].smallest["level"] == 1


def test_a_gap_above_the_smallest_matching_ticket_is_told(run):
    summary = compare([run]).pages[0].summary
    summary.loc[(summary.line == "ticket") & (summary.level == 1), "early_stop_test_accuracy_mean"] = 0.9
    summary.loc[(summary.line == "ticket") & (summary.level == 2), "early_stop_test_accuracy_mean"] = 0.95
    ticket = matching(summary)[0]
    assert (ticket.smallest["level"], ticket.unbroken) == (2, None)
    assert any("not every level above it matches" in caption for caption in captions(summary))


def test_a_line_of_which_every_network_diverged_has_no_mean(run):
    text = (run / "levels.csv").read_text().splitlines()
    text = [line[:-1] + "1" if ",ticket,0,2," in line else line for line in text]
    (run / "levels.csv").write_text("\n".join(text) + "\n")
    summary = compare([run]).pages[0].summary
    assert row(summary, "ticket", 2).n == 0
    assert pd.isna(row(summary, "ticket", 2).early_stop_test_accuracy_mean)
    assert means(summary)[0].rows[2][:3] == ("5.0", "50", "diverged")
    assert matching(summary)[0].smallest["level"] == 1
    assert figures(run)["accuracy"].axes[0].containers[0].lines[0].get_xdata().tolist() == [100, 50]


def censor(run: Path, *levels: int) -> None:
    """Let the networks of these levels have their least validation loss at the last step."""
    table = pd.read_csv(run / "levels.csv")
    here = table.level.isin(levels)
    table.loc[here, "early_stop_step"] = 1000
    table.loc[here, "early_stop_test_accuracy"] = table.final_test_accuracy[here]
    table.to_csv(run / "levels.csv", index=False)


def test_networks_that_were_still_improving_at_the_last_step_are_counted(run):
    censor(run, 2)
    summary = table(run)  # levels.csv has no column of it: the curves end at step 1000
    assert summary.censored.tolist() == [0, 0, 2, 0, 3]
    assert summary.networks.tolist() == [2, 2, 2, 4, 3]
    draw([run])
    text = (run / "accuracy_vs_sparsity.md").read_text()
    assert "Censored: 5 of 13 networks (38 %) were still improving at the last step" in text
    assert "| 5.0 | 50 | ≥ 1,000 (1,000..1,000) | ≥ 1,000 (1,000..1,000), n = 3 |" in text
    (panel,) = figures(run)["step"].axes
    hollow = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata().tolist() for line in hollow] == [[5], [5]]


def test_a_column_of_its_own_says_who_is_censored(run):
    levels = pd.read_csv(run / "levels.csv")
    levels.assign(censored=1).to_csv(run / "levels.csv", index=False)
    assert table(run).censored.tolist() == [2, 2, 2, 4, 3]


def test_who_is_censored_is_not_known_without_a_column_or_curves(run):
    (run / "curves.csv").unlink()
    censor(run, 0, 1, 2)
    assert table(run).censored.tolist() == [0] * 5


def test_where_nearly_all_are_censored_there_is_one_panel_and_no_figure_of_steps(run):
    censor(run, 0, 1, 2)
    assert len(figures(run)["accuracy"].axes) == 1
    assert figures(run)["step"] is None
    assert "early_stop_vs_sparsity" not in {file.stem for file in draw([run])}
    said = " ".join(text.get_text() for text in figures(run)["accuracy"].texts)
    assert "No figure of early-stop steps: 100 % of the networks were still improving" in said


def test_a_band_is_the_mean_and_range_at_every_step():
    rows = pd.DataFrame({"step": [0, 0, 10], "loss": [1.0, 3.0, 5.0]})
    assert band(rows, "step", "loss").values.tolist() == [[2, 1, 3], [5, 5, 5]]


@pytest.mark.parametrize(
    ("density", "text"),
    [(1, "100"), (0.9996, "100"), (0.5128, "51.3"), (0.07, "7.0"), (0.012, "1.2"), (0.0058, "0.58")],
)
def test_densities_are_written_as_in_the_papers(density, text):
    assert percent(density) == text


# Runs


def test_runs_are_found_below_folders_once_and_in_order(tmp_path):
    first, second = build(tmp_path / "a" / "x"), build(tmp_path / "b")
    assert find_runs([tmp_path, first]) == [first, second]


def test_a_missing_folder_and_a_folder_without_runs_are_told(tmp_path):
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        find_runs([tmp_path, tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no run"):
        find_runs([tmp_path])


def test_a_run_without_a_trained_network_is_told(run):
    (run / "levels.csv").write_text((run / "levels.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="no network has been trained yet"):
        draw([run])


def test_a_line_that_was_cut_is_not_read(run):
    whole = table(run)
    with (run / "levels.csv").open("a") as file:
        file.write("tiny,imp,ticket,0,3,0,0.0")
    pd.testing.assert_frame_equal(table(run), whole)


def test_a_column_that_is_missing_is_named(run):
    pd.read_csv(run / "levels.csv").drop(columns="density").to_csv(run / "levels.csv", index=False)
    with pytest.raises(UserError, match="lacks the column density"):
        table(run)


def test_runs_that_differ_in_seeds_are_pooled(tmp_path, run):
    build(tmp_path / "two" / "a", seeds=(0,))
    build(tmp_path / "two" / "b", seeds=(1,), device="cuda")
    pd.testing.assert_frame_equal(table(tmp_path / "two"), table(run), check_exact=False)


def test_a_network_of_two_runs_counts_once_as_in_the_longer_run(tmp_path):
    build(tmp_path / "a", seeds=(0,))
    build(tmp_path / "b")
    summary = table(tmp_path)
    assert row(summary, "ticket", 0).n == 2
    assert row(summary, "ticket", 0).early_stop_test_accuracy_mean == pytest.approx(0.95)
    (notes,) = summary.attrs["notes"].values()
    assert notes == [f"7 networks were found in more than one run and counted once, as in {tmp_path.name}/b."]


def test_copies_of_a_run_that_disagree_are_told(tmp_path):
    build(tmp_path / "a", seeds=(0,), shift=-0.05)
    build(tmp_path / "b")
    summary = table(tmp_path)
    assert row(summary, "ticket", 0).early_stop_test_accuracy_mean == pytest.approx(0.95)  # the longer run's
    (notes,) = summary.attrs["notes"].values()
    assert notes[1:] == [
        "The runs disagree about 7 of these networks, the ticket of level 0, seed 0 first: "
        "`ltx verify` tells whether one is damaged."
    ]


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("early_stop_test_accuracy", "7", "from 0 to 1"),
        ("final_test_accuracy", "inf", "from 0 to 1"),
        ("density", "-1", "from 0 to 1"),
        ("early_stop_step", "-100", "0 or more"),
        ("level", "-3", "0 or more"),
    ],
)
def test_a_number_that_cannot_be_is_named(run, column, value, allowed):
    rows = pd.read_csv(run / "levels.csv", dtype=str)
    rows.loc[3, column] = value
    rows.to_csv(run / "levels.csv", index=False)
    with pytest.raises(UserError, match=f"levels.csv is damaged: {column} is {allowed}, not {value}"):
        table(run)


def test_methods_and_settings_make_lines_of_their_own(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot")
    assert set(table(tmp_path).line) == {"imp ticket", "imp reinit", "oneshot ticket", "oneshot reinit"}
    build(tmp_path / "c", recipe={"lr": 0.2})
    assert "imp recipe.lr=0.2 ticket" in set(table(tmp_path).line)


# Figures


def test_one_run_is_drawn_into_its_own_folder(run):
    assert {file.relative_to(run).as_posix() for file in draw([run])} == FILES
    assert all((run / name).stat().st_size > 0 for name in FILES)
    assert (run / "accuracy_vs_sparsity.svg").read_text().count("Percent of weights remaining") == 2


def test_several_runs_are_drawn_beside_each_other(tmp_path):
    build(tmp_path / "both" / "a")
    build(tmp_path / "both" / "b", method="oneshot")
    assert {file.parent for file in draw([tmp_path / "both"])} == {tmp_path / "both"}


def test_figures_go_where_asked_also_as_pdf(tmp_path, run):
    (run / "curves.csv").unlink()
    out = tmp_path / "out"
    assert out / "accuracy_vs_sparsity.pdf" in draw([run], out, pdf=True)


def test_an_interrupted_run_shows_what_it_has(run):
    (run / "layers.csv").unlink()
    (run / "curves.csv").unlink()
    (run / "config.yaml").unlink()
    (run / "manifest.json").write_text('{"status": "interr')
    levels = (run / "levels.csv").read_text().splitlines()
    (run / "levels.csv").write_text("\n".join(levels[:3]) + "\n")
    assert {file.stem for file in draw([run])} == {
        *("accuracy_vs_sparsity", "early_stop_vs_sparsity"),
    }
    assert "run is not complete (status: unknown)" in (run / "accuracy_vs_sparsity.md").read_text()


def test_accuracy_falls_to_the_right_with_the_percent_of_weights(run):
    early, end = figures(run)["accuracy"].axes
    ticket, reinit = (container.lines[0] for container in early.containers)
    assert ticket.get_xdata().tolist() == [100, 50, 5]
    assert ticket.get_ydata().tolist() == pytest.approx([95, 96.5, 94])
    assert reinit.get_ydata().tolist() == pytest.approx([92, 83])
    low, high = (bar.tolist() for bar in early.containers[0].lines[2][0].get_segments()[1])
    assert (low, high) == (pytest.approx([50, 95]), pytest.approx([50, 98]))
    assert early.get_xscale() == "log"
    assert early.get_xlim()[0] > 100 > 5 > early.get_xlim()[1]
    assert [label.get_text() for label in early.get_xticklabels()] == ["100", "50.0", "5.0"]
    assert early.get_xlabel() == "Percent of weights remaining"
    assert early.lines[-1].get_ydata()[0] == pytest.approx(95)
    assert (early.get_title("left"), end.get_title("left")) == (
        *("At early stop (dense 95.00 %)", "At the end of training (dense 94.00 %)"),
    )


def test_the_legend_states_n(run):
    (legend,) = figures(run)["step"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("ticket, n = 2", "reinit, n = 3 to 4 (2 seeds × 2 draws)", "dense network")
    ]


def test_a_collapsed_control_does_not_hide_the_tickets_and_is_told(run):
    levels = pd.read_csv(run / "levels.csv")
    levels.loc[(levels.role == "reinit") & (levels.level == 2), "early_stop_test_accuracy"] = 0.1
    levels.to_csv(run / "levels.csv", index=False)
    figure = figures(run)["accuracy"]
    assert figure.axes[0].get_ylim()[0] > 60
    assert any("reinit falls below it" in text.get_text() for text in figure.texts)


def test_learning_curves_stand_beside_those_of_the_control(run):
    ticket, reinit, *_ = figures(run)["curves"].axes
    assert (ticket.get_title("left"), len(ticket.lines)) == ("ticket, n = 2", 3)
    assert ticket.lines[0].get_xdata().tolist() == [0, 500, 1000]
    assert ticket.lines[0].get_ydata().tolist() == pytest.approx([10, 52.5, 95])
    assert [line.get_linestyle() for line in (ticket.lines[1], reinit.lines[1])] == ["-", "--"]
    assert reinit.lines[2].get_ydata()[-1] == pytest.approx(83)  # without the network that diverged


def test_layers_lose_weights_level_by_level(run):
    (panel,) = figures(run)["layers"].axes
    fc1, fc2 = panel.lines
    assert (fc1.get_label(), fc2.get_label()) == ("fc1", "fc2")
    assert fc2.get_xdata().tolist() == [0, 1, 2]
    assert fc2.get_ydata().tolist() == pytest.approx([100, 49.5, 4.5])
    assert panel.get_yscale() == "log"


def test_ticks_keep_apart_and_name_both_ends():
    places = [100 * 0.8**level for level in range(21)]
    chosen = style.spread_out(places, 0.25)
    assert [percent(place / 100) for place in chosen] == [
        *("100", "51.2", "26.2", "13.4", "6.9", "3.5", "1.2")
    ]


def test_the_same_run_draws_the_same_bytes(run):
    first = {file: file.read_bytes() for file in draw([run])}
    assert {file: file.read_bytes() for file in draw([run])} == first


# Tables


def test_the_markdown_table_says_n_where_it_differs_and_what_was_left_out(run):
    draw([run], tolerance=0.01)
    text = (run / "accuracy_vs_sparsity.md").read_text()
    assert "| % weights | weights | ticket, n = 2 | reinit, n = 4 |" in text
    assert "| 50.0 | 500 | 96.50 (95.00..98.00) | 92.00 (90.00..95.00) |" in text
    assert "| 5.0 | 50 | 94.00 (93.00..95.00) | 83.00 (80.00..85.00), n = 3 |" in text
    assert "≥ the dense mean minus 1 points." in text
    assert (
        "- Smallest matching ticket: 5.0 % (50 weights, level 2, n = 2); every level above it matches too."
        in text
    )
    assert "- Smallest matching reinit: none, no pruned level matches." in text
    assert "- Left out as diverged: 1 of reinit at 5.0 %." in text
    assert pd.read_csv(run / "accuracy_vs_sparsity.csv").n.tolist() == [2, 2, 2, 4, 3]


@pytest.mark.parametrize(
    ("width", "cells"),
    [(100, r"96\.50 \(95\.00\.\.98\.00\) +92\.00 \(90"), (72, r"96\.50 +92\.00 +250 +550")],
)
def test_the_terminal_shows_as_much_as_fits(run, width, cells):
    console = Console(width=width, file=io.StringIO())
    print_tables(compare([run]), console, ["means"])
    assert re.search(cells, console.file.getvalue())
    assert "Smallest matching ticket: 50.0 % (500 weights" in console.file.getvalue()


def test_reports_do_without_torch(run):
    code = f"import sys, pathlib, ltx.report as r; r.draw([pathlib.Path({str(run)!r})]); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
