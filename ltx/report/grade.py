"""Runs beside what was published: every claim is data, its quantity is code, its verdict one of four words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import product
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from ltx.errors import Damaged, UserError, unknown
from ltx.files import read_bytes, read_yaml
from ltx.report.quantities import QUANTITIES, Absent, Networks
from ltx.report.runs import Experiment, find_runs, pool, read_run, typed

FORM: dict[str, Any] = {"paper": str, "needs": dict, "seeds": int, "claims": list}
RESAMPLES = 3125  # 5 seeds in every order; more seeds are drawn from, with a generator of its own
ABOUT = ("model", "dataset", "method")
VERDICTS = ("inside", "outside", "not comparable", "not enough seeds")


@dataclass(frozen=True)
class Claim:
    """One published statement and what it says of which quantity."""

    statement: str
    source: str
    quantity: str
    published: float
    band: tuple[float, float]
    why: str  # why this band
    unit: str = ""  # % | points | "" : how people read the value
    words: Mapping[str, Any] = field(default_factory=dict)  # at, role, when, control, down_to
    paper: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)  # settings without which runs are not comparable
    of: Mapping[str, str] = field(
        default_factory=dict
    )  # settings of the runs that it speaks of, beside ABOUT
    seeds: int = 3


@dataclass(frozen=True)
class Verdict:
    """A claim beside what an experiment gave."""

    experiment: str
    claim: Claim
    verdict: str
    reason: str = ""
    value: float = nan
    low: float = nan  # ends of a 95 % interval over seeds
    high: float = nan
    n: int = 0


def claims_dir() -> Path:
    """The shipped claims: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    return next(d for d in (here / "configs/claims", here.parent / "configs/claims") if d.is_dir())


def read_claims(folder: Path) -> list[Claim]:
    """Every claim of the yaml files in a folder; raises UserError, naming file and key."""
    return [claim for file in sorted(folder.glob("*.yaml")) for claim in read_file(file)]


def read_file(path: Path) -> Iterator[Claim]:
    try:
        tree = read_yaml(path)
    except (Damaged, OSError) as error:
        raise UserError(str(error)) from error
    if strange := set(tree) - set(FORM):
        raise UserError(f"{path}: unknown key {min(strange)}; choose from {', '.join(FORM)}")
    needs = {key: typed(value) for key, value in tree.get("needs", {}).items()}
    for entry in tree.get("claims", []):
        yield claim(path, entry, paper=tree["paper"], needs=needs, seeds=tree.get("seeds", 3))


def claim(path: Path, entry: Mapping[str, Any], **shared: Any) -> Claim:
    """One entry as a claim, its words those that its quantity takes."""
    name = entry.get("quantity", "")
    if name not in QUANTITIES:
        raise unknown(f"{path}: quantity", str(name), QUANTITIES)
    takes = set(inspect.signature(QUANTITIES[name]).parameters) - {"networks"}
    own = {"statement", "source", "quantity", "published", "band", "why", "unit", "of"}
    if strange := set(entry) - takes - own:
        raise UserError(
            f"{path}: {name} takes no {min(strange)}; choose from {', '.join(sorted(takes | own))}"
        )
    if missing := own - {"unit", "of"} - set(entry):
        raise UserError(f"{path}: a claim on {name} lacks {min(missing)}")
    said = {key: entry[key] for key in own & set(entry)} | {"band": tuple(map(float, entry["band"]))}
    said["of"] = {key: typed(value) for key, value in said.get("of", {}).items()}
    return Claim(**said, words={key: entry[key] for key in takes & set(entry)}, **shared)


def grade(paths: Sequence[Path], claims: Path | None = None) -> list[Verdict]:
    """The verdict of every claim on every experiment below the paths that it speaks of; raises UserError."""
    found = read_claims(claims or claims_dir())
    experiments = pool(read_run(folder) for folder in find_runs(paths))
    return [
        judge(experiment, claim) for experiment in experiments for claim in found if about(experiment, claim)
    ]


def about(experiment: Experiment, claim: Claim) -> bool:
    """Whether a claim speaks of such an experiment at all: network, data and method are those it names."""
    named = {key: claim.needs[key] for key in ABOUT if key in claim.needs} | dict(claim.of)
    return all(experiment.settings.get(key) == value for key, value in named.items())


def judge(experiment: Experiment, claim: Claim) -> Verdict:
    """One claim's verdict on one experiment; diverged networks are left out."""
    name = experiment.runs[0].path.parent.name
    settings, needs = experiment.settings, claim.needs
    other = [key for key in needs if settings.get(key) != needs[key]]
    differs = [f"{key}={settings.get(key)}, the paper's is {needs[key]}" for key in other]
    if differs:
        return Verdict(name, claim, "not comparable", "; ".join(differs))
    levels = experiment.levels[experiment.levels.diverged == 0]
    seeds = sorted(levels[levels.level == 0].seed.unique())
    try:
        beside = what_was_compared(experiment)
        value = measured(Networks(levels, compared=beside), claim)
        low, high = interval(Networks(levels, compared=beside), claim, seeds)
    except Absent as missing:
        return Verdict(name, claim, "not comparable", f"there is {missing}", n=len(seeds))
    few = len(seeds) < claim.seeds
    within = claim.band[0] <= value <= claim.band[1]
    verdict = "not enough seeds" if few else "inside" if within else "outside"
    return Verdict(name, claim, verdict, f"{claim.seeds} are needed" * few, value, low, high, len(seeds))


