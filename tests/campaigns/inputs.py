"""Hundreds of bad inputs, each of which must be answered in one line: `python tests/campaigns/inputs.py [WORD]...`.

Answered well: exit code 2, one line on stderr that begins with `ltx: ` and names the key or the file, within five
seconds of work, before any data are read, nothing written. Each input is given to a forked child of one process that
has imported everything. With WORDs only the inputs whose description has one of them are tried.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ltx import cli
from ltx.config.compose import compose
from ltx.config.registry import GROUPS, kinds
from ltx.data.download import Downloaded
from ltx.data.images import Digits
from ltx.experiment.execute import execute
from ltx.sweep import launch, plan  # noqa: F401 (loaded once, for all children)

SECONDS = 5
"""Of work: the clock may take longer where others use the machine."""
GIGABYTES = 8
"""Of address space: what cannot be is refused by arithmetic, not by the allocator."""
DATA_READ = 99
"""The exit code of a child whose experiment was taken, and would read its data."""
DIGITS = "9" * 5000
TINY = ("model.hidden=[8]", "replicates=1", "controls=[]", "method.levels=1", "recipe.steps=4")
TINY += ("recipe.eval_every=4",)


@dataclass(frozen=True)
class Input:
    """Words of a command line, what its answer must have, and the files and variables that it is given."""

    words: tuple[str, ...]
    named: tuple[str, ...]
    accepted: bool = False  # an unusual value that is right
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    prelude: str = ""  # lines that are run first

    def __str__(self) -> str:
        words = " ".join(word if len(word) < 80 else f"{word[:60]}...({len(word)})" for word in self.words)
        extra = [*self.files, *(f"{k}={v}" for k, v in self.env.items()), self.prelude]
        return " ".join(filter(None, [words, *extra]))


# -- keys -----------------------------------------------------------------------------------------------------

CHOICE = {"model.arch": "model=torchvision", "model.path": "model=custom", "dataset.path": "dataset=custom"}
NONSENSE = ["abc", "nan", "inf", "-inf", "-1", "[[1]]", "{a: 1}", "1e400", DIGITS, "${oc.env:HOME}"]
FREE = {"out", "dataset.root", "dataset.group", "method.ticket"}
"""Keys that take any text."""


def owners() -> dict[str, str]:
    """For each key the words that choose an experiment which has it."""
    found: dict[str, str] = {}
    for group, members in GROUPS.items():
        for name, kind in members.items():
            for key in kind.__dataclass_fields__:
                found.setdefault(f"{group}.{key}", f"{group}={name}")
    return found


SMALL_CHOICES = {
    "method=transplant": ("method.ticket=t.safetensors",),
    "method=slimming": ("config=digits_early_bird",),
    "method=early_bird": ("config=digits_early_bird",),
    "dataset=image_folder": ("dataset.root=nowhere",),
    "model=conv2": (),
}


def keys() -> Iterator[Input]:
    """Every key with some of the values that it cannot have, others for the next."""
    chosen = owners()
    for number, (key, kind) in enumerate(kinds().items()):
        if key in GROUPS or hasattr(kind, "__dataclass_fields__"):
            yield Input(("run", f"{key}=nosuch"), (key,))
            continue
        choice = chosen.get(key, "")
        words = tuple(filter(None, [choice, *SMALL_CHOICES.get(choice, ())]))
        texts = str(kind).startswith(("str", "<class 'str'>", "str |"))
        for value in NONSENSE[number % 3 :: 3] if key not in FREE else NONSENSE[-1:]:
            right = texts and key in FREE and "{" not in value
            if not ("bool" in str(kind) and value == "-1"):  # which is true
                yield Input(("run", *words, f"{key}={value}"), (key,), accepted=right)


# -- words ----------------------------------------------------------------------------------------------------

WORDS = [
    ("run seed=18446744073709551616", "seed"),
    ("run seed=9223372036854775808", "seed"),
    ("run seed=9223372036854775807 replicates=2", "replicates"),
    ("run seed=-1", "seed"),
    ("run recipe.weight_decay=inf", "recipe.weight_decay"),
    ("run recipe.drop_factor=inf", "recipe.drop_factor"),
    ("run recipe.augment.pad=8", "recipe.augment.pad"),
    ("run recipe.augment.pad=100", "recipe.augment.pad"),
    ("run method.levels=100000000", "method.levels"),
    ("run method.levels=999999999999999999999999999999", "method.levels"),
    ("run method.levels=10000000 method.rate=1e-7", "method.levels"),
    ("run model.hidden=[1000000000000]", "model.hidden"),
    ("run model.hidden=[999999999999999999999999999999]", "model.hidden"),
    ("run model.hidden=[4000000000]", "model.hidden"),
    ("run model.hidden=[3000000000000000000,3000000000000000000]", "model.hidden"),
    ("run model=conv2 model.width=1e9", "model.width"),
    ("run model=conv2 model.width=1e300", "model.width"),
    ("run model=vgg11 dataset=cifar10 model.width=1e6", "model.width"),
    ("run replicates=1000000000", "replicates"),
    ("run replicates=1000000000000", "replicates"),
    ("run replicates=999999999999999999999999999999", "replicates"),
    ("run recipe.steps=10000000000 recipe.eval_every=1 recipe.eval_spacing=0", "recipe.eval_every"),
    ("run recipe.steps=9999999999999999", "recipe.steps"),
    ("run recipe.batch_size=999999999999", "recipe.batch_size"),
    ("run controls=[[reinit]]", "controls"),
    ("run controls=[reinit,reinit]", "controls"),
    ("run controls=[nosuch]", "controls"),
    ("run device=meta", "device"),
    ("run device=cpu:7", "device"),
    ("run device=mps", "device"),
    ("run device=cuda:999", "device"),
    ("run device=nosuch", "device"),
    ("run tracker=nosuch", "tracker"),
    ("run objective.measure=test_accuracy", "objective.measure"),
    ("run objective.level=-1", "objective.level"),
    ("run objective.tolerance=nan", "objective.tolerance"),
    ("run nonsense", "nonsense"),
    ("run =", "="),
    ("run =1", "=1"),
    ("run seed=", "seed"),
    ("run seed", "seed"),
    ("run seed==1", "seed"),
    ("run seed=1,2", "seed=1,2"),
    ("run seed=range(3)", "seed"),
    ("run seed=choice(1,2)", "seed"),
    ("run seed=glob(*)", "seed"),
    ("run seed=[1", "seed"),
    ("run seed={", "seed"),
    ("run seed='1", "seed"),
    ("run ~seed", "seed"),
    ("run +seed=1", "seed"),
    ("run ++seed=abc", "seed"),
    ("run ++new=1", "new"),
    ("run recipe.lr=1e-400", "recipe.lr"),
    ("run recipe.lr=0x10", "recipe.lr"),
    ("run config=", "config"),
    ("run config=../../etc/passwd", "config"),
    ("run config=/etc/passwd", "config"),
    ("run config=digits_lenet,mnist_lenet", "config"),
    ("run model=", "model"),
    ("run model=null", "model"),
    ("run model=torchvision:nosuch", "model"),
    ("run model=torchvision:", "model"),
    ("run model=torchvision:../x", "model"),
    ("run model=custom", "model.path"),
    ("run model=custom model.path=test:net", "model.path"),
    ("run model=custom model.path=os:abort", "model.path"),
    ("run model=custom model.path=nosuch:net", "model.path"),
    ("run model=custom model.path=nosuch", "model.path"),
    ("run model=custom model.path=ltx:nosuch", "model.path"),
    ("run model=custom model.path=numpy:zeros", "model.path"),
    ("run dataset=custom dataset.path=os:abort", "dataset.path"),
    ("run dataset=custom", "dataset.path"),
    ("run dataset=image_folder", "dataset.root"),
    ("run dataset=image_folder dataset.root=nowhere", "nowhere"),
    ("run dataset=image_folder dataset.root=nowhere dataset.size=0", "dataset.size"),
    ("run method=nosuch", "method"),
    ("run launcher=slurm", "launcher"),
    ("run hydra.mode=MULTIRUN", "sweep"),
    ("run +hydra.mode=MULTIRUN", "sweep"),
    ("run ++hydra.mode=MULTIRUN", "sweep"),
    ("run hydra.run.dir=/proc/x", "hydra.run.dir"),
    ("run hydra.job_logging={version:5}", "hydra.job_logging"),
    ("run hydra/job_logging=nosuch", "hydra/job_logging"),
    ("run hydra.searchpath=[nonsense]", "hydra.searchpath"),
    ("run +hydra.nosuch=1", "hydra.nosuch"),
    ("run ++hydra.job.env_set.PATH=x", "hydra.job.env_set"),
    ("run +hydra.callbacks.x._target_=os.abort", "hydra.callbacks"),
    ("run ~hydra.run", "hydra.run"),
    ("run -m seed=1,2", "sweep"),
    ("run --multirun", "sweep"),
    ("run -cn nosuch", "--config-name"),
    ("run -cn config/digits_lenet", "--config-name"),
    ("run -cp /nowhere", "--config-path"),
    ("run --config-path=/nowhere", "--config-path"),
    ("run --config-pa=/nowhere", "--config-path"),
    ("run -cd nowhere", "nowhere"),
    ("run -cd", "-cd"),
    ("run -cd . -cd .", "-cd"),
    ("run --config-dir=. -cd .", "-cd"),
    ("run --experimental-rerun=x.pickle", "--experimental-rerun"),
    ("run --exp x.pickle", "--experimental-rerun"),
    ("run --resolve", "--resolve"),
    ("run -p recipe", "--package"),
    ("run --cfg nosuch", "--cfg"),
    ("run --info nosuch", "--info"),
    ("run --nosuch", "--nosuch"),
    ("run -z", "-z"),
    ("run --cfg job seed=abc", "seed"),
    ("sweep seed=1,2 seed=3,4", "seed"),
    ("sweep seed=abc,1", "seed"),
    ("sweep config=nosuch*", "config"),
    ("sweep config=glob(nosuch*)", "config"),
    ("sweep model=torchvision:resnet18,torchvision:nosuch", "model"),
    ("sweep out=a,b", "out"),
    ("sweep launcher=local,slurm", "launcher"),
    ("sweep launcher=nosuch", "launcher"),
    ("sweep launcher=slurm", "launcher"),
    ("sweep launcher=ray", "launcher"),
    ("sweep hydra.sweep.dir=afile/x", "hydra.sweep.dir"),
    ("sweep hydra.launcher.jobs=0", "hydra.launcher.jobs"),
    ("sweep hydra.launcher.jobs=-1", "hydra.launcher.jobs"),
    ("sweep hydra.launcher.nosuch=1", "hydra.launcher.nosuch"),
    ("sweep hydra.launcher._target_=os.abort", "hydra.launcher._target_"),
    ("sweep hydra.sweeper._target_=os.abort", "hydra.sweeper._target_"),
    ("sweep hydra.mode=RUN", "hydra.mode"),
    ("sweep hydra/sweeper=nosuch seed=1,2", "nosuch"),
    ("sweep hydra/launcher=basic", "hydra/launcher"),
    ("sweep +hydra.nosuch=1", "hydra.nosuch"),
    ("sweep --cfg job", "--cfg"),
    ("sweep --seeds-per-job 0", "--seeds-per-job"),
    ("sweep --seeds-per-job x", "--seeds-per-job"),
    ("sweep seed=range(5,5)", "range"),
    ("sweep recipe.lr=interval(0,1)", "recipe.lr"),
    ("sweep replicates=1,1000000000000", "replicates"),
    ("sweep -cd nowhere seed=1,2", "nowhere"),
    ("sweep -cp /nowhere", "--config-path"),
    ("plot nowhere", "nowhere"),
    ("plot R --by nosuch", "nosuch"),
    ("plot R --where nosuch=1", "nosuch"),
    ("plot R --where seed=99", "99"),
    ("plot R --where seed", "seed"),
    ("plot R --against nosuch", "nosuch"),
    ("plot R --tolerance nan", "--tolerance"),
    ("plot R --tolerance -1", "--tolerance"),
    ("table R --tolerance nan", "--tolerance"),
    ("table R --tolerance -1", "--tolerance"),
    ("table R --tolerance inf", "--tolerance"),
    ("table R --tolerance x", "--tolerance"),
    ("table R --format nosuch", "nosuch"),
    ("table R --only nosuch", "nosuch"),
    ("table nowhere", "nowhere"),
    ("show nowhere", "nowhere"),
    ("status nowhere", "nowhere"),
    ("connect nowhere", "nowhere"),
    ("connect R --levels ²", "--levels"),
    ("connect R --levels x", "--levels"),
    ("connect R --levels 99", "--levels"),
    ("connect R --levels -1", "--levels"),
    ("connect R --steps x", "--steps"),
    ("connect R --steps -1", "--steps"),
    ("connect R --steps 99999", "--steps"),
    ("connect R --device nosuch", "device"),
    ("connect R --device cuda:99", "device"),
    ("data fetch nosuch", "nosuch"),
    ("data fetch digits", "digits"),
    ("nosuch", "nosuch"),
]
LONG = [
    (("run", f"recipe.steps={DIGITS}"), "recipe.steps"),
    (("run", f"recipe.eval_every={DIGITS}"), "recipe.eval_every"),
    (("run", f"method.rewind_step={DIGITS}"), "method.rewind_step"),
    (("run", f"recipe.warmup={DIGITS}ep"), "recipe.warmup"),
    (("run", f"recipe.drops=[{DIGITS}]"), "recipe.drops"),
    (("run", f"seed={DIGITS * 20}"), "seed"),
    (("run", "a" * 100_000), "aaa"),
    (("run", f"config={'a' * 5000}"), "config"),
    (("run", f"model={'a' * 5000}"), "model"),
    (("run", f"{'a' * 5000}=1"), "aaa"),
    (("run", "-cd", "a" * 5000), "aaa"),
    (("run", f"out={'a' * 5000}", *TINY), "aaa"),
    (("run", "seed=" + "[" * 500), "seed"),
    (("run", "seed=" + "[" * 2000 + "]" * 2000), "seed"),
    (("run", "model.hidden=[" + ",".join(["1"] * 3000) + ",x]"), "model.hidden"),
    (("run", "seed=\0"), "seed"),
    (("run", "seed=\n1\n2"), "seed"),
    (("run", "config=\x1b[31m"), "config"),
    (("run", "controls=[\x1b[31m]"), "controls"),
    (("plot", "a" * 5000), "aaa"),
    (("table", "a" * 5000), "aaa"),
    (("status", "a" * 5000), "aaa"),
    (("show", "a" * 5000), "aaa"),
    (("connect", "a" * 5000), "aaa"),
    (("connect", "R", "--steps", DIGITS), "--steps"),
    (("connect", "R", "--levels", DIGITS), "--levels"),
    (("connect", "R", "--steps", ""), "--steps"),
    (("connect", "R", "--levels", ""), "--levels"),
    (("sweep", "hydra.launcher.partition=gpu\ntouch X"), "hydra.launcher.partition"),
]


def words() -> Iterator[Input]:
    """Whole command lines."""
    for line, named in WORDS:
        yield Input(tuple(line.split()), (named,))
    for given, named in LONG:
        yield Input(given, (named,))


# -- files ----------------------------------------------------------------------------------------------------

HEAD = b"# @package _global_\ndefaults: [digits_lenet]\n"
BOMB = b"a: &a [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n".encode() for n in range(9)
)
REFUSED: dict[str, bytes] = {
    "env_set": b"hydra: {job: {env_set: {PATH: /tmp}}}",
    "env_git": b"hydra: {job: {env_set: {GIT_CONFIG_COUNT: '1'}}}",
    "chdir": b"hydra: {job: {chdir: true}}",
    "rundir": b"hydra: {run: {dir: elsewhere}}",
    "sweepdir": b"hydra: {sweep: {dir: elsewhere}}",
    "subdir": b"hydra: {output_subdir: elsewhere}",
    "mode": b"hydra: {mode: MULTIRUN}",
    "verbose": b"hydra: {verbose: true}",
    "search": b"hydra: {searchpath: [file:///tmp]}",
    "callback": b"hydra: {callbacks: {evil: {_target_: os.abort}}}",
    "filehandler": b"hydra: {job_logging: {handlers: {x: {class: logging.FileHandler, filename: v, mode: w}}}}",
    "logging_ext": b"hydra: {job_logging: {x: 'ext://os.abort'}}",
    "logging_class": b"hydra: {job_logging: {handlers: {x: {class: subprocess.Popen, args: [ls]}}}}",
    "hydra_logging": b"hydra: {hydra_logging: {handlers: {x: {'()': os.abort}}}}",
    "sweeper": b"hydra: {sweeper: {_target_: os.abort}}",
    "sampler": b"hydra: {sweeper: {sampler: {_target_: os.abort}}}",
    "launcher_target": b"hydra: {launcher: {_target_: os.abort}}",
    "launcher_setup": b"hydra: {launcher: {setup: ['touch X']}}",
    "launcher_choice": b"x: 1",
    "resolver": b"out: ${oc.env:HOME}",
    "resolver_nested": b"out: ${oc.${seed}:HOME}",
    "resolver_key": b"hydra: {help: {app_name: '${oc.env:HOME}'}}",
    "resolver_create": b"out: ${oc.create:1}",
    "loop": b"out: ${out}",
    "target": b"model: {_target_: os.abort}",
    "unknown": b"recipe: {stepz: 1}",
    "value": b"recipe: {steps: [1]}",
    "type": b"seed: many",
    "range": b"seed: -1",
    "broken": b"recipe: [1, {",
    "tab": b"recipe:\n\tsteps: 1",
    "twice": b"seed: 1\nseed: 2",
    "tag": b"seed: !!python/object/apply:os.abort []",
    "latin": b"out: \xfc",
    "bomb": BOMB,
    "deep": b"a: " + b"[" * 3000 + b"]" * 3000,
    "self": b"a: &a [*a]",
    "large": b"#" * 20_000_000,
    "list": b"model: {hidden: [" + b"1," * 200_000 + b"1]}",
    "digits": b"seed: " + DIGITS.encode(),
    "nullkey": b"null: 1",
    "numberkey": b"1: 2",
    "nul": b"seed: \x00",
}
NAMED = {"loop": "out", "range": "seed"}
"""Where the key says enough."""
WHOLE: dict[str, bytes] = {
    "scalar": b"5",
    "alist": b"[1, 2]",
    "text": b"hello",
    "binary": bytes(range(256)),
    "me": b"# @package _global_\ndefaults: [me]\n",
    "there": b"# @package _global_\ndefaults: [nowhere]\n",
    "defaults": b"# @package _global_\ndefaults: 5\n",
    "package": b"# @package hydra.job\nenv_set: {PATH: /tmp}\n",
    "moved": b"# @package _global_\ndefaults:\n  - digits_lenet\n  - part@hydra.job: x\n",
    "launcher": b"# @package _global_\ndefaults:\n  - digits_lenet\n  - override /launcher: evil\n",
}
GOOD: dict[str, bytes] = {
    # Without effect: the root's own choice comes last.
    "logging": b"# @package _global_\ndefaults:\n  - digits_lenet\n  - override /hydra/job_logging: default\n",
    "launch": b"# @package _global_\ndefaults:\n  - digits_lenet\n  - override /hydra/launcher: basic\n",
    "bom": b"\xef\xbb\xbf" + HEAD + b"seed: 3\n",
    "headless": b"defaults: [digits_lenet]\nseed: 3\n",
    "empty": b"",
    "settings": HEAD + b"hydra: {launcher: {jobs: 2}}\n",
    "crlf": HEAD.replace(b"\n", b"\r\n") + b"seed: 3\r\n",
    "keys": HEAD + b"recipe: {steps: 50}\nout: ${seed}\n",
}
FOLDERS = [
    "ü",
    "a=b",
    "it's",
    "a,b",
    "a[b]",
    "a(b)",
    "a b",
    "a{b",
    "$x",
    "${x}",
    "~",
    "a\\b",
    'a"b',
    "a#b",
    "a&b",
    "%41",
]


def files() -> Iterator[Input]:
    """Experiments of one's own: what starts something, what cannot be read, and what is unusual but right."""
    beside = {
        "c/config/part.yaml": b"a: 1\n",
        "c/launcher/evil.yaml": b"hydra: {launcher: {_target_: os.abort}}\n",
    }
    for name, content in REFUSED.items():
        yield given(name, HEAD + content + b"\n", beside, named=NAMED.get(name, name))
    for name, content in WHOLE.items():
        yield given(name, content, beside)
    for name, content in GOOD.items():
        yield given(name, content, beside, accepted=True)
    yield Input(
        ("run", "-cd", "c", "config=mine"), ("mine.yml", "mine.yaml"), files={"c/config/mine.yml": HEAD}
    )
    yield Input(("run", "-cd", "c", "config=mine"), ("mine",), files={"c/config/other.yaml": HEAD})
    yield Input(("sweep", "-cd", "c", "launcher=evil", "seed=1,2"), ("launcher/evil",), files=beside)
    circle = {"c/config/a.yaml": b"defaults: [b]\n", "c/config/b.yaml": b"defaults: [a]\n"}
    yield Input(("run", "-cd", "c", "config=a"), ("config=a",), files=circle)
    for folder in FOLDERS:
        inside = {f"{folder}/config/mine.yaml": HEAD}
        yield Input(("run", "-cd", folder, "config=mine"), (), accepted=True, files=inside)


