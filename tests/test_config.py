"""Every mistake in a configuration is one line that names the key, what was given and what is allowed."""

import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import TINY
from omegaconf import OmegaConf

from ltx import data
from ltx.config.compose import compose
from ltx.config.identity import differences
from ltx.config.registry import GROUPS, config_dir, experiments, keys
from ltx.config.run import Run
from ltx.data.base import Data, Prepare, Split, fingerprint
from ltx.errors import UserError
from ltx.experiment.execute import execute
from ltx.sweep.launch import completions

# What is typed, and words that the one line must have in this order.
MISTAKES = [
    ("recipe.stepz=100", "unknown key recipe.stepz", "did you mean recipe.steps?", "recipe.optimizer"),
    ("reciep.steps=100", "unknown key reciep.steps", "did you mean recipe.steps?"),
    ("steps=100", "unknown key steps", "did you mean recipe.steps?", "choose from", "recipe"),
    ("metod=imp", "unknown key metod", "did you mean method?"),
    ("+key=1", "unknown key key", "choose from", "model"),
    ("++recipe.key=1", "unknown key recipe.key"),
    ("+recipe.steps=100", "write recipe.steps=100"),
    ("~recipe.steps", "~recipe.steps is not possible"),
    ("model._target_=os.system", "unknown key model._target_"),
    ("+model._target_=os.system", "unknown key model._target_"),
    ("dataset.root=/tmp", "unknown key dataset.root", "this dataset has no keys"),
    (
        "model=conv2 model.hidden=[3]",
        "unknown key model.hidden",
        "choose from model.weights, model.fresh, model.width",
    ),
    ("config=mnist_lennet", "config=mnist_lennet", "did you mean mnist_lenet", "digits_lenet"),
    ("config=", "config=", "choose from", "digits_lenet"),
    ("config=[digits_lenet]", "config=['digits_lenet']", "choose from"),
    ("method=snip method.levels=3", "unknown key method.levels", "choose from method.densities"),
    ("method=snip method.densitis=[1]", "unknown key method.densitis", "did you mean method.densities?"),
    ("config=digits_early_bird method.ratios=[0.5,0.3]", "method.ratios=[0.5, 0.3]", "they must rise"),
    ("model=lenett", "model=lenett", "did you mean lenet", "resnet20"),
    ("dataset=minst", "dataset=minst", "did you mean mnist?"),
    ("method=impp", "method=impp", "did you mean imp", "oneshot"),
    ("mnist_lenet", "'mnist_lenet' is not KEY=VALUE", "did you mean config=mnist_lenet?"),
    ("nonsense", "'nonsense' is not KEY=VALUE"),
    ("seed='1", "cannot be read"),
    ("seed=abc", "seed=abc", "a whole number"),
    ("seed=null", "seed=null", "a whole number"),
    ("recipe.batch_size=1.5", "recipe.batch_size=1.5", "a whole number"),
    ("recipe.lr=fast", "recipe.lr=fast", "a number"),
    ("recipe.nesterov=perhaps", "recipe.nesterov=perhaps", "true or false"),
    ("method.conv_rate=x", "method.conv_rate=x", "a number or null"),
    ("model.hidden=300", "model.hidden=300", "a list", "a whole number"),
    ("model.hidden=[a]", "model.hidden=[a]", "a list", "a whole number"),
    ("controls=reinit", "controls=reinit", "a list"),
    ("recipe=fast", "recipe=fast", "set one of recipe.optimizer"),
    ("controls.reinit=3", "unknown key controls.reinit", "did you mean controls?"),
    ("seed=-1", "seed=-1", "0 or more"),
    ("replicates=0", "replicates=0", "1 or more"),
    ("control_draws=0", "control_draws=0", "1 or more"),
    ("controls=[bad]", "controls=bad", "reinit"),
    ("controls=[reinit,reinit]", "controls=", "once"),
    ("recipe.lr=0", "recipe.lr=0", "positive"),
    ("recipe.lr=nan", "recipe.lr=nan", "finite"),
    ("recipe.weight_decay=inf", "recipe.weight_decay=inf", "finite"),
    ("recipe.drop_factor=inf", "recipe.drop_factor=inf", "finite"),
    ("checkpoint_seconds=inf", "checkpoint_seconds=inf", "finite"),
    ("method.densities=[0.5,1.5] method=snip", "method.densities=1.5", "between 0 and 1"),
    ("method.densities=[] method=snip", "method.densities=[]", "1 or more"),
    ("method.densities=[0.1,0.5] method=snip", "method.densities=[0.1, 0.5]", "they must fall"),
    ("recipe.optimizer=adamm", "recipe.optimizer=adamm", "adam, adamw, sgd"),
    ("recipe.precision=half", "recipe.precision=half", "float32, bfloat16"),
    ("recipe.augment.padding=mirror", "recipe.augment.padding=mirror", "zeros, reflect"),
    ("recipe.steps=abc", "recipe.steps=abc", "500, 160ep or 3ep20it"),
    ("recipe.steps=0", "recipe.steps=0", "at least one step"),
    ("recipe.batch_size=5000", "recipe.batch_size=5000", "1257 training examples"),
    ("recipe.momentum=0.9", "recipe.momentum=0.9", "recipe.optimizer=sgd"),
    ("recipe.nesterov=true", "recipe.nesterov=True", "recipe.momentum"),
    ("recipe.steps=300 recipe.warmup=400", "recipe.warmup=400", "300 steps"),
    ("recipe.drops=[20,10]", "recipe.drops=", "grow"),
    ("recipe.steps=300 method.rewind_step=300", "method.rewind_step=300", "training ends at step 300"),
    ("recipe.steps=300 method.rewind_step=15ep", "method.rewind_step=15ep", "training ends at step 300"),
    ("method.levels=0", "method.levels=0"),
    ("method.rate=1.5", "method.rate=1.5", "between 0 and 1"),
    ("method.levels=200", "method.levels=200", "would empty", "at most 47 levels"),
    ("method.levels=100000000", "method.levels=100000000", "would empty", "at most 47 levels"),
    (
        "method.levels=99 method.scope=global method.rate=0.9",
        "method.levels=99",
        "would empty all layers (of ",
    ),
    ("method.rate=1e-9", "would prune no weight"),
    ("method.scope=globe", "method.scope=globe", "layer, global"),
    ("method.scope=global method.conv_rate=0.1", "method.conv_rate=0.1", "method.scope=global"),
    ("model.hidden=[3,0]", "model.hidden=0", "1 or more"),
    ("prunable.skip=[foo.*]", "prunable.skip=foo.*", "1.weight"),
    ("prunable.dense=false prunable.output=false", "leaves nothing to prune", "1.weight"),
    ("seed=1,2", "seed=1,2 names several values"),
    ("seed=range(1,3)", "seed=range(1,3) names several values"),
    ("method=imp,oneshot", "method=imp,oneshot names several values"),
    ("out=${oc.env:HOME}", "out", "oc.env"),
    ("out=${oc.${seed}:HOME}", "out", "oc."),
    ("recipe.steps=" + "9" * 5000, "recipe.steps=9", "digits"),
    ("seed=9223372036854775808", "seed=9223372036854775808", "below 2^63"),
    ("seed=9223372036854775807 replicates=2", "replicates=2", "2^63"),
    ("recipe.augment.pad=8", "recipe.augment.pad=8", "images of 8x8"),
    ("method.levels=100000000", "method.levels=100000000", "at most 47 levels"),
    ("method.levels=10000000 method.rate=1e-7", "method.levels=10000000", "would prune no weight"),
    ("model.hidden=[1000000000000]", "model.hidden=[1000000000000]", "this machine has"),
    ("model.hidden=[3000000000000000000]", "model.hidden=[3000000000000000000]", "no memory"),
    ("model=conv2 model.width=1e9", "model.width=1000000000.0"),
    ("controls=[[reinit]]", "controls=", "a list"),
    ("recipe.drops=[[1]]", "recipe.drops=[1]", "single values"),
    ("device=meta", "device=meta", "auto, cpu"),
    ("device=cpu:7", "device=cpu:7", "auto, cpu"),
    ("device=mps", "device=mps", "auto, cpu"),
    ("model=custom model.path=os:abort", "model.path=os:abort", "Python's own"),
    ("hydra.run.dir=/proc/x", "hydra.run.dir=/proc/x", "a sweep has"),
    ("+hydra.nosuch=1", "+hydra.nosuch=1", "a sweep has"),
    ("=1", "'=1' is not KEY=VALUE"),
    ("out=" + "a" * 300, "out=aaa", "no folder has such a name"),
    ("model=${oc.env:HOME}", "model=${oc.env:HOME}"),
    ("out=${nothing}", "out", "nothing"),
]