def what_was_compared(experiment: Experiment) -> pd.DataFrame:
    """What `ltx compare` found in the runs of an experiment; empty where nobody asked it."""
    files = [run.path / "compare" / "compare.csv" for run in experiment.runs]
    found = [pd.read_csv(BytesIO(read_bytes(file))) for file in files if file.is_file()]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def measured(networks: Networks, claim: Claim) -> float:
    """The claim's quantity of these networks: the mean over seeds."""
    return float(np.mean(QUANTITIES[claim.quantity](networks, **claim.words)))


def interval(networks: Networks, claim: Claim, seeds: Sequence[int]) -> tuple[float, float]:
    """95 % over seeds: Student's t of a value per seed, else the quantiles over resampled seeds."""
    values = QUANTITIES[claim.quantity](networks, **claim.words)
    if len(seeds) < 2:
        return nan, nan
    if isinstance(values, pd.Series):
        half = t.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5
        return values.mean() - half, values.mean() + half
    again = [measured(Networks(drawn(networks.levels, some)), claim) for some in resamples(seeds)]
    low, high = np.quantile(again, [0.025, 0.975])
    return float(low), float(high)


def resamples(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """As many seeds, with repetition: all ways of up to 4, 1,000 drawn ways of more."""
    if len(seeds) <= 4:
        return list(product(seeds, repeat=len(seeds)))
    draw = np.random.default_rng(0)
    return [tuple(draw.choice(seeds, len(seeds))) for _ in range(1000)]


def drawn(levels: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """The networks of seeds that may repeat, each repetition a seed of its own."""
    return pd.concat([levels[levels.seed == seed].assign(seed=place) for place, seed in enumerate(seeds)])


# -- as people read it ----------------------------------------------------------------------------------------


def shown(value: float, unit: str) -> str:
    """`38 %`, `+0.51 points`, `2.5`; an empty text for what was not measured."""
    if not isfinite(value):
        return ""
    if unit == "%":
        return f"{100 * value:.2f} %"
    return f"{100 * value:+.2f} points" if unit == "points" else f"{value:.4g}"


def lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """A heading for each experiment and paper, two lines a claim, and how many there are of each verdict."""
    head = None
    for v in verdicts:
        if head != (head := (v.experiment, v.claim.paper)):
            yield f"{v.experiment}, against {v.claim.paper}"
        yield f"  {v.verdict:<16} {v.claim.statement} ({v.claim.source})"
        yield f"  {'':<16} {compared(v)}"
    yield summary(verdicts)


def compared(v: Verdict) -> str:
    """What was published, what we have, with its interval, n and the difference; or why that cannot be said."""
    if not isfinite(v.value):
        return v.reason
    unit = v.claim.unit
    ends = f" ({shown(v.low, unit)} to {shown(v.high, unit)})" * isfinite(v.low)
    said = f"published {shown(v.claim.published, unit)}, ours {shown(v.value, unit)}{ends}, n = {v.n}"
    return (
        f"{said}; accepted {' to '.join(shown(end, unit) for end in v.claim.band)}"
        + f"; {v.reason}" * bool(v.reason)
    )


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a table for a page."""
    heads = ["statement", "published", "ours (95 % interval)", "n", "verdict"]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for v in verdicts:
        unit = v.claim.unit
        ends = f" ({shown(v.low, unit)} to {shown(v.high, unit)})" * isfinite(v.low)
        cells = [
            v.claim.statement,
            shown(v.claim.published, unit),
            shown(v.value, unit) + ends,
            str(v.n or ""),
        ]
        table.append(f"| {' | '.join([*cells, v.verdict + f' ({v.reason})' * bool(v.reason)])} |")
    return "\n".join(table) + "\n"


def records(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The verdicts as plain data, for programs."""
    plain = [asdict(v) for v in verdicts]
    return [
        {k: None if isinstance(x, float) and not isfinite(x) else x for k, x in one.items()} for one in plain
    ]


def summary(verdicts: Sequence[Verdict]) -> str:
    """`9 claims: 7 inside, 2 outside`."""
    counts = {word: sum(v.verdict == word for v in verdicts) for word in VERDICTS}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{len(verdicts)} claims: {told}" if verdicts else "no published claim speaks of these runs"


FORMATS: dict[str, Callable[[Sequence[Verdict]], str]] = {
    "text": lambda verdicts: "\n".join(lines(verdicts)) + "\n",
    "markdown": markdown,
    "json": lambda verdicts: json.dumps(records(verdicts), indent=2) + "\n",
}


def graded(paths: Sequence[Path], claims: Path | None = None, form: str = "text") -> str:
    """The verdicts on all runs below the paths as text, Markdown or JSON; raises UserError."""
    if form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    if claims is not None and not claims.is_dir():
        raise UserError(f"--claims {claims} is not a folder")
    return FORMATS[form](grade(paths, claims))
