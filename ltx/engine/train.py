"""Training one round: R replicates of one ticket, from the step it starts at to the end of its plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ltx.core.checks import Checks
from ltx.core.task import Task
from ltx.core.ticket import Curve, Round, Ticket, Trained, Tree, copied, unmeasured
from ltx.engine import optimizer as optim
from ltx.engine.energy import Meter
from ltx.engine.evaluate import evaluate
from ltx.engine.feed import Feed
from ltx.engine.forward import Forward, bind
from ltx.pruning.channels import shrunk

Tick = Callable[[int, Tree | None], None]
"""(step, what a Curve holds of it, [R], if it was just measured): called after every step."""


class Checkpoint(Protocol):
    """Where a half-trained round is kept."""

    def load(self) -> Tree | None:
        """What was saved last, if anything."""

    def due(self) -> bool:
        """Whether it is time to save: asked after every step."""

    def save(self, state: Tree) -> None:
        """Keep the state; raises Interrupted if the run was asked to stop."""

    def part(self, r: int) -> Checkpoint:
        """Where one replicate's part is kept, if they are trained one after the other."""


def train(task: Task, round: Round, checks: Checks, checkpoint: Checkpoint, tick: Tick) -> Trained:
    """Train the round's ticket to the end of its plan, never stopping early; only `watch` ends it sooner."""
    with torch.random.fork_rng(devices=[]):
        if not round.apart:
            return Training(task, round, checks, tick).run(checkpoint)
        parts: list[Trained] = []
        for r in range(task.replicates):
            share = shared(tick, round, r, task.replicates)
            parts.append(alone(task.only(r), round.only(r), checks, checkpoint.part(r), share))
        return joined(parts)