def in_order(text, words):
    at = 0
    for word in words:
        assert word in text[at:], f"{word!r} is missing from {text[at:]!r} of {text!r}"
        at = text.index(word, at) + len(word)


@pytest.mark.parametrize(
    ("typed", "words"), [(typed, words) for typed, *words in MISTAKES], ids=lambda x: str(x)[:50]
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(typed, words):
    with pytest.raises(UserError) as caught:
        compose(typed.split())
    message = str(caught.value)
    assert "\n" not in message
    in_order(message, words)


@pytest.mark.parametrize(
    ("typed", "kept", "dropped"),
    [
        ("config=digits_lenet method=oneshot", {"levels": 16}, ()),
        ("config=digits_lenet method=snip", {"per_class": 10}, ("method.levels",)),
        ("config=digits_lenet method=snip method.densities=[0.3]", {"densities": [0.3]}, ("method.levels",)),
        ("config=digits_at_init method=imp", {"levels": 16}, ("method.densities",)),
        ("config=digits_early_bird model=resnet20 method=channel_snip", {"ratios": [0.3, 0.5, 0.7]}, ()),
        ("config=cifar10_conv2_quick model=lenet", {"levels": 4, "conv_rate": 0.3}, ("model.width",)),
    ],
)
def test_an_experiment_takes_another_method_or_model_without_the_keys_that_it_lacks(typed, kept, dropped):
    composed = compose(typed.split())
    assert {key: composed.config["method"][key] for key in kept} == kept
    assert composed.dropped == dropped
    for key in dropped:
        group, _, name = key.partition(".")
        assert name not in composed.config[group]


def test_a_run_says_what_it_left_out(tmp_path, ltx):
    words = ["method=snip", "method.densities=[0.5]", "recipe.steps=2", "recipe.eval_every=2"]
    said = ltx("run", "config=digits_lenet", *words, f"out={tmp_path}")
    assert said.code == 0
    assert "left out of digits_lenet, for what was chosen instead: method.levels" in said.err


# -- the user's own folder ------------------------------------------------------------------------------------

FILES = {
    "evil": ("model: {_target_: os.system}", ["config/evil.yaml", "unknown key model._target_"]),
    "typo": ("recipe: {stepz: 50}", ["config/typo.yaml", "unknown key recipe.stepz", "recipe.steps?"]),
    "kind": ("recipe: {batch_size: many}", ["config/kind.yaml", "recipe.batch_size=many", "a whole number"]),
    "others": (
        "method: {ratios: [0.5]}",
        ["config/others.yaml", "unknown key method.ratios", "method.levels"],
    ),
    "new": ("key: 1", ["config/new.yaml", "unknown key key"]),
    "home": ("out: ${oc.env:HOME}", ["out", "oc.env"]),
    "range": ("recipe: {lr: -1}", ["recipe.lr=-1", "positive"]),
    "broken": ("recipe: [1, {", ["broken.yaml, line 5, is not YAML"]),
    "callback": (
        "hydra: {callbacks: {evil: {_target_: os.system, command: 'touch PWNED'}}}",
        ["hydra.callbacks.evil._target_=os.system is refused"],
    ),
    "environment": (
        "hydra: {job: {env_set: {PATH: /tmp}}}",
        ["environment.yaml", "hydra.job.env_set.PATH=/tmp"],
    ),
    "setup": ("hydra: {launcher: {setup: [touch PWNED]}}", ["setup.yaml", "hydra.launcher.setup"]),
    "sweeper": ("hydra: {sweeper: {_target_: os.abort}}", ["hydra.sweeper._target_=os.abort is refused"]),
    "place": ("hydra: {run: {dir: elsewhere}}", ["hydra.run.dir=elsewhere is refused"]),
    "mode": ("hydra: {mode: MULTIRUN}", ["mode.yaml", "hydra.mode="]),
    "bomb": (
        "a: &a [1,1,1,1,1]\n"
        + "".join(f"{n}: &{n} [{','.join('*' + p for _ in range(9))}]\n" for p, n in pairwise("abcdefgh")),
        ["bomb.yaml", "values"],
    ),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, ["deep.yaml", "too deep"]),
    "latin": ("out: \udcfc", ["latin.yaml", "UTF-8"]),
    "tagged": ("seed: !!python/object/apply:os.abort []", ["tagged.yaml, line 4, is not YAML"]),
    "logging": (
        "hydra: {job_logging: {handlers: {evil: {class: subprocess.Popen, args: [touch, PWNED]}}}}",
        ["hydra.job_logging.handlers.evil.class=subprocess.Popen is refused"],
    ),
}
HEAD = "# @package _global_\ndefaults:\n  - digits_lenet\n"


