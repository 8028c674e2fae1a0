"""LassoNet among scikit-learn's estimators."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

import ltx

QUICK = {
    "hidden": (8,), "lr": 1e-2, "epochs": 150, "patience": 20, "path_lr": 1e-2, "path_multiplier": 3.0,
    "path_epochs": 5, "path_patience": 3, "random_state": 0,
}  # fmt: skip

EXCEPTIONS: dict[str, str] = {}
"""scikit-learn's checks that may fail, and why: none."""


@pytest.mark.filterwarnings("ignore")  # of scikit-learn's own, about the checks that it skips
@pytest.mark.parametrize("kind", [ltx.LassoNetClassifier, ltx.LassoNetRegressor])
def test_scikit_learns_own_checks_pass(kind):
    check_estimator(kind(**QUICK), expected_failed_checks=EXCEPTIONS)


def test_a_pipeline_with_folds_keeps_as_many_features_as_asked_and_is_cross_validated():
    x, y = load_breast_cancer(return_X_y=True)
    model = ltx.LassoNetClassifier(n_features=5, cv=3, **QUICK)
    scores = cross_val_score(make_pipeline(MinMaxScaler(), model), x, y, cv=3)
    assert scores.mean() > 0.9
    model.fit(x, y)
    assert model.get_support().sum() == 5
    assert sorted(model.get_support(indices=True)) == list(np.flatnonzero(model.get_support()))
    assert len(model.networks_) == 3
    assert np.isfinite(model.feature_importances_).all()
    moved = x + 100 * ~model.get_support() * x.std(0)
    assert np.allclose(model.predict_proba(moved), model.predict_proba(x))  # the others are not looked at


def test_a_regression_chooses_by_itself():
    x, y = load_diabetes(return_X_y=True)
    model = ltx.LassoNetRegressor(**QUICK).fit(x, y)
    assert model.score(x, y) > 0.3
    assert 1 <= model.get_support().sum() <= 10
    fewer = ltx.LassoNetRegressor(n_features=3, **QUICK | {"path_multiplier": 1.1}).fit(x, y)
    assert fewer.get_support().sum() == 3
    assert fewer.lambda_ > model.lambda_ >= 0  # all features stay at 0
    two = model.fit(x, np.stack([y, -y], 1)).predict(x)
    assert two.shape == (len(x), 2)


def test_what_cannot_be_done_is_a_value_error():
    x, y = load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match="there are 10 features"):
        ltx.LassoNetRegressor(n_features=11, **QUICK).fit(x, y)


def test_importing_ltx_loads_neither_torch_nor_scikit_learn():
    code = "import ltx, sys; assert not {'torch', 'sklearn'} & set(sys.modules); ltx.LassoNetClassifier"
    subprocess.run([sys.executable, "-c", code], check=True)
