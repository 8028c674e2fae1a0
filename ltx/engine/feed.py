"""Batches, made on the device: gather, augment, normalise. No workers, no copies per example."""

from __future__ import annotations

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.data.augment import crop_flip, draw_crop_flip
from ltx.data.base import Data, Split
from ltx.streams import order, stream


class Normalise:
    """Raw pixels to float32 with the training split's own mean and deviation per channel."""

    def __init__(self, data: Data) -> None:
        self.scale = (1 / (255 * data.std)).view(-1, 1, 1)
        self.shift = (-data.mean / data.std).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [..., C, H, W] to float32 of the same shape."""
        return torch.mul(images, self.scale).add_(self.shift)


class Feed:
    """The batches of R replicates: what each sees at a step depends on its seed and the step alone."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self.split, self.normalise = task.data.train, Normalise(task.data)
        self.seeds, self.plan, self.device = task.seeds, plan, task.device
        self.epoch, self.order, self.offsets, self.flips = -1, torch.empty(0), torch.empty(0), torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 [R, B, C, H, W] and labels int64 [R, B] of the 0-based step."""
        epoch, position = divmod(step, self.plan.epoch)
        if epoch != self.epoch:
            self._begin(epoch)
        size = self.plan.batch_size
        now = slice(position * size, (position + 1) * size)
        chosen = self.order[:, now]
        shape = (*chosen.shape, *self.split.images.shape[1:])
        images = self.split.images.index_select(0, chosen.flatten()).view(shape)
        augment = self.plan.augment
        if augment.pad or augment.flip:
            offsets, flips = self.offsets[:, now], self.flips[:, now]
            images = crop_flip(images, offsets, flips, pad=augment.pad, mode=augment.padding)
        return self.normalise(images), self.split.labels[chosen]

    def _begin(self, epoch: int) -> None:
        """Draw one epoch: the order [R, N] and, with augmentation, every example's crop and flip."""
        examples, augment = len(self.split), self.plan.augment
        self.epoch = epoch
        self.order = torch.stack([order(seed, epoch, examples) for seed in self.seeds]).to(self.device)
        if augment.pad or augment.flip:
            draws = [
                draw_crop_flip(stream(seed, "augment", epoch), (examples,), pad=augment.pad)
                for seed in self.seeds
            ]
            self.offsets = torch.stack([offsets for offsets, _ in draws]).to(self.device)
            self.flips = torch.stack([flips & augment.flip for _, flips in draws]).to(self.device)


def chunks(split: Split, size: int = 2000) -> list[Split]:
    """A split in pieces small enough that a layer's outputs stay in cache."""
    return [
        Split(images, labels)
        for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True)
    ]
