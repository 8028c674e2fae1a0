"""Every score against values worked out by hand."""

import pytest
import torch

from ltx.methods.criterion import Criterion
from ltx.pruning import masks
from ltx.pruning.scores import CRITERIA, flow, magnitude, saliency

# One layer of two replicates; the second is the first turned round.
BEFORE = torch.tensor([[1.0, -2.0, 3.0, -4.0, 0.5], [0.5, -4.0, 3.0, -2.0, 1.0]])
AFTER = torch.tensor([[-2.0, -1.5, 5.0, -3.75, 0.25], [0.25, -3.75, 5.0, -1.5, -2.0]])
NOISE = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]])
EXPECTED = {
    "large_final": [2.0, 1.5, 5.0, 3.75, 0.25],
    "small_final": [-2.0, -1.5, -5.0, -3.75, -0.25],
    "large_init": [1.0, 2.0, 3.0, 4.0, 0.5],
    "small_init": [-1.0, -2.0, -3.0, -4.0, -0.5],
    "large_init_large_final": [1.0, 1.0, 3.0, 3.0, 0.0],  # ranks 1 2 3 4 0 before and 2 1 4 3 0 after
    "small_init_small_final": [-2.0, -2.0, -4.0, -4.0, 0.0],
    "magnitude_increase": [1.0, -0.5, 2.0, -0.25, -0.25],
    "movement": [3.0, 0.5, 2.0, 0.25, 0.25],
    "random": [0.1, 0.2, 0.3, 0.4, 0.5],
    "large_final_same_sign": [0.0, 1.5, 5.0, 3.75, 0.25],
    "large_final_diff_sign": [2.0, 0.0, 0.0, 0.0, 0.0],
    "magnitude_increase_same_sign": [0.0, -0.5, 2.0, -0.25, -0.25],
    "magnitude_increase_diff_sign": [1.0, 0.0, 0.0, 0.0, 0.0],
}


def test_magnitude_is_the_absolute_value_of_what_has_one():
    scores = magnitude({"w": torch.tensor([[-3.0, 2.0]]), "count": torch.tensor([7])})
    assert {name: value.tolist() for name, value in scores.items()} == {"w": [[3.0, 2.0]]}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_scores_each_replicate_as_the_paper_says(name):
    scores = CRITERIA[name](BEFORE, AFTER, NOISE)
    assert scores[0].tolist() == pytest.approx(EXPECTED[name])
    assert scores[1].tolist() == pytest.approx(EXPECTED[name][::-1])


def test_a_criterion_sees_a_layer_of_any_shape():
    shape = (2, 5, 1, 1)
    for name, score in CRITERIA.items():
        flat = score(BEFORE, AFTER, NOISE)
        assert torch.equal(score(*(t.view(shape) for t in (BEFORE, AFTER, NOISE))).view(2, 5), flat), name


def test_weights_that_fail_a_condition_on_signs_are_ranked_at_random_and_not_by_index():
    scores = CRITERIA["large_final_diff_sign"](BEFORE, AFTER, NOISE)
    assert scores[0].argsort(descending=True).tolist() == [0, 4, 3, 2, 1]


CURVATURE = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 1.0, 0.5], [0.0, 0.5, 3.0]])
THETA = {"w": torch.tensor([1.0, 3.0, 0.25]), "fixed": torch.tensor(2.0)}


def bowl(w):
    """½ wᵀ A w, twice: its gradient is 2 A w and its Hessian 2 A."""
    return w["fixed"] * 0.5 * (w["w"] @ CURVATURE @ w["w"])


def test_saliency_is_the_weight_times_its_gradient():
    assert saliency(bowl, THETA, ["w"])["w"].tolist() == [2.0, 12.75, 1.125]  # A w = -1, 2.125, 2.25


def test_flow_is_the_weight_times_hessian_times_gradient():
    assert flow(bowl, THETA, ["w"])["w"].tolist() == [-16.5, 51.0, 7.8125]  # A A w = -4.125, 4.25, 7.8125


def test_pruning_what_flow_scores_lowest_raises_the_gradient_and_its_opposite_lowers_it():
    """GraSP's sign: it prunes the highest −θHg, to preserve the gradient; by |θHg| it would prune another."""

    def squared_gradient(pruned):
        w = THETA["w"].clone()
        if pruned is not None:
            w[pruned] = 0
        return float((2 * CURVATURE @ w).square().sum())

    scores = flow(bowl, THETA, ["w"])["w"]
    assert int(scores.argmin()) == 0
    assert int(scores.abs().argmin()) == 2
    assert squared_gradient(0) > squared_gradient(None) > squared_gradient(int(scores.argmax()))


def test_a_weight_that_the_loss_does_not_see_scores_zero():
    weights = {"w": torch.tensor([2.0]), "idle": torch.tensor([5.0])}
    for score in (saliency, flow):
        assert score(lambda w: (w["w"] ** 2).sum(), weights, ["w", "idle"])["idle"].tolist() == [0.0]


def test_scoring_leaves_the_weights_alone():
    before = {name: tensor.clone() for name, tensor in THETA.items()}
    saliency(bowl, THETA, ["w"])
    flow(bowl, THETA, ["w"])
    assert all(torch.equal(THETA[name], before[name]) and not THETA[name].requires_grad for name in before)


@pytest.mark.parametrize(
    ("scope", "kept"),
    [("layer", {"a": [0, 1, 1, 1], "b": [0, 1]}), ("global", {"a": [0, 0, 1, 1], "b": [1, 1]})],
)
def test_criteria_that_rank_do_so_within_the_scope(scope, kept):
    """A large layer's ranks are larger numbers than a small one's: among all, ranks must be among all."""
    initial = {"a": torch.tensor([[1.0, 2.0, 5.0, 6.0]]), "b": torch.tensor([[3.0, 4.0]])}
    final = {"a": torch.tensor([[1.0, 2.0, 5.0, 6.0]]), "b": torch.tensor([[3.0, 4.0]])}
    noise = {name: torch.zeros_like(tensor) for name, tensor in initial.items()}
    scores = Criterion(score="large_init_large_final", scope=scope).scores(initial, final, noise)
    alive = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in initial.items()}
    mask = (
        masks.by_layer(scores, alive, {"a": 3, "b": 1})
        if scope == "layer"
        else masks.globally(scores, alive, 4)
    )
    assert {name: part[0].int().tolist() for name, part in mask.items()} == kept
