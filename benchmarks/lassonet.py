"""Ten seeds of one LassoNet path here, in one stack, beside runs of the package lassonet on the same cores.

Same data, network, schedule and lambdas, from each one's own initial weights; `lambda_start` is given, for the
package needs minutes to find it. The package's seeds are timed one by one and their mean is taken ten times.

    python benchmarks/lassonet.py [dataset] [hidden] [lambda_start]
"""

from __future__ import annotations

import sys
import time
from functools import partial

import torch

from ltx.config.compose import compose
from ltx.core.session import Session
from ltx.core.task import Task
from ltx.engine.train import train

SEEDS, THEIRS = 10, 2
EPOCHS, PATH_EPOCHS, FACTOR = 200, 100, 1.05


def experiment(dataset: str, hidden: int, start: float):
    """The experiment as ltx has it: the task, and its method's search."""
    composed = compose(
        [
            *("method=lassonet", "model=skip_mlp", f"model.hidden=[{hidden}]", f"dataset={dataset}"),
            *("controls=[]", f"replicates={SEEDS}", "recipe.batch_size=0", "recipe.lr=1e-3"),
            *(f"recipe.steps={EPOCHS}", "recipe.eval_every=1", f"method.path_multiplier={FACTOR}"),
            *(f"method.path_epochs={PATH_EPOCHS}", f"method.lambda_start={start}", "method.features=[1]"),
        ]
    )
    run = composed.run
    task = run.task(run.dataset.load(), torch.device("cpu"))
    return task, run.method.search(task, task.dense(), run.recipe.plan(len(task.data.train)))


def ours(dataset: str, hidden: int, start: float) -> tuple[float, list[int], Task]:
    """Seconds of the dense training and the path of all seeds, and how many points each path had."""
    task, search = experiment(dataset, hidden, start)
    began = time.perf_counter()
    dense = train(task, search.send(None), Session())
    path = train(task, search.send(dense), Session())
    return time.perf_counter() - began, path.memo["points"].tolist(), task


def theirs(task: Task, hidden: int, start: float) -> tuple[list[float], list[int]]:
    """Seconds and points of each run of the package."""
    from lassonet import LassoNetClassifier

    data = task.data
    arrays = [
        part
        for split in (data.train, data.val)
        for part in (data.prepare(split.inputs).flatten(1).numpy(), split.targets.numpy())
    ]
    seconds, points = [], []
    for seed in range(THEIRS):
        model = LassoNetClassifier(
            hidden_dims=(hidden,), lambda_start=start, path_multiplier=FACTOR, n_iters=(EPOCHS, PATH_EPOCHS),
            optim=(partial(torch.optim.Adam, lr=1e-3), partial(torch.optim.SGD, lr=1e-3, momentum=0.9)),
            torch_seed=seed, verbose=0,
        )  # fmt: skip
        began = time.perf_counter()
        path = model.path(arrays[0], arrays[1], X_val=arrays[2], y_val=arrays[3], disable_lambda_warning=True)
        seconds.append(time.perf_counter() - began)
        points.append(len(path))
    return seconds, points


def main() -> None:
    dataset, hidden, start = sys.argv[1:] or ("digits", "32", "1.0")
    mine, my_points, task = ours(dataset, int(hidden), float(start))
    each, their_points = theirs(task, int(hidden), float(start))
    ratio = SEEDS * sum(each) / len(each) / mine
    print(f"{dataset}, hidden {hidden}, lambda from {start}, {torch.get_num_threads()} threads")
    print(f"ltx, {SEEDS} seeds in one stack: {mine:.1f} s, points {my_points}")
    print(f"lassonet, each of {THEIRS}: {', '.join(f'{s:.1f} s' for s in each)}, points {their_points}")
    print(f"ten seeds: {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