@pytest.fixture
def own(tmp_path):
    (tmp_path / "config").mkdir()

    def write(name, body, head=HEAD):
        text = (head + body + "\n").encode(errors="surrogateescape")
        (tmp_path / "config" / f"{name}.yaml").write_bytes(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_is_one_line_that_names_the_file_or_the_key(name, own):
    body, words = FILES[name]
    with pytest.raises(UserError) as caught:
        compose([f"config={name}"], own(name, body))
    assert "\n" not in str(caught.value)
    in_order(str(caught.value), words)


def test_a_key_that_nobody_has_is_a_mistake_whatever_was_chosen_instead(own):
    with pytest.raises(UserError) as caught:
        compose(["config=typo", "method=snip"], own("typo", "method: {levls: 3}"))
    in_order(str(caught.value), ["config/typo.yaml", "unknown key method.levls", "choose from method.dens"])


def test_a_parent_that_does_not_exist_is_named_with_the_nearest(own):
    folder = own("child", "", head="# @package _global_\ndefaults:\n  - digits_lenett\n")
    with pytest.raises(
        UserError, match=r"^config/child\.yaml: config=digits_lenett .*did you mean digits_lenet"
    ):
        compose(["config=child"], folder)


def test_an_own_experiment_inherits_from_a_shipped_one(own):
    composed = compose(["config=mine", "replicates=3"], own("mine", "recipe: {steps: 50}\nseed: 7"))
    assert composed.name == "mine"
    assert composed.run.recipe.steps == "50"
    assert composed.run.recipe.batch_size == 60
    assert composed.run.seeds == (7, 8, 9)


def test_an_own_model_size_is_a_file_too(own, tmp_path):
    folder = own("mine", "")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "slim.yaml").write_text("defaults: [lenet]\nhidden: [5]\n")
    composed = compose(["model=slim"], folder)
    assert composed.config["model"] == {"name": "lenet", "weights": None, "fresh": [], "hidden": [5]}
    assert composed.folder("f") == compose(["model.hidden=[5]"]).folder("f")
    with pytest.raises(UserError, match="did you mean slim"):
        compose(["model=slimm"], folder)


