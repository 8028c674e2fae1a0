"""The user's own data: any function that returns three splits."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ltx.data.base import Data, Dataset, Split
from ltx.errors import UserError
from ltx.knobs import IMPORTED, knob
from ltx.plugins import load_path, told


@dataclass(frozen=True)
class Custom(Dataset):
    """What a function returns: (images, labels) for training, validation and test."""

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "your own data: dataset.path=package.module:function"
    shape: ClassVar[None] = None
    classes: ClassVar[None] = None
    train_size: ClassVar[None] = None

    path: str = knob("", IMPORTED, "package.module:function, found from the working directory too")

    def load(self) -> Data:
        """Images uint8 [N, C, H, W] and labels int64 [N] counted from 0, as the function gives them."""
        function = load_path("dataset.path", self.path)
        try:
            splits = [
                Split(torch.as_tensor(images), torch.as_tensor(labels)) for images, labels in function()
            ]
        except Exception as error:  # whatever the user's function raises
            raise UserError(f"dataset.path={self.path} cannot be loaded: {told(error)}") from error
        if len(splits) != 3:
            raise UserError(
                f"dataset.path={self.path} must return train, validation and test, got {len(splits)}"
            )
        for split in splits:
            images, labels = split.images, split.labels
            if (
                images.dtype != torch.uint8
                or images.ndim != 4
                or images.shape[1:] != splits[0].images.shape[1:]
            ):
                raise UserError(
                    f"dataset.path={self.path} must give images uint8 [N, C, H, W] of one shape, "
                    f"got {images.dtype} {list(images.shape)}"
                )
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or int(labels.min()) < 0:
                raise UserError(
                    f"dataset.path={self.path} must give a label int64 from 0 on for each image, "
                    f"got {labels.dtype} {list(labels.shape)}"
                )
        classes = 1 + max(int(split.labels.max()) for split in splits)
        return Data.of(*splits, classes=classes)

    def fetch(self) -> None:
        """Nothing to do: the function knows."""
