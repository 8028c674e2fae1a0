"""A run's ticket as one file to carry elsewhere, and such a file read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ltx.core.ticket import Tree, digest
from ltx.errors import UserError, demand
from ltx.files import read_yaml
from ltx.models import MODELS
from ltx.models.base import tensors
from ltx.pruning.portable import Portable, read, save
from ltx.streams import drawing
from ltx.study.reopen import open_ticket, reopen, trained_levels

CARRIED = ("level", "role", "draw", "start", "tag", "config", "versions")
"""What a portable ticket says as the run's own file does."""
SHIPPED = MODELS.keys() - {"custom", "torchvision"}
NEAR = 0.03  # how far, as a fraction, a level's density may lie from the one that is asked for


def pack(
    folder: Path,
    out: Path,
    *,
    level: int | None = None,
    density: float | None = None,
    seed: int | None = None,
    role: str = "ticket",
    draw: int = 0,
    weights: bool = False,
) -> str:
    """Write one seed's ticket of a run as a file of its own; returns what was written, in a line.

    Its weights are left out if its seed draws them again, unless `weights`. Raises UserError.
    """
    name = f"{role}_{draw}" if draw else role
    chosen = nearest(folder, name, level, density)
    ticket, header = open_ticket(folder, chosen, name)
    seeds = header["seeds"]
    seed = seeds[0] if seed is None else seed
    demand(seed in seeds, "--seed", seed, f"the run has seeds {', '.join(map(str, seeds))}")
    r = seeds.index(seed)
    start: Tree = {key: tensor[r] for key, tensor in ticket.weights.items()}
    drawn = "" if weights or not draws_again(folder, seed, start) else "init"
    about = {
        **{key: header[key] for key in CARRIED},
        "start": header["start"] if isinstance(header["start"], int) else header["start"][r],
        "layers": {key: list(alive[r].shape) for key, alive in ticket.mask.items()},
        "seed": seed,
        "density": header["density"][r],
        "drawn": drawn,
        "weights": digest(start),
        "fingerprint": header.get("fingerprint", ""),
    }
    mask = {key: alive[r] for key, alive in ticket.mask.items()}
    size = save(out, Portable(mask, {} if drawn else start, about))
    kept = f"its weights are drawn again from seed {seed}" if drawn else "with its weights"
    return f"{out}: {100 * about['density']:.3g} % of weights, level {chosen}, seed {seed}, {kept}, {size:,} bytes"


def nearest(folder: Path, name: str, level: int | None, density: float | None) -> int:
    """The level that is asked for, or the one of a density; raises UserError, naming the nearest there are."""
    there = trained_levels(folder)
    if level is not None:
        demand(level in there, "--level", level, f"the run has levels {', '.join(map(str, there))}")
        return level
    if density is None:
        raise UserError("say which ticket: --level 7 or --density 0.1")
    densities = {}
    for one in there:
        if (folder / f"level_{one:02d}" / name).is_dir():
            densities[one] = open_ticket(folder, one, name)[1]["density"][0]
    demand(len(densities) > 0, "--role", name, "the run has no such round")
    best = min(densities, key=lambda one: abs(densities[one] - density))
    close = ", ".join(
        f"{densities[one]:.3g}"
        for one in sorted(densities, key=lambda one: abs(densities[one] - density))[:3]
    )
    demand(abs(densities[best] - density) <= NEAR * density, "--density", density, f"the nearest are {close}")
    return best


def draws_again(folder: Path, seed: int, start: Tree) -> bool:
    """Whether weights are those that the seed's stream gives the run's own network, one that ships with ltx.

    Nothing else is built: a run's folder is not to choose what code is run here.
    """
    if str(read_yaml(folder / "config.yaml").get("model", {}).get("name")) not in SHIPPED:
        return False
    run = reopen(folder, trust=True)  # its data, which may be anybody's code, are not loaded
    if not (run.dataset.shape and run.dataset.outputs):
        return False
    with drawing(seed, "init"):
        network = run.model.build(run.dataset.shape, run.dataset.outputs)
    return digest({name: tensor.detach() for name, tensor in tensors(network).items()}) == digest(start)


def described(path: Path) -> Iterator[tuple[str, str]]:
    """What a ticket's file is, as names and values."""
    found = read(path)
    about = found.about
    config = about["config"]
    names = {group: config.get(group, {}).get("name", "?") for group in ("model", "dataset", "method")}
    yield (
        "ticket",
        f"{100 * found.density:.3g} % of weights, {about['role']} of level {about['level']}, seed {about['seed']}",
    )
    yield "found by", f"{names['method']} on {names['dataset']}, {names['model']}"
    yield "trained from", f"step {about['start']}"
    for name, alive in found.mask.items():
        yield name, f"{' x '.join(map(str, alive.shape))}, {int(alive.sum()):,} of {alive.numel():,} alive"
    yield "weights", f"drawn again from seed {about['seed']}" if about["drawn"] else "in the file"
    yield "run", about["tag"]
    yield "versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())
