"""The user's own data: any function that returns three splits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ltx.data.base import Data, Dataset, Inputs, Prepare, Split, fingerprint, pixels
from ltx.data.mapped import Mapped
from ltx.data.sound import demand_sound
from ltx.errors import UserError
from ltx.knobs import IMPORTED, knob
from ltx.plugins import load_path, told

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Custom(Dataset):
    """What a function returns: (inputs, targets) for training, validation and test."""

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "your own data: dataset.path=package.module:function"
    shape: ClassVar[None] = None
    outputs: ClassVar[None] = None
    train_size: ClassVar[None] = None
    goal: ClassVar[None] = None

    path: str = knob("", IMPORTED, "package.module:function, found from the working directory too")

    def load(self) -> Data:
        """Three pairs of arrays or tensors.

        Inputs: images uint8 [N, C, H, W], normalised by channel; or numbers float [N, ...] and whole numbers
        int64 [N, ...], taken as they are. Targets: classes, whole numbers [N] from 0 on, or numbers float [N] or
        [N, K]. What is a `numpy.memmap` stays in its file and is read batch by batch.
        """
        where = f"dataset.path={self.path}"
        pairs = self._call(load_path("dataset.path", self.path))
        if len(pairs) != len(SPLITS):
            raise UserError(f"{where} must return train, validation and test, got {len(pairs)}")
        splits = {
            name: Split(as_inputs(inputs, where), as_targets(targets, where))
            for name, (inputs, targets) in zip(SPLITS, pairs, strict=True)
        }
        demand_sound(splits, where)
        train, val, test = splits.values()
        numbers = train.targets.is_floating_point()
        return Data(
            *(train, val, test),
            outputs=train.targets.shape[1] if numbers else 1 + int(train.targets.max()),
            prepare=pixels(train) if train.inputs.dtype == torch.uint8 else Prepare(),
            fingerprint=fingerprint(train, val, test),
            goal="regression" if numbers else "classification",
        )

    def _call(self, function: Callable[[], Any]) -> list[tuple[Any, Any]]:
        try:
            return [(inputs, targets) for inputs, targets in function()]
        except Exception as error:  # whatever the user's function raises
            raise UserError(f"dataset.path={self.path} cannot be loaded: {told(error)}") from error

    def fetch(self) -> None:
        """Nothing to do: the function knows."""


def as_inputs(given: Any, where: str) -> Inputs:
    """Inputs of a kind that ltx knows, from what a function gave; raises UserError."""
    tensor = Mapped(given) if isinstance(given, np.memmap) else as_tensor(given, where)
    kind, shape = tensor.dtype, list(tensor.shape)
    if kind == torch.float64 and isinstance(tensor, Tensor):
        return tensor.float()
    if kind not in (torch.uint8, torch.float32, torch.int64) or len(shape) < 2:
        raise UserError(
            f"{where} must give images uint8 [N, C, H, W], or numbers float32 or int64 [N, ...], got {kind} {shape}"
        )
    if kind == torch.uint8 and len(shape) != 4:
        raise UserError(f"{where} must give images uint8 as [N, C, H, W], got {shape}")
    if kind == torch.uint8 and shape[3] in CHANNELS and shape[1] not in CHANNELS:
        raise UserError(f"{where} must give images as [N, C, H, W], got {shape}: it looks like [N, H, W, C]")
    return tensor


CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, colour, colour and alpha


def as_targets(given: Any, where: str) -> Tensor:
    """Classes int64 [N] or numbers float32 [N, K], from what a function gave; raises UserError."""
    tensor = as_tensor(given, where)
    if tensor.is_floating_point() and tensor.ndim in (1, 2):
        return tensor.float().view(len(tensor), -1)
    if tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) and tensor.ndim == 1:
        return tensor.long()
    raise UserError(
        f"{where} must give targets as whole numbers [N] (classes) or float [N] or [N, K] (numbers), "
        f"got {tensor.dtype} {list(tensor.shape)}"
    )


def as_tensor(given: Any, where: str) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(given) if not isinstance(given, Tensor) else given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} gives what is no array of numbers: {told(error)}") from error