def given(
    name: str, content: bytes, beside: dict[str, bytes], accepted: bool = False, named: str = ""
) -> Input:
    """A run of an experiment that a file describes."""
    files = {**beside, f"c/config/{name}.yaml": content}
    return Input(("run", "-cd", "c", f"config={name}"), (named or name,), accepted=accepted, files=files)


# -- places ---------------------------------------------------------------------------------------------------


def places() -> Iterator[Input]:
    """Environments: variables, streams and folders that are not as they should be."""
    for value in ("abc", "nan", "-1", "inf"):
        yield Input(("run", *TINY), ("LTX_LOCK_SECONDS",), env={"LTX_LOCK_SECONDS": value})
    for words_ in (("list",), ("show", "R"), ("table", "R"), ("run", "--cfg", "job"), ("run", "seed=α")):
        right = words_[-1] != "seed=α"
        latin = "import io; sys.stdout = io.TextIOWrapper(open(1, 'wb', closefd=False), 'ascii')"
        yield Input(words_, () if right else ("seed",), accepted=right, prelude=latin)
        if right:
            full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
            yield Input(words_, ("No space left",), prelude=full)
            yield Input(words_, (), accepted=True, prelude="sys.stdout = None")
    gone = "os.mkdir('x'); os.chdir('x'); os.rmdir('../x')"
    for words_ in (("run",), ("list",), ("sweep", "seed=1,2"), ("plot", "R")):
        yield Input(words_, ("working directory",), prelude=gone)
    for name, value in (("MPLBACKEND", "nonsense"), ("PATH", ""), ("HOME", "/nowhere"), ("COLUMNS", "x")):
        yield Input(("table", "R"), (), accepted=True, env={name: value})


