"""LassoNet for scikit-learn: `ltx.LassoNetClassifier` and `ltx.LassoNetRegressor`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ltx.core.goal import Goal
from ltx.core.goals import GOALS
from ltx.core.recipe import Recipe
from ltx.core.session import Session
from ltx.core.task import Layers, Prunable, Task
from ltx.core.ticket import Round, Trained
from ltx.data.base import Data, Prepare, Split, fingerprint, hold_out
from ltx.engine.device import tuned
from ltx.engine.train import train
from ltx.errors import UserError
from ltx.methods.lassonet import LassoNet
from ltx.models.base import filled
from ltx.models.skip import SkipMLP
from ltx.pruning.path import departure, walked


class _LassoNet(BaseEstimator):
    """What both have in common.

    Parameters are those of `method=lassonet` and `recipe` by other names where scikit-learn has one: `n_features` to
    keep (None: as the validation loss says, within one standard error of its least if `cv` has folds), `cv` (0: a
    tenth of the examples validates; k: k folds, one network each, all trained in one stack, whose outputs are
    averaged), `hidden`, `M`, `lr`, `epochs` and `patience` of dense trainings, `path_lr`, `path_epochs`,
    `path_patience` and `path_multiplier` of the path, and `random_state`.

    Attributes: `feature_importances_` [d], the lambda at which a feature leaves (a mean over folds); `lambda_`, where
    the path first has as few features as were kept; `networks_`; `n_features_in_`. X is standardised inside.
    """

    kind: str

    def __init__(
        self, n_features: int | None = None, *, hidden: tuple[int, ...] = (100,), cv: int = 0, M: float = 10.0,
        lr: float = 1e-3, epochs: int = 1000, patience: int = 100, path_lr: float = 1e-3, path_epochs: int = 100,
        path_patience: int = 10, path_multiplier: float = 1.02, random_state: Any = None,
    ) -> None:  # fmt: skip
        self.n_features, self.hidden, self.cv, self.M = n_features, hidden, cv, M
        self.lr, self.epochs, self.patience = lr, epochs, patience
        self.path_lr, self.path_epochs, self.path_patience = path_lr, path_epochs, path_patience
        self.path_multiplier, self.random_state = path_multiplier, random_state

    @abstractmethod
    def _targets(self, y: Any) -> tuple[Tensor, int]:
        """Targets as a goal takes them, and how many outputs there are; raises ValueError."""

    def fit(self, X: Any, y: Any) -> Self:
        """Choose features on examples X [N, d] with targets y [N], and train a network on them; raises ValueError."""
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_min_samples=4, multi_output=self.kind == "regression"
        )
        targets, outputs = self._targets(y)
        self._mean, spread = X.mean(0), X.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        inputs = torch.from_numpy((X - self._mean) / self._spread).float()
        try:
            with tuned():
                self._search(self._data(inputs, targets, outputs))
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def _data(self, inputs: Tensor, targets: Tensor, outputs: int) -> Data:
        """The examples with a tenth for validation, which is the test split too: nobody looks at that."""
        labels = targets if targets.dim() == 1 else torch.zeros(len(targets), dtype=torch.int64)
        rest, held = hold_out(labels, max(1, round(len(labels) / 10)))
        whole = Split(inputs, targets)
        parts = whole.take(rest), whole.take(held), whole.take(held)
        return Data(*parts, outputs, Prepare(), fingerprint(*parts), self.kind)

    def _search(self, data: Data) -> None:
        """Train all that the method asks for, and keep what the last ticket became."""
        first = int(check_random_state(self.random_state).randint(2**31))
        method = LassoNet(
            features=[] if self.n_features is None else [self.n_features], M=self.M, trees=0, folds=max(2, self.cv),
            resample="folds" if self.cv else "none", patience=self.patience, path_lr=self.path_lr,
            path_epochs=self.path_epochs, path_patience=self.path_patience, path_multiplier=self.path_multiplier,
        )  # fmt: skip
        recipe = Recipe(lr=self.lr, batch_size=0, steps=str(self.epochs), eval_every="1")
        task = self._task(data, tuple(range(first, first + max(1, self.cv))))
        method.check(task.layers, plan := recipe.plan(len(data.train)))
        search, trained = method.search(task, task.dense(), plan), None
        rounds: list[tuple[Round, Trained]] = []
        while (round := next(search, None) if trained is None else _sent(search, trained)) is not None:
            trained = train(task, round, Session())
            rounds.append((round, trained))
        self._keep(task, rounds)

    def _task(self, data: Data, seeds: tuple[int, ...]) -> Task:
        model = SkipMLP(hidden=list(self.hidden))
        network = model.build(data.shape, data.outputs)
        layers = Layers.of(network, Prunable(), [name for name, _ in network.named_parameters()][-2])
        goal = GOALS[self.kind]()
        assert isinstance(goal, Goal)
        return Task(model, data, layers, seeds, torch.device("cpu"), goal)

    def _keep(self, task: Task, rounds: list[tuple[Round, Trained]]) -> None:
        """The attributes that a fit leaves."""
        ticket, trained = rounds[-1]
        memos = [found.memo for round, found in rounds if found.memo and round.rows is None]
        paths = [walked(memos[0], r, self.n_features_in_) for r in range(task.replicates)]
        gone = torch.stack([departure(*path).clamp_max(2 * float(path[0][-1])) for path in paths])
        self.feature_importances_ = gone.mean(0).numpy()
        self._support = ticket.ticket.mask["skip.weight"].any(1).any(0).numpy()
        fewest = [lambdas[alive.sum(1) <= self._support.sum()] for lambdas, alive in paths]
        self.lambda_ = float(np.mean([float(at[0]) for at in fewest if len(at)] or [np.nan]))
        self.networks_ = [
            filled(task.network(), {name: tensor[r] for name, tensor in trained.final.items()})
            .double()
            .eval()
            for r in range(task.replicates)
        ]

    def get_support(self, indices: bool = False) -> np.ndarray:
        """Which features were kept, [d] bool; `indices`: their places."""
        check_is_fitted(self)
        return np.flatnonzero(self._support) if indices else self._support.copy()

    def _outputs(self, X: Any) -> Tensor:
        """What the networks say of X [N, d], [R, N, K]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        inputs = torch.from_numpy((X - self._mean) / self._spread)
        with torch.no_grad():
            return torch.stack([network(inputs) for network in self.networks_])


