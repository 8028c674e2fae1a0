"""Runs compared: what makes lines and panels, which runs are looked at, intervals and paired differences."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ltx.errors import UserError
from ltx.report import compare, draw, table
from ltx.report.escape import latex as escaped
from ltx.report.figures.draw import write_comparison
from ltx.report.figures.lines import LINES, looks, readable
from ltx.report.render import as_latex
from ltx.report.stats import matching_table
from ltx.report.tables import gaps, means

DENSITY = (1.0, 0.5, 0.25)
# The accuracy of seed s is the base plus s points; of the controls that of CONTROL.
CONTROL = {0: 0.93, 1: 0.95, 2: 0.94}


def build(
    folder: Path,
    *,
    config: str = "tiny",
    method: str = "imp",
    seeds: tuple[int, ...] = (0, 1, 2),
    base: float = 0.95,
    density: tuple[float, ...] = DENSITY,
    status: str = "complete",
    roles: tuple[str, ...] = ("ticket", "reinit"),
    draws: int = 1,
    **settings,
) -> Path:
    """A run by hand, of three levels: tickets, and from level 1 on controls."""
    folder.mkdir(parents=True)
    rows = [
        {
            "config": config, "method": method, "role": role, "draw": draw, "level": level, "seed": seed,
            "density": density[level], "weights_remaining": round(1000 * density[level]),
            "early_stop_step": 100 * (level + 1), "early_stop_val_loss": 0.1,
            "early_stop_test_accuracy": base + 0.01 * seed if role == "ticket" else CONTROL[seed] + 0.002 * draw,
            "final_test_accuracy": 0.9, "final_train_accuracy": 1.0, "steps": 1, "seconds": 1.0, "diverged": 0,
        }
        for role in roles
        for level in range(role != "ticket", len(density))
        for seed in seeds
        for draw in range(1 if role == "ticket" else draws)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "levels.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps({"status": status, "fingerprint": "f0"}))
    tree = {
        "model": {"name": "lenet", "hidden": [300, 100]},
        "dataset": {"name": "digits", "root": str(folder)},
        "method": {"name": method, "rate": 0.2},
        "recipe": {"lr": 0.1, "wd": 0.0},
        "seed": seeds[0],
        "replicates": len(seeds),
        "control_draws": draws,
    }
    for key, value in settings.items():
        group, name = key.split("_", 1)
        tree[group][name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return folder


def grid(folder: Path) -> Path:
    """Two configs, three methods, four learning rates."""
    for config in ("a", "b"):
        for method in ("imp", "oneshot", "snip"):
            for lr in (0.1, 0.02, 0.003, 1e-4):
                build(
                    folder / config / f"{method}{lr}",
                    config=config,
                    method=method,
                    recipe_lr=lr,
                    seeds=(0, 1),
                )
    return folder


def lines(comparison, page: int = 0) -> list[str]:
    return list(comparison.pages[page].summary.line.unique())


def panels(comparison) -> list[str]:
    return list(comparison.summary.panel.unique())


# Lines and panels


def test_the_method_makes_lines_and_what_else_varies_panels(tmp_path):
    found = compare([grid(tmp_path)])
    assert found.layout.by == ("method",)
    assert panels(found) == [
        f"{config} recipe.lr={lr}" for config in "ab" for lr in ("0.0001", "0.003", "0.02", "0.1")
    ]
    assert lines(found) == [
        f"{m} {role}" for m in ("imp", "oneshot", "snip") for role in ("ticket", "reinit")
    ]
    assert set(found.summary.n) == {2}


def test_lines_are_made_by_any_key(tmp_path):
    found = compare([grid(tmp_path)], by=["recipe.lr"])
    assert panels(found) == [f"{config} {method}" for config in "ab" for method in ("imp", "oneshot", "snip")]
    assert lines(found)[::2] == [f"recipe.lr={lr} ticket" for lr in ("0.0001", "0.003", "0.02", "0.1")]


def test_several_keys_make_lines_together(tmp_path):
    found = compare([grid(tmp_path)], by=["method,recipe.lr"])
    assert panels(found) == ["a", "b"]
    assert len(lines(found)) == 24
    assert "oneshot recipe.lr=0.003 ticket" in lines(found)


def test_a_few_settings_make_lines_of_one_panel(tmp_path):
    for place, (lr, wd) in enumerate([(0.1, 0.0), (0.1, 0.5), (0.2, 0.0)]):
        build(tmp_path / str(place), recipe_lr=lr, recipe_wd=wd)
    found = compare([tmp_path])
    assert panels(found) == [""]
    assert lines(found)[::2] == [
        *("recipe.lr=0.1 recipe.wd=0.0 ticket", "recipe.lr=0.1 recipe.wd=0.5 ticket"),
        "recipe.lr=0.2 recipe.wd=0.0 ticket",
    ]


def test_configs_can_be_the_lines_of_one_panel(tmp_path):
    build(tmp_path / "a", config="a", recipe_lr=0.1)
    build(tmp_path / "b", config="b", recipe_lr=0.2)
    found = compare([tmp_path], by=["config"])
    assert [page.name for page in found.pages] == ["comparison"]
    assert lines(found) == ["a ticket", "a reinit", "b ticket", "b reinit"]
    pairs = found.pages[0].differences
    assert pairs.against.unique().tolist() == ["a reinit", "dense", "a ticket", "b reinit"]


def test_seeds_can_be_the_lines(tmp_path):
    build(tmp_path / "a")
    found = compare([tmp_path], by=["seed"])
    assert lines(found)[::2] == ["seed=0 ticket", "seed=1 ticket", "seed=2 ticket"]
    assert set(found.summary.n) == {1}


def test_roles_as_lines_leave_everything_else_to_panels(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot")
    found = compare([tmp_path], by=["role"])
    assert panels(found) == ["imp", "oneshot"]
    assert lines(found) == ["ticket", "reinit"]


def test_a_setting_that_only_some_methods_have_is_no_difference_between_methods(tmp_path):
    build(tmp_path / "a", method_scope="layer")
    build(tmp_path / "b", method="oneshot", method_rate=0.7)
    found = compare([tmp_path])
    assert lines(found) == ["imp ticket", "imp reinit", "oneshot ticket", "oneshot reinit"]
    assert found.notes == []


def test_a_setting_that_differs_along_with_the_lines_is_told(tmp_path):
    build(tmp_path / "a", recipe_lr=0.1)
    build(tmp_path / "b", method="oneshot", recipe_lr=0.2)
    found = compare([tmp_path])
    assert panels(found) == [""]
    assert found.notes == ["method and recipe.lr differ together: 0.1 (imp), 0.2 (oneshot)."]
    assert found.notes[0] in draw_text(tmp_path, "accuracy_vs_sparsity.svg")


def draw_text(folder: Path, name: str) -> str:
    draw([folder], folder / "out")
    return (folder / "out" / name).read_text()


def test_runs_on_other_data_are_never_averaged(tmp_path):
    build(tmp_path / "a")
    other = build(tmp_path / "b")
    (other / "manifest.json").write_text('{"status": "complete", "fingerprint": "f1"}')
    assert lines(compare([tmp_path]))[::2] == [
        *("dataset.fingerprint=f0 ticket", "dataset.fingerprint=f1 ticket"),
    ]


def test_where_data_lie_and_how_often_controls_are_drawn_makes_no_difference(tmp_path):
    build(tmp_path / "a", seeds=(0,))
    build(tmp_path / "b", seeds=(1,), draws=2)
    found = compare([tmp_path])
    assert lines(found) == ["ticket", "reinit"]
    assert found.summary.n.tolist() == [2, 2, 2, 3, 3]


# Filters


def test_filters_choose_runs_and_all_must_hold(tmp_path):
    grid(tmp_path)
    found = compare([tmp_path], where=["config=a", "recipe.lr=2e-2,0.003", "method=imp"])
    assert lines(found)[::2] == ["recipe.lr=0.003 ticket", "recipe.lr=0.02 ticket"]
    assert found.notes == ["Only config=a and recipe.lr=2e-2,0.003 and method=imp."]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("seed=1..2", 2),
        ("seed=0", 1),
        ("model.hidden=[300, 100]", 3),
        ("model=lenet", 3),
        ("recipe.lr=0..1", 3),
    ],
)
def test_values_are_ranges_lists_and_names(tmp_path, where, count):
    build(tmp_path / "a")
    assert set(table(tmp_path, where=[where]).n) == {count}


def test_levels_and_roles_are_filtered_but_the_dense_networks_stay(tmp_path):
    build(tmp_path / "a")
    rows = table(tmp_path, where=["level=2", "role=reinit"])
    (notes,) = rows.attrs["notes"].values()
    assert notes == ["Only level=2 and role=reinit, and the dense networks."]
    assert list(zip(rows.line, rows.level, strict=True)) == [("ticket", 0), ("reinit", 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--where", "recipe.lr=7"), "--where recipe.lr=7 does not exist; choose from 0.1, 0.2"),
        (
            ("--where", "lr=7"),
            "--where lr: no run has this key; did you mean recipe.lr? choose from config, ",
        ),
        (("--where", "method"), "--where method is not KEY=VALUE"),
        (("--by", "rate"), "--by rate: no run has this key; did you mean method.rate? choose from config, "),
        (("--by", "level"), "--by level: levels are what every line runs through"),
        (("--against", "snip"), "--against snip: no line has this name; choose from recipe.lr=0.1 ticket, "),
        (
            ("--where", "recipe.lr=0.1", "--where", "seed=1"),
            "no run has all of --where recipe.lr=0.1, --where seed=1",
        ),
    ],
)
@pytest.mark.parametrize("command", ["plot", "table"])
def test_a_mistake_is_one_line_that_lists_what_exists(ltx, tmp_path, command, words, message):
    build(tmp_path / "a", seeds=(0,))
    build(tmp_path / "b", seeds=(1,), recipe_lr=0.2)
    said = ltx(command, tmp_path, *words)
    assert said.code == 2
    assert said.err.startswith(f"ltx: {message}")
    assert said.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


# Numbers


def test_an_interval_is_students_over_seeds_with_draws_averaged_first(tmp_path):
    build(tmp_path / "a", draws=2)
    rows = table(tmp_path, interval=True).set_index(["line", "level"])
    ticket, reinit = rows.loc["ticket", 1], rows.loc["reinit", 1]
    measure = "early_stop_test_accuracy"
    # 0.95, 0.96, 0.97: mean 0.96, s = 0.01, t(2, 97.5 %) = 4.302653, half = 4.302653 * 0.01 / sqrt(3)
    assert ticket[[f"{measure}_{end}" for end in ("mean", "low", "high")]].tolist() == pytest.approx(
        [0.96, 0.96 - 0.02484138, 0.96 + 0.02484138]
    )
    assert reinit[f"{measure}_mean"] == pytest.approx(0.941)  # of 0.931, 0.951, 0.941
    assert reinit[f"{measure}_std"] == pytest.approx(0.01)
    assert (ticket.n, reinit.n) == (3, 3)


def test_one_seed_has_no_interval(ltx, tmp_path):
    build(tmp_path / "a", seeds=(1,))
    rows = table(tmp_path, interval=True)
    assert rows.early_stop_test_accuracy_low.isna().all()
    assert "± nan" not in ltx("table", tmp_path, "--interval").out
    assert ltx("plot", tmp_path, "--interval").code == 0


def test_differences_are_paired_by_seed(tmp_path):
    build(tmp_path / "a", draws=2)
    build(tmp_path / "b", method="oneshot", base=0.94, seeds=(1, 2))
    rows = compare([tmp_path]).differences().set_index(["line", "against", "level"])
    measure = "early_stop_test_accuracy"
    # ticket minus reinit: 0.95 - 0.931, 0.96 - 0.951, 0.97 - 0.941 = 0.019, 0.009, 0.029
    found = rows.loc["imp ticket", "imp reinit", 1]
    assert found.n == 3
    assert found[[f"{measure}_{end}" for end in ("mean", "low", "high", "std")]].tolist() == pytest.approx(
        [0.019, 0.019 - 0.02484138, 0.019 + 0.02484138, 0.01]
    )
    other = rows.loc["oneshot ticket", "imp ticket", 2]  # seeds 1 and 2 only, the same difference in both
    assert other.n == 2
    assert other[[f"{measure}_{end}" for end in ("mean", "low", "high")]].tolist() == pytest.approx(
        [-0.01] * 3
    )
    assert set(rows.index.droplevel("level")) == {
        *(("imp ticket", "imp reinit"), ("oneshot ticket", "imp ticket")),
        *(("oneshot ticket", "oneshot reinit"), ("imp ticket", "dense"), ("oneshot ticket", "dense")),
    }


def test_one_shared_seed_has_a_difference_but_no_interval(tmp_path):
    build(tmp_path / "a", seeds=(0, 1), roles=("ticket",))
    build(tmp_path / "b", method="oneshot", seeds=(1, 2), base=0.9, roles=("ticket",))
    page = compare([tmp_path]).pages[0]
    shared = page.differences[page.differences.against != "dense"]
    assert shared.n.tolist() == [1, 1, 1]
    assert shared.early_stop_test_accuracy_low.isna().all()
    assert gaps(page.differences)[0].columns["oneshot ticket − imp ticket, n = 1"] == ["-5.00"] * 3


def test_only_equal_levels_and_densities_are_compared(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot", density=(1.0, 0.5005, 0.26))
    rows = compare([tmp_path]).differences()
    assert rows[rows.against == "imp ticket"].level.tolist() == [0, 1]


def test_every_line_is_compared_with_the_one_named(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot")
    rows = compare([tmp_path], against="oneshot").differences()
    assert rows.against.unique().tolist() == ["oneshot ticket"]
    assert rows.line.unique().tolist() == ["imp ticket", "imp reinit", "oneshot reinit"]
    rows = compare([tmp_path / "a"], against="reinit").differences()
    assert rows.line.unique().tolist() == ["ticket"]


def test_what_diverged_is_not_compared(tmp_path):
    folder = build(tmp_path / "a")
    levels = pd.read_csv(folder / "levels.csv")
    levels.loc[(levels.role == "reinit") & (levels.seed == 0) & (levels.level == 1), "diverged"] = 1
    levels.to_csv(folder / "levels.csv", index=False)
    rows = compare([folder]).differences()
    assert rows[rows.against == "reinit"].n.tolist() == [2, 3]


def test_the_smallest_matching_network_of_every_line_is_a_table(tmp_path):
    folder = build(tmp_path / "a")
    (row,) = (
        matching_table(compare([folder]).pages[0].summary, [], 0.0)
        .query("line == 'ticket'")
        .to_dict("records")
    )
    assert (row["smallest_density"], row["smallest_level"], row["dense_accuracy"]) == (
        0.25,
        2,
        pytest.approx(0.96),
    )
    rows = compare([folder]).matching()
    assert rows.set_index("line").smallest_density.isna().to_dict() == {"ticket": False, "reinit": True}
    assert compare([folder], tolerance=0.02).matching().smallest_density.tolist() == [0.25, 0.25]


# Tables


def test_the_terminal_shows_the_tables(ltx, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot", base=0.9)
    out = ltx("table", tmp_path, "--tolerance", "0.01").out
    assert re.search(r"25\.0 +250 +96\.00 \(95\.00\.\.97\.00\) +94\.00 \(93\.00\.\.95\.00\) +91\.00", out)
    assert "≥ the dense mean minus 1 points." in out
    assert re.search(r"oneshot ticket +3 +91\.00 +25\.0 +250 +2 +91\.00 \(90\.00\.\.92\.00\) +25\.0", out)
    assert re.search(
        r"50\.0 +500 +\+2\.00 \(-0\.48\.\.\+4\.48\) +0\.00 \(0\.00\.\.0\.00\) +-5\.00 \(-5\.00\.\.-5\.00\)",
        out,
    )
    assert "Paired differences: the first line minus the second" in out


def test_a_narrow_terminal_shows_every_line_in_several_tables(ltx, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    grid(tmp_path)
    out = ltx("table", tmp_path, "--where", "config=a", "--only", "means").out
    assert "…" not in out
    assert len(re.findall(r"100 +1,000 +95\.50", out)) == 12


def test_tables_go_through_a_pipe(ltx, tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot", recipe_lr=0.2)
    build(tmp_path / "c", method="oneshot", recipe_lr=0.1)
    means = pd.read_csv(io.StringIO(ltx("table", tmp_path, "--format", "csv").out))
    assert list(means)[:8] == [
        *("config", "experiment", "line", "role", "method", "recipe.lr", "level", "density"),
    ]
    assert sorted(means["recipe.lr"].unique()) == [0.1, 0.2]
    pairs = pd.read_csv(io.StringIO(ltx("table", tmp_path, "--format", "csv", "--only", "differences").out))
    assert {"line", "against", "n", "early_stop_test_accuracy_low"} <= set(pairs)
    text = ltx("table", tmp_path, "--format", "markdown", "--only", "matching").out
    assert text.startswith("# tiny\n\n## Smallest matching\n\n| line | n | dense (%) |")
    assert ltx("table", tmp_path, "--format", "latex").out.startswith("% needs \\usepackage{booktabs}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "html"), "--format=html does not exist; choose from text, csv, markdown, latex"),
        (("--only", "mean"), "--only=mean does not exist; did you mean means or matching? choose from "),
    ],
)
def test_formats_and_parts_that_do_not_exist_are_told(ltx, tmp_path, words, message):
    build(tmp_path / "a")
    said = ltx("table", tmp_path, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"ltx: {message}")


def test_latex_is_escaped_and_has_the_rules_of_booktabs(tmp_path):
    assert escaped("a_b & 5 % ≥ {x}^2 \\ ~ ±") == (
        r"a\_b \& 5 \% $\geq$ \{x\}\textasciicircum{}2 \textbackslash{} \textasciitilde{} $\pm$"
    )
    build(tmp_path / "a", config="my_net")
    page = compare([tmp_path]).pages[0]
    text = as_latex(page.name, means(page.summary)[0], ["50 % of it."])
    assert text.splitlines() == [
        r"\begin{table}",
        r"  \centering",
        r"  \caption{my\_net: Test accuracy at early stop (\%). 50 \% of it.}",
        r"  \begin{tabular}{rrrr}",
        r"    \toprule",
        r"    \% weights & weights & ticket, n = 3 & reinit, n = 3 \\",
        r"    \midrule",
        r"    100 & 1,000 & 96.00 (95.00..97.00) & -- \\",
        r"    50.0 & 500 & 96.00 (95.00..97.00) & 94.00 (93.00..95.00) \\",
        r"    25.0 & 250 & 96.00 (95.00..97.00) & 94.00 (93.00..95.00) \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


# Figures and files


def test_a_tree_is_drawn_as_one_comparison_beside_the_figures_of_each_config(ltx, tmp_path):
    grid(tmp_path)
    files = {Path(line).relative_to(tmp_path).as_posix() for line in ltx("plot", tmp_path).out.splitlines()}
    assert {f"comparison.{kind}" for kind in ("png", "svg", "csv", "md", "tex")} <= files
    assert {f"{c}/accuracy_vs_sparsity.{kind}" for c in "ab" for kind in ("png", "csv", "md", "tex")} <= files
    text = (tmp_path / "comparison.svg").read_text()
    assert all(f">{config} recipe.lr={lr}<" in text for config in "ab" for lr in (0.02, 0.003))
    assert ">Panels: config, recipe.lr.<" in text
    assert text.count("Percent of weights remaining") == 2
    assert pd.read_csv(tmp_path / "comparison.csv").shape[0] == 48
    assert "## Smallest matching · recipe.lr=0.02" in (tmp_path / "comparison.md").read_text()


def test_panels_of_different_n_say_their_own(tmp_path):
    build(tmp_path / "a", config="a")
    build(tmp_path / "b", config="b", seeds=(0, 1))
    text = draw_text(tmp_path, "comparison.svg")
    assert ">a, n = 3<" in text
    assert ">b, n = 2<" in text
    assert ">ticket, n = 2 to 3<" in text


def test_one_panel_is_no_comparison_of_its_own(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", method="oneshot")
    assert not {file.stem for file in draw([tmp_path])} & {"comparison"}


def test_many_panels_take_several_figures_and_many_configs_share_theirs(tmp_path):
    for place in range(30):
        build(tmp_path / f"c{place:02d}" / "a", config=f"c{place:02d}", seeds=(0,))
    files = {file.relative_to(tmp_path).as_posix() for file in draw([tmp_path])}
    assert {file for file in files if file.endswith("png")} == {"comparison.png", "comparison_2.png"}
    assert "c29/accuracy_vs_sparsity.md" in files
    text = (tmp_path / "comparison.svg").read_text()
    assert "Shown: the first 24 of 30 panels" in text
    assert "30 configs: `ltx plot` of one's folder draws its other figures." in text


def test_too_many_lines_lose_their_controls_and_keep_their_looks_apart(tmp_path):
    summary = compare([grid(tmp_path)], by=["method,recipe.lr"], where=["config=a"]).pages[0].summary
    shown, notes = readable(summary)
    assert shown.line.nunique() == 12 <= LINES
    assert notes == ["Controls are left to the tables: too many lines."]
    seen = [(look.colour, look.marker) for look in looks(shown).values()]
    assert len(set(seen)) == 12
    assert len({colour for colour, _ in seen}) == 3


def test_of_very_many_lines_some_are_shown_in_falling_colours(tmp_path):
    for place in range(30):
        build(tmp_path / str(place), seeds=(0,), recipe_lr=place)
    summary = compare([tmp_path], by=["recipe.lr"]).pages[0].summary
    shown, notes = readable(summary)
    assert shown.series.nunique() == 24
    assert {"recipe.lr=0", "recipe.lr=29"} <= set(shown.series)
    assert "Shown: 24 of 30 lines, evenly chosen; the tables have all." in notes
    assert len({look.colour for look in looks(shown).values()}) == 24


def test_a_comparison_is_drawn_the_same_every_time(tmp_path):
    found = compare([grid(tmp_path / "runs")])
    (tmp_path / "out").mkdir()
    first = {file: file.read_bytes() for file in write_comparison(tmp_path / "out", found, ["png", "svg"])}
    assert {
        file: file.read_bytes() for file in write_comparison(tmp_path / "out", found, ["png", "svg"])
    } == first


# What lies in the tree


def test_what_is_no_run_is_ignored(ltx, tmp_path):
    build(tmp_path / "a")
    alone = table(tmp_path)
    build(tmp_path / ".hidden" / "b", method="oneshot")
    build(tmp_path / "a" / "level_00" / "c", method="oneshot")
    sweep = tmp_path / "sweeps" / "one"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text("{")
    (sweep / "job.log").write_text("levels.csv")
    (sweep / "config.yaml").write_text(": {")
    (sweep / "manifest.json").write_text("[]")
    pd.testing.assert_frame_equal(table(tmp_path), alone)
    assert ltx("plot", tmp_path).code == 0


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("levels.csv", b"", "runs/bad (status: complete), no network has been trained yet"),
        ("levels.csv", b"role,level\nticket,0\n", "levels.csv lacks the column config, method, draw, seed"),
        ("levels.csv", b"\xff\xfe\x00\n\x80\n", "levels.csv is damaged"),
        ("levels.csv", b'a,b\n"1\n2,3,4\n', "levels.csv is damaged"),
        ("config.yaml", b"recipe: {lr", "config.yaml is missing or damaged"),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out_and_told(ltx, tmp_path, name, content, note):
    build(tmp_path / "runs" / "good")
    bad = build(tmp_path / "runs" / "bad", recipe_lr=0.2)
    (bad / name).write_bytes(content)
    said = ltx("plot", tmp_path / "runs", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    page = (tmp_path / "out" / "accuracy_vs_sparsity.md").read_text()
    assert "- Left out: " in page
    assert note in page
    assert "| % weights | weights | ticket, n = 3 |" in page


@pytest.mark.parametrize("cell", ["x", ""])
def test_a_cell_that_is_no_number_damages_a_table(tmp_path, cell):
    folder = build(tmp_path / "a")
    text = (folder / "levels.csv").read_text().replace("ticket,0,1,1,", f"ticket,0,{cell},1,")
    (folder / "levels.csv").write_text(text)
    with pytest.raises(UserError, match=r"levels\.csv is damaged"):
        compare([folder])


def test_a_damaged_table_beside_the_levels_costs_its_figure_only(tmp_path):
    folder = build(tmp_path / "a")
    (folder / "curves.csv").write_text("role,draw\nticket,0\n")
    names = {file.name for file in draw([folder])}
    assert "accuracy_vs_sparsity.png" in names
    assert "learning_curves.png" not in names
    assert "Left out: " in (folder / "accuracy_vs_sparsity.md").read_text()


def test_runs_that_are_not_complete_are_told_and_counted_when_many(tmp_path):
    for place in range(5):
        build(tmp_path / str(place), seeds=(place % 3,), status="running" if place else "interrupted")
    (note,) = [n for n in compare([tmp_path]).pages[0].notes if "complete" in n]
    assert note == "5 of 5 runs are not complete: 1 interrupted, 4 running."


def test_tickets_are_set_beside_the_dense_network_of_their_own_seed(ltx, tmp_path):
    build(tmp_path / "a")
    levels = pd.read_csv(tmp_path / "a" / "levels.csv")
    pruned = (levels.role == "ticket") & (levels.level > 0)
    levels.loc[pruned, "early_stop_test_accuracy"] += levels.seed.map({0: 0.01, 1: 0.02, 2: 0.03})[pruned]
    levels.to_csv(tmp_path / "a" / "levels.csv", index=False)
    rows = compare([tmp_path]).differences().set_index(["against", "level"]).loc["dense"]
    measure = "early_stop_test_accuracy"
    # 0.01, 0.02, 0.03: mean 0.02, s = 0.01, t(2, 97.5 %) = 4.302653, half = 4.302653 * 0.01 / sqrt(3)
    assert rows.index.tolist() == [1, 2]
    assert rows.n.tolist() == [3, 3]
    for level in (1, 2):
        assert rows.loc[
            level, [f"{measure}_{end}" for end in ("mean", "low", "high")]
        ].tolist() == pytest.approx([0.02, 0.02 - 0.02484138, 0.02 + 0.02484138])
    assert "ticket − dense, n = 3" in ltx("table", tmp_path, "--format", "markdown").out
