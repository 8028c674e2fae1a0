"""Extremely randomised trees as a second judge of features, which knows nothing of the networks that chose them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltx.data.base import Data


def scored(data: Data) -> str:
    """What trees are judged by."""
    return "accuracy" if data.goal == "classification" else "r2"


def judged(data: Data, kept: Tensor, seeds: Sequence[int], trees: int) -> list[Tensor]:
    """Accuracy or R2 on the test split of trees (Geurts et al. 2006) trained on the training split, one per seed.

    `kept` [R, features] bool: what each may see. The protocol of Lemhadri et al. 2021, Table 2, has 50 trees.
    """
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesClassifier if data.goal == "classification" else ExtraTreesRegressor
    (x, y), (test, aim) = (
        (
            data.prepare(split.inputs.narrow(0, 0, len(split))).flatten(1).cpu().numpy(),
            split.targets.cpu().numpy(),
        )
        for split in (data.train, data.test)
    )
    y, aim = (
        targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets for targets in (y, aim)
    )
    found = []
    for columns, seed in zip(kept.numpy(), seeds, strict=True):
        judge = kind(trees, random_state=seed % 2**32).fit(x[:, columns], y)
        found.append(torch.tensor(judge.score(test[:, columns], aim), dtype=torch.float64))
    return found