@pytest.mark.parametrize(
    "head", ["\ufeff" + HEAD, "defaults: [digits_lenet]\n"], ids=["BOM", "no first line"]
)
def test_an_own_experiment_needs_no_ceremony(head, own):
    assert compose(["config=mine"], own("mine", "seed: 7", head=head)).run.seeds[0] == 7


def test_experiments_that_name_each_other_are_told_so(own):
    folder = own("one", "", head="defaults: [other]\n")
    own("other", "", head="defaults: [one]\n")
    with pytest.raises(
        UserError, match="config=one cannot be read: its defaults name each other in a circle"
    ):
        compose(["config=one"], folder)


def test_an_experiment_called_yml_is_told_what_to_be_called(own, tmp_path):
    folder = own("mine", "")
    (tmp_path / "config" / "mine.yaml").rename(tmp_path / "config" / "mine.yml")
    with pytest.raises(UserError, match=r"config=mine is not possible: call .*/mine\.yml mine\.yaml"):
        compose(["config=mine"], folder)


@pytest.mark.parametrize(
    "name", ["ü", "a=b", "it's", "a,b", "a[b]", "a(b)", "a{b", "${x}", "~", 'a"b', "a\\b", "%41"]
)
def test_a_folder_may_be_called_anything(name, tmp_path):
    (tmp_path / name / "config").mkdir(parents=True)
    (tmp_path / name / "config" / "mine.yaml").write_text(HEAD + "seed: 7")
    assert compose(["config=mine"], str(tmp_path / name)).run.seed == 7


