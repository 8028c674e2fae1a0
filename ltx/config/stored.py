"""An experiment read back from what a run's folder says of it, in which a stranger may have written anything."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltx.config.explain import first_line
from ltx.config.registry import BASES, GROUPS, schema
from ltx.config.run import Run
from ltx.errors import UserError, shortened, unknown
from ltx.knobs import IMPORTED
from ltx.plugins import load_kind, offered


def stored(tree: dict[str, Any], place: str, *, trust: bool, **changes: Any) -> Run:
    """The experiment of a stored configuration, with `changes`; raises UserError.

    Unless `trust`ed, a configuration may not name code to import, beyond what installed packages offer by name.
    """
    try:
        config: Any = OmegaConf.create(tree)
        for group in GROUPS:
            name = str(config[group].pop("name")).partition(":")[0]  # torchvision:resnet18
            kind = kind_of(group, name)
            for field in () if trust else fields(kind):
                path = config[group].get(field.name)
                if field.metadata.get("rule") is IMPORTED and path:
                    raise UserError(
                        f"{place}: {group}.{field.name}={shortened(str(path))} names code, which is not run for a "
                        "folder that somebody may have sent: --trust runs it (trust=True from Python)"
                    )
            config[group] = OmegaConf.merge(schema(kind), config[group])
        run: Any = OmegaConf.to_object(OmegaConf.merge(schema(Run), config, changes))
    except (OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{place} does not describe a run of this ltx: {first_line(error)}") from error
    return cast(Run, run)


def kind_of(group: str, name: str) -> Any:
    """The class that a stored name stands for: ltx's own, or an installed package's; raises UserError."""
    if name in GROUPS[group]:
        return GROUPS[group][name]
    if (entry := offered(f"ltx.{group}s").get(name)) is None:
        raise unknown(group, name, GROUPS[group])
    return load_kind(group, entry, BASES[group])
