"""Which runs and networks are looked at: `--where key=value`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ltx.errors import UserError, unknown
from ltx.report.runs import SEARCH, Run

ROWS = ("role", "level", "seed")  # keys that tell the networks of one run apart
RANGE = re.compile(r"(-?[\d.]+?(?:e-?\d+)?)\.\.(-?[\d.]+(?:e-?\d+)?)", re.IGNORECASE)
ITEMS = re.compile(r"(?:\[[^\]]*\]|[^,])+")


def select(runs: Sequence[Run], where: Sequence[str]) -> list[Run]:
    """The runs, and of them the networks, for which every `key=value` of `where` holds.

    A value may be several (`a,b`) or, of numbers, a range (`2..5`). Of roles and levels the dense networks
    always stay: everything is measured against them. UserError for a key or a value that no run has.
    """
    found = list(runs)
    for filter in where:
        key, equals, wanted = filter.partition("=")
        if not equals or not wanted:
            raise UserError(f"--where {filter} is not KEY=VALUE")
        known(runs, key, "--where")
        there = values(runs, key)
        for one in ITEMS.findall(wanted):
            if not any(fits(value, one) for value in there):
                raise unknown(f"--where {key}", one, there)
        found = [kept for run in found if (kept := narrow(run, key, wanted))]
    if not found:
        raise UserError(f"no run has all of {', '.join(f'--where {filter}' for filter in where)}")
    return found


def keys(runs: Iterable[Run]) -> list[str]:
    """Everything that can tell networks apart, in the order of the configurations."""
    return list(dict.fromkeys([*(key for run in runs for key in run.settings), *ROWS]))


def known(runs: Iterable[Run], key: str, option: str) -> None:
    """UserError, with what there is, if no run has the key."""
    there = keys(runs)
    if key not in there:
        near = [name for name in there if name.endswith(f".{key}")]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"{option} {key}: no run has this key; {hint}choose from {', '.join(there)}")


def values(runs: Iterable[Run], key: str) -> list[str]:
    """The values of a key in all runs, each once."""
    if key in ROWS:
        found = {str(value) for run in runs for value in run.levels[key].unique()} - {SEARCH}
    else:
        found = {run.settings[key] for run in runs if key in run.settings}
    return sorted(found, key=in_order)


def in_order(value: str | None) -> tuple[float, str]:
    """Sorts numbers by size, before words."""
    number = None if value is None else numeric(value)
    return (float("inf") if number is None else number, value or "")


def narrow(run: Run, key: str, wanted: str) -> Run | None:
    """What of a run fits; None if nothing does."""
    accepted = [
        value for value in values([run], key) if any(fits(value, one) for one in ITEMS.findall(wanted))
    ]
    if not accepted:
        return None
    if key not in ROWS:
        return run
    levels = run.levels
    kept = levels[key].astype(str).isin(accepted)
    if key != "seed":
        kept |= (levels.role == "ticket") & (levels.level == 0)
    return replace(run, levels=levels[kept], tables={})


def fits(value: str, wanted: str) -> bool:
    """Whether a value is the wanted one (numbers however they are written) or lies in the wanted range."""
    number = numeric(value)
    if (ends := RANGE.fullmatch(wanted)) and number is not None:
        low, high = numeric(ends[1]), numeric(ends[2])
        return low is not None and high is not None and low <= number <= high
    return value == re.sub(r"\s", "", wanted) or (number is not None and number == numeric(wanted))


def numeric(text: str) -> float | None:
    """The number that is written, if one is."""
    try:
        return float(text)
    except ValueError:
        return None
