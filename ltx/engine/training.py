"""A round in training: feed, forward and backward, the method's hooks, the optimizer; measured and kept as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ltx.core.session import Session
from ltx.core.task import Task
from ltx.core.ticket import Curve, Round, Trained, Tree, below, copied, unmeasured
from ltx.engine.energy import Meter
from ltx.engine.evaluate import evaluate, evaluate_own, own_outputs
from ltx.engine.executors import choose
from ltx.engine.feed import Feed
from ltx.engine.optimizer import Optimizer, clip
from ltx.engine.patience import Patience


class Training:
    """A round in training. Every tensor it changes is its own: the ticket is only read."""

    def __init__(self, task: Task, round: Round, session: Session | None = None) -> None:
        self.task, self.round, self.session = task, round, session or Session()
        self.plan, self.where = round.plan, f"level {round.level}, {round.name}"
        self.executor = choose(task, round)(task, round)
        self.session.checks.starts_from(self.executor.weights(), round.ticket, self.where)
        self.optimizer = Optimizer(
            self.plan, self.executor.leaves, self.executor.gradients, self.executor.blocks()
        )
        self.mask = round.ticket.mask
        self._remember({key: self._masked(key, value) for key, value in round.warm.items()})
        self.rows = round.rows and round.rows.to(task.device)
        self.feed = Feed(task, self.plan, self.rows)
        self.reached, self.seconds = round.start, 0.0  # the step, and the time it took to get there
        self.joules = torch.zeros(2, dtype=torch.float64)
        self.at: dict[int, Tree] = {}
        self.points: list[dict[str, Tensor]] = []
        self.tally = torch.zeros(task.replicates, device=task.device)  # of losses since the last evaluation
        self.tallied = 0
        self.diverged = torch.zeros(task.replicates, dtype=torch.bool, device=task.device)
        self.memo: Tree = {}
        self.done = torch.zeros(task.replicates, dtype=torch.bool)
        self.spent = torch.zeros(task.replicates, dtype=torch.int64)  # steps of those that have stopped
        self.patience = Patience(round.patience, task.replicates, round.tolerance)

    def run(self, *, and_save: bool = False) -> Trained:
        """Train to the end, and save what is there then if others of the round are still to come."""
        evaluations, checkpoint = set(self.plan.evaluations(self.round.start)), self.session.checkpoint
        self._resume(checkpoint.load())
        began, meter = time.perf_counter() - self.seconds, Meter(self.task.device, self.joules)
        if self.reached == self.round.start and not self.points:
            self._keep()
            self._evaluate()
        while not self._ended():
            self.step()
            self._keep()
            self._watch()
            if self.reached in evaluations or self._ended():
                self._evaluate()
            else:
                self.session.tick(self.reached, None)
            self._retire()
            meter.tick()
            if checkpoint.due() and not self._ended():
                self.seconds, self.joules = time.perf_counter() - began, meter.read()
                checkpoint.save(self._state())
        self._compare()
        on_train = self._measure("train")[self.task.goal.measure]
        if self.task.device.type == "cuda":
            torch.cuda.synchronize(self.task.device)
        self.seconds, self.joules = time.perf_counter() - began, meter.read()
        if and_save:
            checkpoint.save(self._state())
        return Trained(
            final=copied(self.executor.weights()),
            mask=self.mask,
            at=self.at,
            curve=self._curve(),
            train_measure=on_train,
            diverged=self.diverged.cpu(),
            steps=torch.where(self.running, self.reached - self.round.start, self.spent),
            seconds=self.seconds,
            joules=self.joules,
            engine=self.executor.identity,
            memo=self.memo,
            optimizer=self._remembered() if self.round.keep_optimizer else {},
        )

    # -- a step -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One step of every replicate; nothing here waits for the device."""
        executor, hooks = self.executor, self.round.hooks
        inputs, targets = self.feed.batch(self.reached)
        self.tally += executor.backward(inputs, targets, self.reached)
        self.tallied += 1
        if hooks.penalty:
            hooks.penalty(executor.leaves, executor.gradients)
        if hooks.regrow:
            weights, gradients = executor.weights(), executor.whole(executor.gradients)
            self._regrow(hooks.regrow(self.reached, weights, gradients, self.mask))
        executor.mask_gradients()
        if self.plan.clip_norm:
            clip(executor.gradients, self.plan.clip_norm)
        rate = self.plan.lr_at(self.reached)
        self.optimizer.step(rate)
        if hooks.project:
            self._project(hooks.project, rate)
        self.reached += 1

    def _regrow(self, mask: Tree | None) -> None:
        """Take on another mask, in whoever is still running."""
        if mask is None:
            return
        changed = {}
        for name, alive in mask.items():
            running = self.running.to(alive.device).view(-1, *[1] * (alive.dim() - 1))
            changed[name] = (alive != self.mask[name]) & running
        self.mask = self.mask | {name: self.mask[name] ^ there for name, there in changed.items()}
        weights = self.executor.weights()
        self.executor.load(
            weights | {name: torch.where(self.mask[name], weights[name], 0) for name in changed}, self.mask
        )
        self.optimizer.forget(self.executor.part(changed))

    def _project(self, project: Callable[[Tree, float, Tree], None], rate: float) -> None:
        """The method's proximal step; whoever has stopped stays where it is."""
        leaves, stopped = self.executor.leaves, (~self.running).nonzero().flatten().tolist()
        before = [(leaf[r], leaf[r].clone()) for leaf in leaves.values() for r in stopped]
        project(leaves, rate, self.memo)
        for now, then in before:
            now.copy_(then)

    def _ended(self) -> bool:
        return self.reached >= self.plan.steps or bool(self.done.all())

    @property
    def running(self) -> Tensor:
        """Who has not stopped, [R] bool on the CPU."""
        return torch.tensor(self.executor.running)

    def _retire(self) -> None:
        """Whoever is done moves no more, bit for bit, while the others go on beside it."""
        for r in (self.done & self.running).nonzero().flatten().tolist():
            self.spent[r] = self.reached - self.round.start
            self._stop(r)

    def _stop(self, r: int) -> None:
        self.executor.running[r] = False
        self.optimizer.drop(r)

    def _keep(self) -> None:
        if self.reached in self.round.keep:
            self.at[self.reached] = copied(self.executor.weights())

    def _watch(self) -> None:
        """At an epoch's end let the method look at the weights; what it remembers is folded into its memo."""
        hooks = self.round.hooks
        if self.reached % self.plan.epoch or not (hooks.watch or hooks.steer):
            return
        weights = self.executor.weights()
        if hooks.watch:
            self.memo, self.done = hooks.watch(self.reached // self.plan.epoch, weights, self.memo)
        if hooks.steer:
            self.memo, self.done = hooks.steer(weights, self.memo, self._measure)

    def _measure(self, split: str) -> Tree:
        """How good the networks are now on a whole split, or on each one's own part of it."""
        data, own = self.task.data, getattr(self.rows, split, None)
        how, asked = (evaluate, getattr(data, split)) if own is None else (evaluate_own, own)
        found = how(self.task.goal, self.executor, data, asked)
        return {name: value.cpu() for name, value in found.items()}

    # -- what is measured -------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        goal, val, test = self.task.goal, self._measure("val"), self._measure("test")
        train_loss = self.tally / self.tallied if self.tallied else torch.full_like(self.tally, torch.nan)
        self.diverged |= ~val["loss"].isfinite().to(self.task.device) | ~self.tally.isfinite()
        point = {
            "train_loss": train_loss,
            "val_loss": val["loss"],
            "val_measure": val[goal.measure],
            "test_measure": test[goal.measure],
            **{f"val_{name}": val[name] for name in goal.further},
            **{f"test_{name}": test[name] for name in goal.further},
        }
        point = {key: torch.where(self.running, value.cpu(), torch.nan) for key, value in point.items()}
        self.points.append({"step": torch.tensor(self.reached), **point})
        self.tally, self.tallied = torch.zeros_like(self.tally), 0
        self.done = self.done | self.patience.exhausted(point["val_loss"])
        self._check()
        self.session.tick(self.reached, point)

    def _check(self) -> None:
        """What is pruned is zero, and so is all that the optimizer remembers of it."""
        checks, mask, sound = self.session.checks, self.mask, ~self.diverged
        checks.zero("weights", self.executor.weights(), mask, sound, self.where)
        for moments in slots(self._remembered()).values():
            if all(moment.shape == mask[name].shape for name, moment in moments.items() if name in mask):
                checks.zero("optimizer state", moments, mask, sound, self.where)

    def _compare(self) -> None:
        """Once a round: what was computed here is what the network itself computes with these weights."""
        data = self.task.data
        some = data.prepare(data.val.inputs.narrow(0, 0, min(EXAMPLES, len(data.val))))
        theirs = own_outputs(self.task, self.executor.weights(), some)
        self.session.checks.agree(
            self.executor.outputs(some), theirs, ~self.diverged, TOLERANCES[self.plan.precision], self.where
        )

    def _curve(self) -> Curve:
        return Curve.of(
            {key: torch.stack([point[key] for point in self.points], dim=-1) for key in self.points[0]}
        )

    def _state(self) -> Tree:
        """Everything that the rest of the round depends on; the random streams need no saving (see streams)."""
        return {
            "progress": torch.tensor([self.reached, self.tallied, self.seconds], dtype=torch.float64),
            "engine": torch.tensor(list(self.executor.identity.encode()), dtype=torch.uint8),
            "joules": self.joules,
            "tally": self.tally,
            "diverged": self.diverged,
            "done": self.done,
            "spent": self.spent,
            **{f"patience/{key}": value for key, value in self.patience.state().items()},
            **{f"mask/{name}": alive for name, alive in self.mask.items() if self.round.hooks.regrow},
            **{f"memo/{key}": value for key, value in self.memo.items()},
            **{f"curve/{key}": value for key, value in self._curve().tree().items()},
            **{f"weights/{name}": tensor for name, tensor in self.executor.weights().items()},
            **{f"optimizer/{key}": tensor for key, tensor in self._remembered().items()},
            **{f"at/{step}/{name}": t for step, tree in self.at.items() for name, t in tree.items()},
        }

    def _resume(self, saved: Tree | None) -> None:
        if saved is None or bytes(saved["engine"].tolist()).decode() != self.executor.identity:
            return  # sums in another order: what would go on is neither the one engine's result nor the other's
        # All of these stay on the CPU; a run from before energy was measured has none.
        self.memo, self.done, self.spent = below(saved, "memo/"), saved["done"], saved["spent"]
        self.patience.restore(below(saved, "patience/"))
        self.joules = saved.get("joules", unmeasured())
        saved = {key: tensor.to(self.task.device) for key, tensor in saved.items()}
        reached, tallied, self.seconds = saved["progress"].tolist()
        self.reached, self.tallied = int(reached), int(tallied)
        self.tally, self.diverged = saved["tally"], saved["diverged"]
        self.mask = below(saved, "mask/") or self.mask
        self.executor.load(below(saved, "weights/"), self.mask)
        self._remember(below(saved, "optimizer/"))
        for r in self.done.nonzero().flatten().tolist():
            self._stop(r)
        for key, tensor in below(saved, "at/").items():
            at, name = key.split("/", 1)
            self.at.setdefault(int(at), {})[name] = tensor
        curve = below(saved, "curve/")
        for e, at in enumerate(curve.pop("step").cpu()):
            self.points.append({"step": at, **{key: value[:, e].cpu() for key, value in curve.items()}})

    def _remembered(self) -> Tree:
        """The optimizer's state `name|slot` in the network's own shapes, [R, *shape]."""
        state, leaves = self.optimizer.state(), self.executor.leaves
        found: Tree = {}
        for slot, tree in slots(state).items():
            like = all(value.shape == leaves[name].shape for name, value in tree.items())
            whole = self.executor.whole(tree) if like else tree
            found |= {f"{name}|{slot}": value for name, value in whole.items()}
        return found

    def _remember(self, saved: Tree) -> None:
        """Take on what `_remembered` gave."""
        shapes = self.round.ticket.weights
        for slot, tree in slots(saved).items():
            like = all(value.shape == shapes[name].shape for name, value in tree.items())
            part = self.executor.part(tree) if like else tree
            self.optimizer.restore({f"{name}|{slot}": value for name, value in part.items()})

    def _masked(self, key: str, value: Tensor) -> Tensor:
        """One entry of an optimizer's state, zero where the ticket has no weight."""
        alive = self.mask.get(key.rsplit("|", 1)[0])
        return value if alive is None or alive.shape != value.shape else torch.where(alive, value, 0)


EXAMPLES = 64
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}
"""How far an output may be from the module's own, as a fraction of one and the largest: sums in another order
(float32; TF32 on a GPU), eight bits of mantissa through a network (bfloat16)."""


def slots(state: Tree) -> dict[str, Tree]:
    """The optimizer's state `leaf|slot` as a tree for each slot."""
    found: dict[str, Tree] = {}
    for key, tensor in state.items():
        name, slot = key.rsplit("|", 1)
        found.setdefault(slot, {})[name] = tensor
    return found
