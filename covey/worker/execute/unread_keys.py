"""Keys that a user wrote and that nothing of what the run names reads: refused at submission."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from covey.errors import PluginError
from covey.learning.optimizers import LOCAL_OPTIMIZERS
from covey.learning.partition import PARTITIONS
from covey.learning.schedules import SCHEDULES
from covey.methods.contract import Combination as Parts
from covey.plugins import Kind, installed

PACKAGE = "covey"
Named = tuple[Kind[Any], str, str]
"""A kind of plug-in, the section that names one, and its name."""


def unread_keys(parts: Parts, written: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each such key, and why nothing reads it.

    Args:
        parts: What the specification names, made.
        written: The keys that the user wrote, with dots.
    """
    spec = parts.spec
    named: list[Named] = [
        (LOCAL_OPTIMIZERS, "training", spec.training.optimizer),
        (PARTITIONS, "data", spec.data.partition),
    ]
    yield from _of_plugins(named, written)
    for number, schedule in spec.training.schedule.items():
        yield from _of_plugins([(SCHEDULES, f"training.schedule.{number}", schedule.kind)], written)
    if spec.privacy is not None and spec.privacy.unit == "example":
        for key in {"training.batch_size", "training.drop_last"} & written:
            yield key, "each example is drawn by itself, with probability privacy.sampling; leave it out"
    if "data.parts" in written and spec.data.partition == "local":
        yield "data.parts", 'partition "local" cuts nothing: each node has its own data'
    reads_root = any(rule is not None and rule.needs_root for rule in (parts.rule, parts.fallback))
    if "aggregation.root_examples" in written and not reads_root:
        yield "aggregation.root_examples", f"{spec.aggregation.name!r} takes no trusted examples; leave it out"


def _of_plugins(named: list[tuple[Kind[Any], str, str]], written: frozenset[str]) -> Iterator[tuple[str, str]]:
    for kind, section, name in named:
        try:
            own = kind.load(name, section).section_keys
        except PluginError:  # that it is not there is said elsewhere
            continue
        readers = _readers(kind, section)
        for key in sorted(set(readers) - set(own)):
            if f"{section}.{key}" in written:
                by = " or ".join(f'"{reader}"' for reader in readers[key])
                yield f"{section}.{key}", f'"{name}" does not read it, but {by} does; leave it out, or choose that'


def _readers(kind: Kind[Any], section: str) -> dict[str, list[str]]:
    """Key of the section to those of Covey's own plug-ins that read it."""
    unread: dict[str, list[str]] = {}
    for plugin in installed(kind.name):
        if plugin.package == PACKAGE:
            for key in kind.load(plugin.name, section).section_keys:
                unread.setdefault(key, []).append(plugin.name)
    return unread