def shared(tick: Tick, round: Round, r: int, replicates: int) -> Tick:
    """Tells of replicate r's steps as a share of the round, whose last replicate ends it."""
    before = r * (round.plan.steps - round.start)
    return lambda step, measured: tick(round.start + (before + step - round.start) // replicates, measured)


def alone(task: Task, round: Round, checks: Checks, checkpoint: Checkpoint, tick: Tick) -> Trained:
    """Train one replicate, R = 1, as the network that its channels leave; its weights come back whole."""
    if not round.channels:
        return Training(task, round, checks, tick).run(checkpoint, and_save=True)
    small = shrunk(task.network(), task.data.shape, {name: keep[0] for name, keep in round.channels.items()})
    ticket = Ticket(small.take(round.ticket.weights), small.take(round.ticket.mask))
    training = Training(task, replace(round, ticket=ticket), checks, tick, small.network)
    trained, rest = training.run(checkpoint, and_save=True), round.ticket.start()
    whole = {step: small.put(tree, rest) for step, tree in trained.at.items()}
    return replace(trained, final=small.put(trained.final, rest), at=whole)


def joined(parts: Sequence[Trained]) -> Trained:
    """R replicates that were trained one by one as one outcome."""
    steps = torch.cat([part.curve.step for part in parts]).unique()

    def aligned(key: str) -> Tensor:
        rows = torch.full((len(parts), len(steps)), torch.nan)
        for row, part in zip(rows, parts, strict=True):
            row[torch.searchsorted(steps, part.curve.step)] = part.curve.tree()[key][0]
        return rows

    def stacked(trees: Sequence[Tree]) -> Tree:
        return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}

    reached = set.intersection(*(set(part.at) for part in parts))
    return Trained(
        final=stacked([part.final for part in parts]),
        at={step: stacked([part.at[step] for part in parts]) for step in sorted(reached)},
        curve=Curve.of(
            {"step": steps, **{key: aligned(key) for key in parts[0].curve.tree() if key != "step"}}
        ),
        train_measure=torch.cat([part.train_measure for part in parts]),
        diverged=torch.cat([part.diverged for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        seconds=sum(part.seconds for part in parts),
        joules=torch.stack([part.joules for part in parts]).sum(0),
        memo=stacked([part.memo for part in parts]),
    )


class Training:
    """A round in training. Every tensor it changes is its own: the ticket is only read."""

    def __init__(
        self, task: Task, round: Round, checks: Checks, tick: Tick, network: nn.Module | None = None
    ) -> None:
        """`network` is what is trained if not the task's own: a part of it."""
        self.task, self.round, self.checks, self.tick = task, round, checks, tick
        self.plan, self.where = round.plan, f"level {round.level}, {round.name}"
        self.weights = round.ticket.start()
        checks.starts_from(self.weights, round.ticket, self.where)
        self.network: Forward = bind(
            network or task.network(), self.weights, self.plan, task.seeds, task.goal
        )
        self.names = list(self.network.gradients)
        for name in self.names:
            self.weights[name].grad = self.network.gradients[name]
        self.optimizer = optim.optimizer(self.plan, [self.weights[name] for name in self.names])
        # The mask as numbers of the gradients' type, once: a bool factor would be converted at every step.
        self.alive = {
            name: alive.to(self.weights[name].dtype)
            for name, alive in round.ticket.mask.items()
            if not alive.all()
        }
        self.feed = Feed(task, self.plan)
        self.step, self.seconds = round.start, 0.0
        self.joules = torch.zeros(2, dtype=torch.float64)
        self.at: dict[int, Tree] = {}
        self.points: list[dict[str, Tensor]] = []
        self.tally = torch.zeros(
            task.replicates, device=task.device
        )  # sum of losses since the last evaluation
        self.tallied = 0
        self.diverged = torch.zeros(task.replicates, dtype=torch.bool, device=task.device)
        self.memo: Tree = {}
        self.done = torch.zeros(task.replicates, dtype=torch.bool)

    def run(self, checkpoint: Checkpoint, *, and_save: bool = False) -> Trained:
        """Train to the end, and save what is there then if others of the round are still to come."""
        evaluations = set(self.plan.evaluations(self.round.start))
        self._resume(checkpoint)
        began, meter = time.perf_counter() - self.seconds, Meter(self.task.device, self.joules)
        if self.step == self.round.start and not self.points:
            self._keep()
            self._evaluate()
        while not self._ended():
            self._advance()
            self._keep()
            self._watch()
            if self.step in evaluations or self._ended():
                self._evaluate()
            else:
                self.tick(self.step, None)
            if checkpoint.due() and not self._ended():
                self.seconds, self.joules = time.perf_counter() - began, meter.read()
                checkpoint.save(self._state())
        goal = self.task.goal
        on_train = evaluate(goal, self.network, self.task.data.prepare, self.task.data.train)
        if self.task.device.type == "cuda":
            torch.cuda.synchronize(self.task.device)
        self.seconds, self.joules = time.perf_counter() - began, meter.read()
        if and_save:
            checkpoint.save(self._state())
        return Trained(
            final={name: tensor.detach() for name, tensor in self.weights.items()},
            at=self.at,
            curve=self._curve(),
            train_measure=on_train[goal.measure].cpu(),
            diverged=self.diverged.cpu(),
            steps=torch.full((self.task.replicates,), self.step - self.round.start),
            seconds=self.seconds,
            joules=self.joules,
            memo=self.memo,
        )

    def _ended(self) -> bool:
        return self.step >= self.plan.steps or bool(self.done.all())

    def _watch(self) -> None:
        """At an epoch's end let the method look at the weights; what it remembers is folded into its memo."""
        if self.round.hooks.watch and self.step % self.plan.epoch == 0:
            epoch, weights = self.step // self.plan.epoch, {n: t.detach() for n, t in self.weights.items()}
            self.memo, self.done = self.round.hooks.watch(epoch, weights, self.memo)

    def _advance(self) -> None:
        """One step of every replicate; nothing here waits for the device."""
        images, labels = self.feed.batch(self.step)
        self.tally += self.network.backward(images, labels, self.step)
        self.tallied += 1
        if self.round.hooks.penalty:
            self.round.hooks.penalty(self.weights, self.network.gradients)
        # A pruned weight starts at zero and never sees a gradient: it stays zero, and so do its moments and decay.
        for name, alive in self.alive.items():
            self.network.gradients[name].mul_(alive)
        rate = self.plan.lr_at(self.step)
        optim.set_lr(self.optimizer, rate)
        self.optimizer.step()
        if self.round.hooks.project:
            self.round.hooks.project(self.weights, rate)
        self.step += 1

    def _keep(self) -> None:
        if self.step in self.round.keep:
            self.at[self.step] = copied({name: tensor.detach() for name, tensor in self.weights.items()})

    def _evaluate(self) -> None:
        goal, data = self.task.goal, self.task.data
        val, test = (evaluate(goal, self.network, data.prepare, split) for split in (data.val, data.test))
        train_loss = self.tally / self.tallied if self.tallied else torch.full_like(self.tally, torch.nan)
        self.diverged |= ~val["loss"].isfinite() | ~self.tally.isfinite()
        point = {
            "train_loss": train_loss,
            "val_loss": val["loss"],
            "val_measure": val[goal.measure],
            "test_measure": test[goal.measure],
            **{f"val_{name}": val[name] for name in goal.further},
            **{f"test_{name}": test[name] for name in goal.further},
        }
        point = {key: value.cpu() for key, value in point.items()}
        self.points.append({"step": torch.tensor(self.step), **point})
        self.tally, self.tallied = torch.zeros_like(self.tally), 0
        mask, sound = self.round.ticket.mask, ~self.diverged
        self.checks.zero("weights", self.weights, mask, sound, self.where)
        slots = optim.state(self.optimizer, self.names)
        for slot in {key.rsplit("|", 1)[1] for key in slots} - {"step"}:
            moments = {name: slots[f"{name}|{slot}"] for name in mask if f"{name}|{slot}" in slots}
            self.checks.zero("optimizer state", moments, mask, sound, self.where)
        self.tick(self.step, point)

    def _curve(self) -> Curve:
        return Curve.of(
            {key: torch.stack([point[key] for point in self.points], dim=-1) for key in self.points[0]}
        )

    def _state(self) -> Tree:
        """Everything that the rest of the round depends on; the random streams need no saving (see draw.py)."""
        curve = self._curve().tree()
        return {
            "progress": torch.tensor([self.step, self.tallied, self.seconds], dtype=torch.float64),
            "joules": self.joules,
            "tally": self.tally,
            "diverged": self.diverged,
            "done": self.done,
            **{f"memo/{key}": value for key, value in self.memo.items()},
            **{f"curve/{key}": value for key, value in curve.items()},
            **{f"weights/{name}": tensor for name, tensor in self.weights.items()},
            **{f"optimizer/{key}": t for key, t in optim.state(self.optimizer, self.names).items()},
            **{f"at/{step}/{name}": t for step, tree in self.at.items() for name, t in tree.items()},
        }

    def _resume(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.load()
        if saved is None:
            return
        # All of these stay on the CPU; a run from before energy was measured has none.
        self.memo, self.done = below(saved, "memo/"), saved["done"]
        self.joules = saved.get("joules", unmeasured())
        saved = {key: tensor.to(self.task.device) for key, tensor in saved.items()}
        step, tallied, self.seconds = saved["progress"].tolist()
        self.step, self.tallied = int(step), int(tallied)
        self.tally, self.diverged = saved["tally"], saved["diverged"]
        for name, tensor in self.weights.items():
            tensor.detach().copy_(saved[f"weights/{name}"])  # in place: the network is bound to this memory
        optim.restore(self.optimizer, self.names, below(saved, "optimizer/"))
        for key, tensor in below(saved, "at/").items():
            at, name = key.split("/", 1)
            self.at.setdefault(int(at), {})[name] = tensor
        curve = below(saved, "curve/")
        for e, at in enumerate(curve.pop("step").cpu()):
            self.points.append({"step": at, **{key: value[:, e].cpu() for key, value in curve.items()}})


def below(tree: Tree, prefix: str) -> Tree:
    """The part of a flat tree under a prefix, which is taken off."""
    return {key.removeprefix(prefix): value for key, value in tree.items() if key.startswith(prefix)}
