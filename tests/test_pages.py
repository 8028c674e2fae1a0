"""What the pages say of the shipped experiments is what their csv files hold, with n and interval."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import t

from ltx.study.verify import verify

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs/gallery"
PAGE = " ".join((GALLERY / "README.md").read_text(encoding="utf-8").split())
FRONT = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def networks(experiment):
    """Every network of an experiment, and whether its least validation loss is the last that was measured."""
    key, found = ["role", "draw", "level", "seed"], []
    for run in sorted((GALLERY / experiment).glob("*/levels.csv")):
        levels, curves = pd.read_csv(run), pd.read_csv(run.with_name("curves.csv"))
        last = curves.groupby(key).step.max().rename("last").reset_index()
        found.append(levels[levels.role != "search"].merge(last, on=key))
    rows = pd.concat(found, ignore_index=True)
    return rows.assign(censored=rows.early_stop_step == rows["last"])


def at(rows, role, percent):
    """The networks of a role at the level nearest to a percentage of weights, by seed."""
    rows = rows[rows.role == role]
    level = rows.level[(100 * rows.density - percent).abs().idxmin()]
    return rows[rows.level == level].set_index("seed").sort_index()


def gap(one, other, measure="early_stop_test_accuracy"):
    """The paired difference in points with the ends of its 95 % t-interval over seeds."""
    points = 100 * (one[measure] - other[measure])
    half = t.ppf(0.975, len(points) - 1) * points.std() / len(points) ** 0.5
    return points.mean(), points.mean() - half, points.mean() + half


def told(mean, low, high, digits=2):
    return f"{mean:+.{digits}f}", f"({low:+.{digits}f}..{high:+.{digits}f})".replace("-", "−")


@pytest.mark.parametrize(
    ("percent", "role", "other", "measure"),
    [
        (13.5, "ticket", "dense", "early_stop_test_accuracy"),
        (3.6, "ticket", "dense", "early_stop_test_accuracy"),
        (2.9, "ticket", "dense", "early_stop_test_accuracy"),
        (1.85, "ticket", "dense", "early_stop_test_accuracy"),
        (1.85, "ticket", "dense", "final_test_accuracy"),
        (21.1, "ticket", "reinit", "early_stop_test_accuracy"),
        (13.5, "ticket", "reinit", "early_stop_test_accuracy"),
    ],
)
def test_differences_on_mnist_are_paired_and_have_their_interval(percent, role, other, measure):
    rows = networks("mnist_lenet")
    against = at(rows, "ticket", 100) if other == "dense" else at(rows, other, percent)
    mean, interval = told(*gap(at(rows, role, percent), against, measure))
    assert f"{mean.replace('-', '−')} {interval}" in PAGE or f"{mean} points {interval}" in PAGE


@pytest.mark.parametrize("percent", [100, 5, 2])
def test_errors_of_snip_and_how_far_they_are_above_dense(percent):
    rows = networks("mnist_lenet_snip")
    rows = rows.assign(error=1 - rows.final_test_accuracy)
    mine, dense = at(rows, "ticket", percent), at(rows, "ticket", 100)
    alone, above = gap(mine, 0 * mine, "error"), gap(mine, dense, "error")
    cells = ["{:.2f} ({:.2f}..{:.2f})".format(*numbers) for numbers in (alone, above)]
    assert f"| {cells[0]} | {cells[1] if percent < 100 else ''}".rstrip() in PAGE
    assert len(mine) == 5


def test_levels_that_are_told_apart_on_mnist_are_those_of_the_files():
    rows = networks("mnist_lenet")
    tickets = rows[rows.role == "ticket"]
    densities = [100 * tickets[tickets.level == level].density.iloc[0] for level in range(1, 21)]
    dense = at(rows, "ticket", 100)
    above = [d for d in densities if gap(at(rows, "ticket", d), dense)[1] > 0]
    beat = [d for d in densities if gap(at(rows, "ticket", d), at(rows, "reinit", d))[1] > 0]
    assert [f"{d:.1f}" for d in above] == ["26.3", "16.9", "13.5", "10.8", "8.7", "7.0", "4.5", "3.6"]
    assert "above the dense network at 26.3, 16.9, 13.5, 10.8, 8.7, 7.0, 4.5 and 3.6 % of the weights" in PAGE
    assert [f"{d:.2f}" for d in densities if d < 17 and d not in beat] == ["5.57"]


def test_early_stop_on_mnist():
    rows = networks("mnist_lenet")
    assert [f"{step:,}" for step in at(rows, "ticket", 100).early_stop_step] == ["4,200", "3,600", "4,400"]
    assert "at steps 4,200, 3,600 and 4,400" in PAGE


@pytest.mark.parametrize(
    ("experiment", "share", "where"),
    [
        ("digits_lenet", "94 % of the networks were still improving", FRONT),
        ("cifar10_conv2_quick", "89 % of these networks were still improving", PAGE),
        ("mnist_lenet_snip", "of the networks 100 % were still improving", PAGE),
        ("cifar10_resnet20_quick", "Every one of these networks was still improving", PAGE),
    ],
)
def test_networks_that_were_still_improving_are_counted(experiment, share, where):
    censored = networks(experiment).censored.mean()
    assert share in where
    assert f"{100 * censored:.0f} %" in share or (censored == 1 and share.startswith("Every"))


@pytest.mark.parametrize(
    ("experiment", "percent", "other"),
    [
        *(("cifar10_conv2_quick", percent, "reinit") for percent in (50.3, 25.3, 12.8)),
        ("cifar10_conv2_quick", 25.3, "dense"),
        ("cifar10_resnet20_quick", 17.6, "dense"),
        ("cifar10_resnet20_quick", 17.6, "reinit"),
    ],
)
def test_differences_of_two_seeds_have_their_interval(experiment, percent, other):
    rows = networks(experiment)
    against = at(rows, "ticket", 100) if other == "dense" else at(rows, other, percent)
    mean, interval = told(*gap(at(rows, "ticket", percent), against), digits=1)
    assert mean in PAGE
    assert interval in PAGE


def test_matching_on_digits():
    rows = networks("digits_lenet")
    dense = at(rows, "ticket", 100).early_stop_test_accuracy.mean()
    means = rows[rows.level > 0].groupby(["role", "level"])[["density", "early_stop_test_accuracy"]].mean()
    matching = means[means.early_stop_test_accuracy >= dense].density
    assert f"{100 * matching['ticket'].min():.0f}" == "17"
    assert [f"{100 * density:.0f}" for density in matching["reinit"]] == ["80"]
    assert (
        "down to 17 % of its weights; those of the same masks over other initial weights at 80 % alone"
        in FRONT
    )


def test_where_controls_of_the_sweep_fall_behind():
    rows = pd.read_csv(GALLERY / "digits_sweep/differences.csv")
    own = rows[rows.line.str.endswith("ticket") & ~rows.against.str.endswith(("ticket", "dense"))]
    behind = own.groupby("level").early_stop_test_accuracy_low.min() > 0
    first = own[own.level == behind.idxmax()]
    assert set(own.n) == {10}
    assert f"{100 * first.density.mean():.0f}" == "52"
    assert "controls of both are behind from 52 % on" in FRONT


def test_what_a_user_runs_leaves_the_checkout_clean_and_the_gallery_is_in_it():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    run = "results/digits_lenet/lenet-digits-imp-s0x5-97c076f9e896"
    users = [f"{run}/levels.csv", f"{run}/accuracy_vs_sparsity.svg", "results/sweeps/x/sweep.json"]
    ours = [str(path.relative_to(ROOT)) for path in GALLERY.rglob("*") if path.is_file()]
    told = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"], input="\n".join([*users, *ours]), cwd=ROOT, text=True,
        capture_output=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    assert [path for path in told if not path.endswith((".png", ".lock"))] == users
    names = subprocess.run(
        ["git", "ls-files", "docs/gallery"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout
    assert len(list(GALLERY.rglob("levels.csv"))) == names.count("/levels.csv") == 25


def test_every_file_that_a_page_shows_or_names_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_gallery_keeps_its_promises():
    findings = verify(sorted({path.parent for path in GALLERY.rglob("manifest.json")}))
    assert [found.broken for found in findings] == [[]] * 25
