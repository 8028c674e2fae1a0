"""Agreement between masks, and units that masks cut off."""

import pandas as pd
import pytest
import torch

from ltx.config.compose import compose
from ltx.experiment.execute import execute
from ltx.experiment.overlap import COLUMNS, dead_inputs, dead_outputs, described, overlap
from ltx.report import render
from ltx.report.layers import sections
from ltx.report.runs import pool, read_run
from ltx.report.tables import percent

ALL = torch.ones(3, dtype=torch.bool)


def test_identical_masks_overlap_wholly():
    mask = (torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.3).expand(3, 20, 30)
    share, chance = overlap(mask, ALL)
    torch.testing.assert_close(share, torch.ones(3))
    torch.testing.assert_close(chance, mask[0].float().mean().expand(3))


def test_random_masks_overlap_by_chance():
    mask = torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0)) < 0.2
    share, chance = overlap(mask, ALL)
    torch.testing.assert_close(share, chance, atol=0.005, rtol=0)
    torch.testing.assert_close(chance, torch.full((3,), 0.2), atol=0.005, rtol=0)


def test_overlap_is_the_mean_over_the_other_masks():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool).view(3, 2, 2)
    share, chance = overlap(mask, ALL)
    torch.testing.assert_close(share, torch.tensor([(1 / 2 + 0) / 2, (1 / 3 + 2 / 3) / 2, (0 + 2 / 2) / 2]))
    torch.testing.assert_close(chance, torch.tensor([(3 / 4 + 2 / 4) / 2, 1 / 2, (2 / 4 + 3 / 4) / 2]))


def test_diverged_seeds_are_not_compared_with():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool).view(3, 2, 2)
    share, _ = overlap(mask, torch.tensor([True, True, False]))
    torch.testing.assert_close(share, torch.tensor([1 / 2, 1 / 3, (0 + 2 / 2) / 2]))


def test_one_seed_overlaps_with_nobody():
    share, chance = overlap(torch.ones(1, 2, 2, dtype=torch.bool), ALL[:1])
    assert share.isnan().all()
    assert chance.isnan().all()


def test_dead_units_of_a_dense_layer():
    mask = torch.tensor([[[1, 0, 0], [0, 0, 0]], [[1, 1, 1], [0, 0, 1]]], dtype=torch.bool)
    assert dead_outputs(mask).tolist() == [1, 0]
    assert dead_inputs(mask).tolist() == [2, 0]


def test_dead_units_of_a_convolution():
    mask = torch.zeros(1, 4, 3, 5, 5, dtype=torch.bool)
    mask[0, 2, 1, 0, 4] = True
    assert dead_outputs(mask).tolist() == [3]
    assert dead_inputs(mask).tolist() == [2]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 3)])
def test_every_layer_has_a_row_for_every_replicate(shape):
    mask = torch.ones(2, *shape, dtype=torch.bool)
    mask[:, 0] = False
    row = (1.0, 0.75, 4, 1, 6, 0)
    assert described({"a": mask, "b": mask}, ALL[:2]) == {"a": [row, row], "b": [row, row]}


def test_a_run_leaves_its_masks_as_a_table_and_a_page(tmp_path):
    small = ["model.hidden=[20]", "recipe.steps=20", "replicates=2", "method.levels=1", "method.rate=0.5"]
    folder = execute(compose([*small, f"out={tmp_path}"]))
    table = pd.read_csv(folder / "masks.csv")
    assert list(table) == ["role", "draw", "level", "seed", "layer", *COLUMNS]
    ticket = table[(table.role == "ticket") & (table.level == 1)]
    assert ticket.groupby("layer", sort=False).chance.first().tolist() == [0.5, 0.75]
    assert (ticket.overlap > 0).all()
    experiments = pool([read_run(folder)])
    text = render.markdown("", sections(experiments))
    shared, layers = ticket.overlap.to_numpy(), pd.read_csv(folder / "layers.csv")
    kept = layers[(layers.role == "ticket") & (layers.level == 1)].kept.to_numpy()
    assert "## Layers of the tickets: weights remaining (%), mean of n = 2 seeds" in text
    assert f"| network | 100 (100) | {percent((shared * kept).sum() / kept.sum())} (" in text
    assert "| 3.weight | 0, 0 | 0, 0 |" in text
    (folder / "masks.csv").unlink()  # as in a run of an older version
    experiments = pool([read_run(folder)])
    text = render.markdown("", sections(experiments))
    assert "weights remaining (%)" in text
    assert "by chance" not in text
