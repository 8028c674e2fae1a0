"""Proximal operators: against LassoNet's own code, against what they must minimise, and at the edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx.pruning.prox import hierarchical, shrinkage, soft_threshold

CASES = [(K, h, M, t) for K in (1, 3) for h in (1, 2, 17) for M in (0.1, 1.0, 10.0) for t in (0.0, 0.3, 2.0)]


def drawn(K, h, d, seed=0, dtype=torch.float64):
    """Skip [K, d] and first-layer [h, d] weights of very different sizes, some of them zero."""
    dice = torch.Generator().manual_seed(seed)
    scales = 10 ** (4 * torch.rand(d, generator=dice, dtype=dtype) - 3)
    skip, first = (torch.randn(n, d, generator=dice, dtype=dtype) * scales for n in (K, h))
    first[torch.rand(h, d, generator=dice) < 0.2] = 0
    return skip, first


@pytest.mark.parametrize(("K", "h", "M", "t"), CASES)
def test_the_hierarchical_operator_is_lassonets(K, h, M, t):
    prox = pytest.importorskip("lassonet.prox").prox
    skip, first = drawn(K, h, d=400)
    skip[:, ::50] = 0
    v, u = prox(skip, first, lambda_=t, lambda_bar=0, M=M)
    mine_v, mine_u = hierarchical(skip, first, t, M)
    torch.testing.assert_close(mine_v, v, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(mine_u, u, atol=1e-9, rtol=1e-9)


def test_in_float32_too_to_1e_6():
    prox = pytest.importorskip("lassonet.prox").prox
    dice = torch.Generator().manual_seed(1)
    skip, first = (torch.randn(n, 3000, generator=dice) * 0.3 for n in (8, 100))
    for expected, mine in zip(
        prox(skip, first, lambda_=0.05, lambda_bar=0, M=10), hierarchical(skip, first, 0.05, 10), strict=True
    ):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)


def test_groups_come_and_go_together_as_lassonets_do():
    inplace = pytest.importorskip("lassonet.prox").inplace_group_prox
    skip, first = drawn(K=3, h=5, d=12, seed=2)
    beta, theta = torch.nn.Linear(12, 3, bias=False), torch.nn.Linear(12, 5)
    beta.weight.data, theta.weight.data = skip.clone(), first.clone()
    parts = [[0, 5], [1, 2, 11], [3], [4, 6, 7, 8, 9, 10]]
    inplace(parts, beta, theta, lambda_=0.4, lambda_bar=0, M=2.0)
    groups = torch.empty(12, dtype=torch.int64)
    for g, members in enumerate(parts):
        groups[members] = g
    v, u = hierarchical(skip, first, 0.4, 2.0, groups)
    torch.testing.assert_close(v, beta.weight.data)
    torch.testing.assert_close(u, theta.weight.data)
    gone, _ = hierarchical(skip, first, 1e6, 2.0, groups)
    assert not gone.any()


def test_an_l1_penalty_on_the_first_layer_is_a_soft_threshold_before_it():
    prox = pytest.importorskip("lassonet.prox").prox
    skip, first = drawn(K=2, h=9, d=300, seed=3)
    expected = prox(skip, first, lambda_=0.2, lambda_bar=0.1, M=3.0)
    for mine, theirs in zip(hierarchical(skip, soft_threshold(first, 0.1), 0.2, 3.0), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=4),
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.floats(0, 4),
    st.floats(0.05, 20),
)
def test_it_minimises_within_the_hierarchy(skip, first, t, M):
    v0, u0 = (torch.tensor(part, dtype=torch.float64)[:, None] for part in (skip, first))
    v, u = hierarchical(v0, u0, t, M)
    assert u.abs().max() <= M * v.norm() * (1 + 1e-9) + 1e-150  # the hierarchy; squares of less are 0
    if v0.norm() < 1e-6:
        return

    def cost(b):  # the best (v, u) with ‖v‖ = b: v along v0, u clipped
        return 0.5 * (b - v0.norm()) ** 2 + t * b + 0.5 * (u0.abs() - M * b).clamp_min(0).square().sum()

    b = v.norm()
    for other in (b * 0.99, b * 1.01, b + 1e-3, (b - 1e-3).clamp_min(0)):
        assert cost(b) <= cost(other) + 1e-9 * (1 + cost(b))


def test_no_penalty_leaves_what_keeps_to_the_hierarchy_as_it_is():
    skip, first = drawn(K=3, h=7, d=50, seed=4)
    first = first.clamp(-skip.norm(dim=0), skip.norm(dim=0))
    v, u = hierarchical(skip, first, 0.0, 1.0)
    torch.testing.assert_close(v, skip)
    torch.testing.assert_close(u, first)


def test_a_skip_weight_of_zero_stays_zero_and_nothing_is_nan():
    skip, first = torch.zeros(2, 3), torch.full((4, 3), 5.0)
    skip[:, 1] = 1.0
    for t in (0.0, 0.1, 1e3):
        v, u = hierarchical(skip, first, t, 10.0)
        assert v.isfinite().all()
        assert u.isfinite().all()
        assert not v[:, [0, 2]].any()
        assert not u[:, [0, 2]].any()


def test_a_stack_is_what_each_replicate_is_alone_with_a_threshold_of_its_own():
    parts = [drawn(K=2, h=5, d=20, seed=seed) for seed in range(3)]
    skip, first = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    thresholds = torch.tensor([0.0, 0.2, 1e6], dtype=torch.float64)
    v, u = hierarchical(skip, first, thresholds[:, None], 2.0)
    for r, (one_skip, one_first) in enumerate(parts):
        alone = hierarchical(one_skip, one_first, float(thresholds[r]), 2.0)
        torch.testing.assert_close((v[r], u[r]), alone)
    assert not v[2].any()


def test_a_diverged_replicate_ends_and_leaves_the_others_alone():
    skip, first = drawn(K=2, h=5, d=20, seed=5)
    for bad in (torch.nan, torch.inf):
        v, u = hierarchical(torch.stack([skip * bad, skip]), torch.stack([first * bad, first]), 0.1, 2.0)
        torch.testing.assert_close((v[1], u[1]), hierarchical(skip, first, 0.1, 2.0))
        assert not v[0].isfinite().all()


def test_soft_threshold_and_shrinkage_by_hand():
    weights = torch.tensor([-3.0, -0.5, 0.0, 0.5, 2.0])
    assert soft_threshold(weights, 1.0).tolist() == [-2.0, 0.0, 0.0, 0.0, 1.0]
    assert shrinkage(torch.tensor([0.0, 0.5, 1.0, 4.0]), 1.0).tolist() == [0.0, 0.0, 0.0, 0.75]
