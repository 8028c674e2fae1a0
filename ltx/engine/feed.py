"""Batches, made on the device: gather, augment, prepare. No workers, no copies per example."""

from __future__ import annotations

import torch
from torch import Tensor

from ltx.core.recipe import Plan
from ltx.core.task import Task
from ltx.core.ticket import Rows
from ltx.data.augment import crop_flip, draw_crop_flip
from ltx.streams import order, stream


class Feed:
    """The batches of R replicates: what each sees at a step depends on its seed and the step alone."""

    def __init__(self, task: Task, plan: Plan, rows: Rows | None = None) -> None:
        self.split, self.prepare = task.data.train, task.data.prepare
        self.rows = None if rows is None else rows.train.to(task.device)
        self.seeds, self.plan, self.device = task.seeds, plan, task.device
        self.epoch, self.order, self.offsets, self.flips = -1, torch.empty(0), torch.empty(0), torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [R, B, *shape] as a network sees them, and targets [R, B] or [R, B, K], of the 0-based step."""
        epoch, position = divmod(step, self.plan.epoch)
        if epoch != self.epoch:
            self._begin(epoch)
        size = self.plan.batch_size
        now = slice(position * size, (position + 1) * size)
        chosen = self.order[:, now]
        inputs = self.split.read(chosen)
        augment = self.plan.augment
        if augment.pad or augment.flip:
            offsets, flips = self.offsets[:, now], self.flips[:, now]
            inputs = crop_flip(inputs, offsets, flips, pad=augment.pad, mode=augment.padding)
        return self.prepare(inputs), self.split.targets[chosen]

    def _begin(self, epoch: int) -> None:
        """Draw one epoch: the order [R, N] and, with augmentation, every example's crop and flip."""
        examples, augment = len(self.split) if self.rows is None else self.rows.shape[1], self.plan.augment
        self.epoch = epoch
        self.order = torch.stack([order(seed, epoch, examples) for seed in self.seeds]).to(self.device)
        if self.rows is not None:
            self.order = self.rows.gather(1, self.order)
        if augment.pad or augment.flip:
            draws = [
                draw_crop_flip(stream(seed, "augment", epoch), (examples,), pad=augment.pad)
                for seed in self.seeds
            ]
            self.offsets = torch.stack([offsets for offsets, _ in draws]).to(self.device)
            self.flips = torch.stack([flips & augment.flip for _, flips in draws]).to(self.device)
