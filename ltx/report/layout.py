"""What stands beside what: which settings name the lines, and which the panels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ltx.report.runs import GROUPS, Experiment
from ltx.report.select import in_order

MOST = 7
"""Lines (of tickets) in a panel that colours tell apart at a glance."""


@dataclass(frozen=True)
class Layout:
    """Keys whose values name the lines, keys whose values name the panels, and what else differs with them."""

    by: tuple[str, ...]
    panels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.panels, *self.by)

    @property
    def pages(self) -> bool:
        """Whether every config has figures of its own; not where configs are the lines."""
        return "config" not in self.by


def arrange(experiments: Sequence[Experiment], by: Sequence[str] | None = None) -> Layout:
    """Lines by the keys asked for, else by the method or what else varies, as long as they are `MOST` or fewer.

    Whatever else varies makes panels, first of all the config. What is settled by those keys, such as a
    learning rate that each method has its own of, is noted.
    """
    keys = list(dict.fromkeys([*GROUPS, *(key for e in experiments for key in e.settings)]))
    chosen = found(experiments, keys) if by is None else [key for key in by if key != "role"]
    panels: list[str] = []
    for key in keys:
        if key not in chosen and not settled(experiments, [*chosen, *panels], key):
            panels.append(key)
    if varies(experiments, "config") and not {"config"} & {*chosen, *panels}:
        panels.insert(0, "config")
    shown = [*panels, *chosen]
    along = [key for key in keys if key not in shown and along_with(experiments, key)]
    notes = tuple(also(experiments, key, shown) for key in along)
    return Layout(tuple(chosen), tuple(panels), notes)


def found(experiments: Sequence[Experiment], keys: Sequence[str]) -> list[str]:
    """The keys that name lines best: those that vary within a config, the method first."""
    chosen: list[str] = []
    for key in keys:
        if key == "config" or settled(experiments, ["config", *chosen], key):
            continue
        if chosen and lines(experiments, [*chosen, key]) > MOST:
            break
        chosen.append(key)
    return chosen


def lines(experiments: Sequence[Experiment], keys: Sequence[str]) -> int:
    """How many lines the fullest config would have."""
    groups: dict[str | None, set[tuple[str | None, ...]]] = {}
    for e in experiments:
        groups.setdefault(e.settings.get("config"), set()).add(at(e, keys))
    return max(len(group) for group in groups.values())


def at(experiment: Experiment, keys: Sequence[str]) -> tuple[str | None, ...]:
    """An experiment's values of some keys; None for one that it does not have."""
    return tuple(experiment.settings.get(key) for key in keys)


def varies(experiments: Sequence[Experiment], key: str) -> bool:
    """Whether not all experiments agree in a key."""
    return len({e.settings.get(key) for e in experiments}) > 1


def settled(experiments: Sequence[Experiment], keys: Sequence[str], key: str) -> bool:
    """Whether experiments that agree in `keys` agree in `key` too."""
    return len({at(e, keys) for e in experiments}) == len({at(e, [*keys, key]) for e in experiments})


def along_with(experiments: Sequence[Experiment], key: str) -> bool:
    """Whether a key differs within a config, among experiments that have it by the same method, model, data."""
    having = [e for e in experiments if key in e.settings]
    owner = key.partition(".")[0]
    return not settled(having, ["config", *([owner] if owner in GROUPS else [])], key)


def also(experiments: Sequence[Experiment], key: str, shown: Sequence[str]) -> str:
    """The note on a key that differs along with those shown, and with which if one of them settles it."""
    having = [e for e in experiments if key in e.settings]
    values = sorted({e.settings[key] for e in having}, key=in_order)
    by = next((name for name in shown if settled(having, [name], key)), None)
    if len(values) > MOST or by is None:
        some = ", ".join(values) if len(values) <= MOST else f"{values[0]} to {values[-1]}"
        return f"Lines or panels differ in {key} too: {some}."
    of = {v: dict.fromkeys(words(e, [by]) for e in having if e.settings[key] == v) for v in values}
    return f"{by} and {key} differ together: " + ", ".join(f"{v} ({', '.join(of[v])})" for v in values) + "."


def words(experiment: Experiment, keys: Sequence[str]) -> str:
    return " ".join(word(key, value) for key, value in zip(keys, at(experiment, keys), strict=True))


def word(key: str, value: str | None) -> str:
    """A setting in the name of a line or a panel."""
    if value is None or value != value:  # a table has NaN for what is missing
        return f"no {key}"
    return value if key in GROUPS else f"{key}={value}"


def ordered(experiments: Sequence[Experiment], layout: Layout) -> list[Experiment]:
    """The experiments, named, panel by panel and line by line; numbers by size, words as they came."""
    place: dict[tuple[str, str | None], int] = {}
    for e in experiments:
        for key in layout.keys:
            place.setdefault((key, e.settings.get(key)), len(place))

    def rank(e: Experiment) -> list[tuple[Any, ...]]:
        values = [(key, e.settings.get(key)) for key in layout.keys]
        return [(in_order(v)[0], place[key, v]) for key, v in values]

    def name(e: Experiment) -> str:
        config = e.settings.get("config")
        beside = [o for o in experiments if not layout.pages or o.settings.get("config") == config]
        others = [key for key in layout.keys if key != "method" and varies(beside, key)]
        return " ".join([str(e.settings.get("method")), *([words(e, others)] if others else [])])

    return [replace(e, name=name(e)) for e in sorted(experiments, key=rank)]


def split(experiments: Sequence[Experiment], by: Sequence[str] | None) -> list[Experiment]:
    """Every seed as an experiment of its own if lines are asked for by seed."""
    if "seed" not in (by or ()):
        return list(experiments)
    return [e.only(seed) for e in experiments for seed in sorted(e.levels.seed.unique())]


def named(table: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """A table with the names `panel`, `series` and `line` of every row, as short as they may be within it.

    A line is a role of a series: `ticket`, or `imp ticket` where there are several series. `hue` is the part
    of a series that its first key makes.
    """
    rows = table.copy()

    def texts(keys: Sequence[str]) -> pd.Series:
        shown = [
            [word(key, value) for value in rows[key]] for key in keys if rows[key].nunique(dropna=False) > 1
        ]
        joined = [" ".join(parts) for parts in zip(*shown, strict=True)] if shown else ""
        return pd.Series(joined, index=rows.index, dtype=str)

    rows["panel"], rows["series"], rows["hue"] = texts(layout.panels), texts(layout.by), texts(layout.by[:1])
    rows["line"] = (rows.series + " " + rows.role).str.strip() if rows.series.nunique() > 1 else rows.role
    return rows