def _sent(search: Any, trained: Trained) -> Round | None:
    """The method's next round, None when it has no more."""
    try:
        round: Round = search.send(trained)
    except StopIteration:
        return None
    return round


class LassoNetClassifier(ClassifierMixin, _LassoNet):
    """A classifier on few features, chosen by LassoNet (Lemhadri et al. 2021)."""

    kind = "classification"

    def _targets(self, y: Any) -> tuple[Tensor, int]:
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: there is nothing to tell")
        return torch.from_numpy(codes.astype(np.int64)), len(self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class of `classes_`, [N, K]."""
        return np.asarray(self._outputs(X).softmax(2).mean(0))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class, [N]."""
        probable = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[probable])


class LassoNetRegressor(RegressorMixin, _LassoNet):
    """A regression on few features, chosen by LassoNet (Lemhadri et al. 2021); y is [N] or [N, K]."""

    kind = "regression"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _targets(self, y: Any) -> tuple[Tensor, int]:
        y = np.asarray(y, dtype=np.float64)
        self._shape = y.shape[1:]
        y = y.reshape(len(y), -1)
        self._centre, spread = y.mean(0), y.std(0)
        self._unit = np.where(spread > 0, spread, 1.0)
        return torch.from_numpy((y - self._centre) / self._unit).float(), y.shape[1]

    def predict(self, X: Any) -> np.ndarray:
        """The numbers expected, of y's shape."""
        outputs = self._outputs(X).mean(0).numpy() * self._unit + self._centre
        return np.asarray(outputs.reshape(len(outputs), *self._shape))
