"""The methods by name: a new one is a file beside these and a line here."""

from ltx.methods.at_init import SNIP, GraSP, MagnitudeAtInit, RandomAtInit, SynFlow
from ltx.methods.base import Method
from ltx.methods.channels import ChannelOneShot, ChannelRandom, ChannelSNIP, Slimming
from ltx.methods.criterion import Criterion
from ltx.methods.dynamic import SET
from ltx.methods.early_bird import EarlyBird
from ltx.methods.filters import Filters
from ltx.methods.gradual import GMP
from ltx.methods.imp import IMP, OneShot
from ltx.methods.lassonet import LassoNet
from ltx.methods.regularised import L1, GroupLasso
from ltx.methods.retrain import FineTune, LRRewind
from ltx.methods.transplant import Transplant

METHODS: dict[str, type[Method]] = {
    "imp": IMP,
    "oneshot": OneShot,
    "lr_rewind": LRRewind,
    "finetune": FineTune,
    "criterion": Criterion,
    "random_at_init": RandomAtInit,
    "magnitude_at_init": MagnitudeAtInit,
    "snip": SNIP,
    "grasp": GraSP,
    "synflow": SynFlow,
    "early_bird": EarlyBird,
    "slimming": Slimming,
    "channel_oneshot": ChannelOneShot,
    "channel_random": ChannelRandom,
    "channel_snip": ChannelSNIP,
    "filters": Filters,
    "lassonet": LassoNet,
    "group_lasso": GroupLasso,
    "l1": L1,
    "set": SET,
    "gmp": GMP,
    "transplant": Transplant,
}