def test_the_user_s_resolvers_are_left_alone():
    OmegaConf.register_new_resolver("oc.env", lambda name: "mine", replace=True)
    try:
        compose([])
        assert OmegaConf.create({"x": "${oc.env:HOME}"}).x == "mine"
    finally:
        OmegaConf.clear_resolvers()


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(UserError, match="--config-dir nowhere is not a folder"):
        compose([], "nowhere")


# -- what a run is called -------------------------------------------------------------------------------------


def folder(*overrides, fingerprint="f"):
    return compose(overrides).folder(fingerprint)


def test_a_run_s_name_says_what_it_is():
    name = folder("out=here").relative_to("here")
    assert str(name).startswith("digits_lenet/lenet-digits-imp-s0x5-")


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "replicates=4", "recipe.lr=0.1", "recipe.augment.flip=true", "method.rate=0.3"),
        *("model.hidden=[300]", "model=conv2", "method=oneshot", "prunable.output=false"),
    ],
)
def test_whatever_changes_the_result_is_another_run(change):
    assert folder(change) != folder()


def test_other_data_are_another_run():
    assert folder(fingerprint="g") != folder()


def test_where_and_on_what_a_run_happens_is_not_part_of_its_name():
    assert folder("out=there", "device=cpu").name == folder().name
    assert folder("dataset=mnist", "dataset.root=/there") == folder("dataset=mnist")


@pytest.mark.parametrize("more", ["method.levels=3", "controls=[]", "controls=[random]", "control_draws=3"])
def test_asking_for_more_or_less_continues_the_same_run(more):
    assert folder(more) == folder()


@pytest.mark.parametrize(
    ("more", "of"),
    [
        ("method.densities=[0.4]", "config=digits_at_init"),
        ("method.ratios=[0.4]", "config=digits_early_bird"),
    ],
)
def test_densities_and_ratios_are_no_part_of_a_name(more, of):
    assert folder(of, more) == folder(of)


def test_a_name_is_made_of_what_is_not_as_by_default():
    """So that a knob that comes later, at a default that changes nothing, renames no run."""
    words = ["recipe.lr=0.1", "recipe.augment.pad=2", "model.hidden=[5]", "out=there", "method.levels=3"]
    lenet = {"recipe.steps": "200", "recipe.eval_every": "20", "recipe.eval_spacing": 0.5, "replicates": 5}
    mine = {"recipe.lr": 0.1, "recipe.augment.pad": 2, "model.hidden": [5]}
    assert dict(differences(compose(words).run)) == lenet | mine


def test_numbers_that_may_change_give_every_run_another_name(monkeypatch):
    before = folder()
    monkeypatch.setattr("ltx.config.identity.PROTOCOL", 10**6)
    assert folder() != before


def test_a_tag_has_256_bits_of_which_a_folder_shows_48():
    composed = compose([])
    assert re.fullmatch("[0-9a-f]{64}", composed.tag("f"))
    assert composed.folder("f").name == f"lenet-digits-imp-s0x5-{composed.tag('f')[:12]}"
    # Two recipes that had one name of 32 bits.
    assert folder("recipe.lr=0.00102628") != folder("recipe.lr=0.001513")


def test_a_home_is_where_the_user_s_is():
    assert folder('out="~/x"').is_relative_to(Path.home() / "x")


