"""The methods by name: a new one is a file beside these and a line here."""

from ltx.methods.base import Method
from ltx.methods.imp import IMP, OneShot

METHODS: dict[str, type[Method]] = {"imp": IMP, "oneshot": OneShot}