# -- the campaign ---------------------------------------------------------------------------------------------


def answer(one: Input, run: Path, place: Path) -> str:
    """What is wrong with the answer to an input; nothing, if it was answered well."""
    for name, content in one.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    before = sorted(place.rglob("*"))
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        child(one, run, place)
    while (done := os.wait4(process, os.WNOHANG))[0] == 0:
        if time.monotonic() - began > 20 * SECONDS:
            os.kill(process, 9)
        time.sleep(0.01)
    code, used = os.waitstatus_to_exitcode(done[1]), done[2].ru_utime + done[2].ru_stime
    told = (place.parent / "err").read_text(errors="replace")
    wrote = sorted(set(place.rglob("*")) - set(before))
    return judged(one, code, used, told, wrote)


def judged(one: Input, code: int, used: float, told: str, wrote: list[Path]) -> str:
    """What is wrong with an exit code, seconds of work, what was said, and what was written."""
    lines = told.strip().splitlines()
    if used > SECONDS:
        return f"took {used:.1f} s"
    if "Traceback" in told:
        return f"traceback: {lines[-1][:150]}"
    if one.accepted:
        return "" if code in (0, DATA_READ) else f"refused: exit {code} {told[:200]}"
    if code != 2:
        return f"exit {code} {' | '.join(lines)[:200]}"
    if len(lines) != 1 or not lines[0].startswith("ltx: ") or not lines[0].isprintable():
        return f"not one line: {' | '.join(lines)[:200]!r}"
    if missing := [word for word in one.named if word not in told]:
        return f"{missing[0]} is not named: {told[:200]}"
    return f"wrote {wrote[0]}" if wrote else ""


def child(one: Input, run: Path, place: Path) -> None:
    """The life of a forked process: one command."""
    try:
        os.chdir(place)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
        os.environ.update(one.env)
        for kind in (Digits, Downloaded):
            kind.load = lambda self: os._exit(DATA_READ)  # type: ignore[method-assign]
        exec(one.prelude, {"os": os, "sys": sys})
        sys.argv = ["ltx", *(str(run) if word == "R" else word for word in one.words)]
        cli.main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if sys.stdout:
            sys.stdout.flush()
        os._exit(code)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(wanted: list[str]) -> int:
    inputs = [one for some in (keys, words, files, places) for one in some()]
    inputs = [one for one in inputs if not wanted or any(word in str(one) for word in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        run = execute(compose([*TINY, f"out={home}/runs"]))
        wrong = []
        for one in inputs:
            place = home / "place"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            if why := answer(one, run, place):
                wrong.append((str(one), why))
                print(f"{one}: {why}", flush=True)
    print(f"{len(inputs)} tried, {len(inputs) - len(wrong)} held: answered in one line, or taken where right")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
