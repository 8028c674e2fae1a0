"""Scores to masks: exact counts, ties by index, nothing comes back to life."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx.pruning import masks

TIED = torch.tensor([[3.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])  # two replicates
ALL = torch.ones(2, 4, dtype=torch.bool)


def alive(mask):
    return mask.int().tolist()


def test_ties_fall_to_the_lower_index():
    assert alive(masks.top(TIED, ALL, 3)) == [[1, 1, 0, 1], [1, 1, 1, 0]]


def test_not_one_too_many_is_pruned_where_scores_tie():
    assert masks.top(TIED, ALL, 3).sum(1).tolist() == [3, 3]


def test_the_pruned_never_return_however_high_their_score():
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    assert alive(masks.top(TIED, mask, 2)) == [[0, 1, 0, 1], [1, 1, 0, 0]]


def test_density_one_keeps_everything():
    assert alive(masks.top(TIED, ALL, 4)) == [[1, 1, 1, 1], [1, 1, 1, 1]]


def test_one_weight_can_be_kept():
    assert alive(masks.top(TIED, ALL, 1)) == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_a_diverged_replicate_keeps_its_count_and_nan_scores_lowest():
    scores = torch.tensor([[torch.nan, 1.0, torch.inf, torch.nan], [torch.nan] * 4])
    assert alive(masks.top(scores, ALL, 3)) == [[1, 1, 1, 0], [1, 1, 1, 0]]


def test_a_dead_weight_loses_even_against_nan():
    scores, mask = torch.full((1, 3), torch.nan), torch.tensor([[False, True, True]])
    assert alive(masks.top(scores, mask, 2)) == [[0, 1, 1]]


def test_more_than_what_lives_cannot_be_kept():
    with pytest.raises(AssertionError, match="only what lives"):
        masks.top(TIED, torch.tensor([[True, False, False, False]] * 2), 2)


def test_each_layer_keeps_its_own_count():
    scores = {"a": TIED.view(2, 2, 2), "b": TIED}
    mask = masks.by_layer(scores, {"a": ALL.view(2, 2, 2), "b": ALL}, {"a": 1, "b": 3})
    assert alive(mask["a"]) == [[[1, 0], [0, 0]], [[1, 0], [0, 0]]]
    assert alive(mask["b"]) == [[1, 1, 0, 1], [1, 1, 1, 0]]


def test_one_global_count_is_spent_where_scores_are_high():
    scores = {"a": torch.tensor([[1.0, 9.0], [1.0, 1.0]]), "b": torch.tensor([[8.0, 2.0], [1.0, 1.0]])}
    whole = {name: torch.ones(2, 2, dtype=torch.bool) for name in scores}
    mask = masks.globally(scores, whole, 2)
    assert alive(mask["a"]) == [[0, 1], [1, 1]]
    assert alive(mask["b"]) == [[1, 0], [0, 0]]
    assert masks.emptied(mask) == ["b"]  # of the second replicate nothing is left there


def test_no_layer_is_called_emptied_while_every_replicate_has_a_weight_in_it():
    assert masks.emptied({"a": torch.tensor([[True, False], [False, True]])}) == []


# A run in the same process flushes denormals, which hypothesis would take for a broken machine.
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=False) | st.sampled_from(
    [0.0, -0.0, 1.0]
)


@settings(deadline=None)  # tests are never timed
@given(st.data())
def test_counts_are_exact_and_masks_nested_for_any_scores(data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    row = st.lists(numbers, min_size=columns, max_size=columns)
    mask = torch.ones(rows, columns, dtype=torch.bool)
    count = columns
    while count:
        scores = torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows)))
        child = masks.top(scores, mask, count)
        assert child.sum(1).tolist() == [count] * rows
        assert (child <= mask).all()
        survivors, pruned = scores.nan_to_num(nan=-torch.finfo(scores.dtype).max), mask & ~child
        for r in range(rows):
            if pruned[r].any():
                assert survivors[r][child[r]].min() >= survivors[r][pruned[r]].max()
        mask, count = child, data.draw(st.integers(0, count - 1)) if count > 1 else 0


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_replicate_does_not_know_its_neighbours(count, seed):
    scores = torch.randint(0, 4, (3, 5), generator=torch.Generator().manual_seed(seed)).float()
    mask = torch.ones(3, 5, dtype=torch.bool)
    together = masks.top(scores, mask, count)
    alone = torch.cat([masks.top(scores[r : r + 1], mask[:1], count) for r in range(3)])
    assert torch.equal(together, alone)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_mask_is_the_one_of_a_stable_sort(data):
    """Ties, NaN and infinities among the living and the dead, any count."""
    values = st.sampled_from([0.0, 1.0, 2.0, torch.nan, torch.inf, -torch.inf])
    n = data.draw(st.integers(1, 9))
    scores = torch.tensor(
        data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=2, max_size=2))
    )
    living = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=2, max_size=2))
    )
    count = data.draw(st.integers(0, int(living.sum(1).min())))
    ranked = torch.where(living, scores.nan_to_num(nan=-torch.finfo(scores.dtype).max), -torch.inf)
    best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    expected = torch.zeros_like(living).scatter_(1, best, True)
    assert torch.equal(masks.top(scores, living, count), expected)