# Raise PROTOCOL in ltx/config/identity.py if numbers may have changed, and write the names down anew. A name that
# changes without it has lost somebody's runs.
NAMES = {
    "breast_cancer_lassonet": "892750c69013",
    "cifar100_vgg16_early_bird": "b0923e790d2d",
    "cifar10_cats_dogs_filters": "04016c0af601",
    "cifar10_conv2": "be06d0c2b8e8",
    "cifar10_conv2_quick": "5ad400e66018",
    "cifar10_conv4": "e847ef3ad391",
    "cifar10_conv6": "442aa46019a7",
    "cifar10_resnet18_early_bird": "bbaf4a270266",
    "cifar10_resnet20": "d3b32daaa627",
    "cifar10_resnet20_finetune": "b669d4454a6c",
    "cifar10_resnet20_lr_rewind": "ee2da0a9f0d4",
    "cifar10_resnet20_quick": "a1511f8a6084",
    "cifar10_resnet20_rewind": "74d4f6610dd2",
    "cifar10_resnet20_warmup": "14786ced8016",
    "cifar10_resnet56_filters": "774e045e73fb",
    "cifar10_resnet56_filters_a": "18d875e99ff7",
    "cifar10_resnet56_filters_b": "003b5b91d718",
    "cifar10_vgg16_at_init": "42660c3c501b",
    "cifar10_vgg16_early_bird": "f9af9cc1e016",
    "cifar10_vgg16_early_bird_quick": "d8c8a16dd624",
    "cifar10_vgg19": "348086b5fa6d",
    "digits_at_init": "76520e8a1609",
    "digits_early_bird": "81bae89d6b54",
    "digits_filters": "9df533725033",
    "digits_gmp": "1cb240d07aba",
    "digits_lenet": "053a115ee2d6",
    "digits_set": "e0267bff2e93",
    "digits_transplant": "8368f664af8e",
    "fashion_to_mnist": "095a3de66139",
    "mice_lassonet": "a0ff71ed69f7",
    "mnist_lenet": "ac92c89fb456",
    "mnist_lenet5_gmp": "eb81ffedc139",
    "mnist_lenet5_snip": "d96b8038a667",
    "mnist_lenet_quick": "447f657d4227",
    "mnist_lenet_snip": "6876fd74c4b2",
    "mnist_to_fashion": "cd792a25810b",
}


@pytest.mark.parametrize("name", experiments())
def test_the_shipped_experiments_are_called_as_ever(name, needed, monkeypatch):
    monkeypatch.setattr("ltx.config.sources.of_content", lambda key, path: "the file's content")
    assert compose([f"config={name}", *needed(name)]).tag("the data's fingerprint")[:12] == NAMES[name]


# -- networks of one's own ------------------------------------------------------------------------------------

NET = """
from torch import nn
from {layers} import activation

def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation(), nn.Linear(8, classes))
"""


