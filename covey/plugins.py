"""Finding plug-ins: entry points of installed packages, or `package.module:Class` where the caller allows it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from covey.errors import PluginError

GROUPS = {
    "task": "covey.tasks",
    "method": "covey.methods",
    "aggregator": "covey.aggregators",
    "pre-aggregator": "covey.pre_aggregators",
    "async-policy": "covey.async_policies",
    "server-optimizer": "covey.server_optimizers",
    "codec": "covey.codecs",
    "attack": "covey.attacks",
}
"""Kind of plug-in to its entry-point group."""


@dataclass(frozen=True)
class Plugin:
    """One installed plug-in, not yet imported: its kind, name, `module:attribute`, and the package it came with."""

    kind: str
    name: str
    target: str
    package: str


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUPS[kind])}


def installed(kind: str) -> list[Plugin]:
    """The installed plug-ins of a kind by name, without importing any of them."""
    return [
        Plugin(kind, name, entry.value, entry.dist.name if entry.dist else "?")
        for name, entry in sorted(_entries(kind).items())
    ]


def load(kind: str, name: str, *, allow_path: bool = False) -> Any:
    """Import a plug-in's class by its registered name, or by `package.module:Class`.

    Args:
        kind: A key of `GROUPS`.
        name: A registered name; with `allow_path` also an import path.
        allow_path: Whether an import path is acceptable; the operator's decision, never the run's.

    Raises:
        PluginError: Unknown name (the message lists the known ones), or the import failed.
    """
    entry = _entries(kind).get(name)
    if entry is None and not (allow_path and ":" in name):
        known = ", ".join(sorted(_entries(kind))) or "none"
        raise PluginError(f"no {kind} named {name!r} is installed here; installed: {known}")
    try:
        if entry is not None:
            return entry.load()
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginError(f"{kind} {name!r} cannot be loaded: {error}") from error