def custom_name(cwd, path="mynets:net"):
    """What a run of a custom network is called by a process of its own in a folder."""
    code = (
        "from ltx.config.compose import compose\n"
        f"print(compose(['model=custom', 'model.path={path}', 'method.levels=1']).folder('f').name)"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_a_network_whose_source_changes_is_another_run(tmp_path):
    mynets, helpers = tmp_path / "mynets.py", tmp_path / "helpers.py"
    mynets.write_text(NET.format(layers="helpers"))
    helpers.write_text("from torch.nn import ReLU as activation")
    before = custom_name(tmp_path)
    (tmp_path / "unrelated.py").write_text("1 / 0")
    assert custom_name(tmp_path) == before
    helpers.write_text("from torch.nn import Tanh as activation")
    imported = custom_name(tmp_path)
    mynets.write_text(NET.format(layers="helpers").replace("8", "9"))
    assert len({before, imported, custom_name(tmp_path)}) == 3


def test_the_source_of_a_package_is_all_that_it_imports_of_itself(tmp_path):
    package = tmp_path / "nets" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "nets" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from ..parts import activation")
    (package / "small.py").write_text(NET.format(layers="."))
    parts = tmp_path / "nets" / "parts.py"
    parts.write_text("from torch.nn import ReLU as activation")
    before = custom_name(tmp_path, "nets.deep.small:net")
    parts.write_text("from torch.nn import Tanh as activation")
    assert custom_name(tmp_path, "nets.deep.small:net") != before


def test_the_same_values_written_otherwise_are_the_same_run():
    assert folder("recipe.lr=0.0012", "method=imp", "config=digits_lenet") == folder("recipe.lr=1.2e-3")


# -- what is shipped ------------------------------------------------------------------------------------------


def fake(shape, classes):
    """Random images, or rows of a table: a few of each class."""
    draw = torch.Generator().manual_seed(0)

    def split(examples):
        images = torch.randint(256, (examples, *shape), generator=draw, dtype=torch.uint8)
        return Split(images, torch.arange(examples) % classes)

    parts = split(64), split(20), split(20)
    if len(shape) == 3:
        return Data.of_images(*parts, classes=classes)
    rows = [Split(part.inputs / 255, part.targets) for part in parts]
    return Data(*rows, outputs=classes, prepare=Prepare(), fingerprint=fingerprint(*rows))


@pytest.mark.parametrize("name", experiments())
def test_every_shipped_experiment_composes_and_trains(name, tmp_path, monkeypatch, needed):
    """As it is, checked whole; then two steps of it on random images of the right shape."""
    run = compose([f"config={name}", *needed(name)]).run
    assert Path(config_dir(), "config", f"{name}.yaml").read_text().startswith("# @package _global_\n# ")
    kind, pixels = type(run.dataset), run.dataset.shape or (3, 32, 32)
    monkeypatch.setattr(kind, "load", lambda dataset: fake(pixels, dataset.outputs or 10))
    monkeypatch.setattr(kind, "train_size", 64)
    short = ["recipe.batch_size=64", "recipe.steps=2ep", "recipe.warmup=0", "recipe.drops=[]"]
    short += ["recipe.eval_every=2", "replicates=1", "control_draws=1"]
    knobs = {"method.levels": 1, "method.densities": [0.5], "method.iterations": 1, "method.per_class": 1}
    knobs |= {"method.begin": 0, "method.end": 1, "method.every": 1}
    knobs |= {"method.features": [20], "method.path_multiplier": 1.2, "method.path_patience": 1}
    knobs |= {"model.width": 0.1, "method.rewind_step": 0, "method.window": 2, "method.ratios": [0.3]}
    turned = {f"{group}.{key}" for group in ("method", "model") for key in vars(getattr(run, group))}
    short += [f"{key}={value}" for key, value in knobs.items() if key in turned]
    composed = compose([f"config={name}", *needed(name), *short, f"out={tmp_path}"])
    assert (execute(composed) / "levels.csv").exists()


@pytest.mark.parametrize("kind", [Run, *(kind for kinds in GROUPS.values() for kind in kinds.values())])
def test_every_knob_says_what_it_means(kind):
    for one in fields(kind):
        assert one.metadata["meaning"], f"{kind.__name__}.{one.name}"


def test_no_key_is_without_a_default_that_composes():
    assert {"recipe.steps", "model.hidden", "dataset.root", "method.levels", "prunable.skip"} <= set(keys())
    assert data.DATASETS.keys() >= {"digits", "mnist"}


# -- completion -----------------------------------------------------------------------------------------------


def test_the_shell_offers_experiments_groups_and_keys():
    assert {"config=mnist_lenet", "config=mnist_lenet_quick"} <= set(completions([], "config=m"))
    assert "recipe.steps=" in completions([], "recipe.st")
    assert set(completions([], "method=")) >= {"method=imp", "method=oneshot"}
    assert "model.width=" in completions(["model=conv2"], "model.")


def test_bash_hands_an_override_over_in_three_words():
    assert completions(["config", "="], "mnist_lenet_q") == ["mnist_lenet_quick"]
    words = ["config", "=", "mnist_lenet", "seed=1"]
    assert completions(words, "recipe.batch_s") == ["recipe.batch_size="]


def test_tiny_is_what_the_other_tests_take_it_for():
    assert compose(TINY).run.seeds == (0, 1)
