"""Plug-ins: entry points of installed packages, or `package.module:Class` where the caller allows it.

Each kind of plug-in has a contract (a subclass of `Pluggable`), and beside it a `Kind`, which finds, loads and makes
the installed classes. What needs names only (daemons, which never import torch) asks `installed`.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, TypeVar

from covey.errors import PluginError
from covey.options import Placed, PluginOptions, place_of, validated
from covey.user_code.digest import note
from covey.user_code.place import place_of as place_of_error

GROUPS = {
    "task": "covey.tasks",
    "method": "covey.methods",
    "aggregator": "covey.aggregators",
    "pre-aggregator": "covey.pre_aggregators",
    "async-policy": "covey.async_policies",
    "server-optimizer": "covey.server_optimizers",
    "codec": "covey.codecs",
    "attack": "covey.attacks",
    "local-optimizer": "covey.local_optimizers",
    "partition": "covey.partitions",
    "schedule": "covey.schedules",
    "topology": "covey.topologies",
    "mixing": "covey.mixings",
    "protocol": "covey.protocols",
    "outgoing-filter": "covey.outgoing",
    "tracker": "covey.trackers",
}
"""Kind of plug-in to its entry-point group, known without importing a contract (a test holds them equal)."""
KINDS_GROUP = "covey.kinds"
"""The entry-point group of the kinds themselves."""


class Pluggable(ABC):
    """Base of every contract for plug-ins: a class with options.

    Class attributes:
        Options: The model of its options.
        section: Where a run's file names one, for errors; the contract's `Kind` sets it.
        declares: Method to the class attribute that is True of a class which overrides it, so that what a plug-in can
            do is known without looking at its methods. It need not be written.

    Attributes:
        options: As checked.
        place: Where they stand in the user's file, for what the class itself says of them.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    section: ClassVar[str] = ""
    declares: ClassVar[Mapping[str, str]] = {}
    options: PluginOptions
    place: str

    def __init_subclass__(cls, **keywords: Any) -> None:
        """A class that overrides a method says so.

        Raises:
            TypeError: It says the opposite.
        """
        super().__init_subclass__(**keywords)
        for method, attribute in cls.declares.items():
            if getattr(cls, method) is _first(cls, method) or getattr(cls, attribute):
                continue
            if attribute in vars(cls):
                raise TypeError(f"{cls.__qualname__} has its own `{method}` and says `{attribute} = False`: remove one")
            setattr(cls, attribute, True)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Check the options.

        Raises:
            SpecError: An option is unknown or has a wrong value; the message names the key and the choices.
        """
        self.place = place_of(options) or f"{self.section}.options".lstrip(".")
        self.options = validated(self.Options, options or {}, self.place)


def _first(cls: type, method: str) -> object:
    """The method as the contract has it."""
    return next(vars(base)[method] for base in reversed(cls.__mro__) if method in vars(base))


@dataclass(frozen=True)
class Plugin:
    """One installed plug-in, not yet imported: its kind, name, `module:attribute`, and the package it came with."""

    kind: str
    name: str
    target: str
    package: str


@cache
def _all_entries() -> dict[str, dict[str, EntryPoint]]:
    # Once: it reads a file of every installed distribution.
    entries = entry_points()
    return {group: {entry.name: entry for entry in entries.select(group=group)} for group in entries.groups}


def _entries(group: str) -> dict[str, EntryPoint]:
    return _all_entries().get(group, {})


@cache
def _installed(kind: str) -> tuple[Plugin, ...]:
    # An entry's package is read from its metadata, a file, each time that it is asked for.
    return tuple(
        Plugin(kind, name, entry.value, entry.dist.name if entry.dist else "?")
        for name, entry in sorted(_entries(GROUPS[kind]).items())
    )


def installed(kind: str) -> list[Plugin]:
    """The installed plug-ins of a kind (a key of `GROUPS`) by name, without importing any of them."""
    return list(_installed(kind))


def forget_installed() -> None:
    """Look anew, when next asked, for what is installed: the search path is another one."""
    _all_entries.cache_clear()
    _installed.cache_clear()


_by_path: ContextVar[bool] = ContextVar("by_path", default=False)


@contextmanager
def by_path(allowed: bool) -> Iterator[None]:
    """Whether plug-ins of all kinds may be named by an import path in what is done meanwhile."""
    before = _by_path.set(allowed)
    try:
        yield
    finally:
        _by_path.reset(before)


T = TypeVar("T", bound=Pluggable)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of plug-in.

    Attributes:
        name: For people: `pre-aggregator`.
        group: Its entry-point group.
        base: Its contract.
        section: Where a run's file names one.
        key: The key there that holds the name; the options are in `options` beside it.
    """

    name: str
    group: str
    base: type[T]
    section: str
    key: str = "name"

    def __post_init__(self) -> None:
        """Tell the contract where its options stand in a file, for what is made without a kind."""
        self.base.section = self.section

    def installed(self) -> list[Plugin]:
        """What is installed here, by name, without importing any of it."""
        return installed(self.name)

    def load(self, name: str, at: str = "", *, allow_path: bool = False) -> type[T]:
        """Import a plug-in's class by its registered name, or by `package.module:Class`.

        Args:
            name: A registered name; with `allow_path` also an import path.
            at: Where the name stands in the user's file, for errors: `aggregation.fallback`.
            allow_path: Whether an import path is acceptable, as it is within `by_path`; the operator's decision, never
                the run's.

        Raises:
            PluginError: Unknown name (the message lists the known ones), the import failed, or what was imported is
                not of this kind.
        """
        key = f"{at}.{self.key}: " if at else ""
        entries = _entries(self.group)
        entry = entries.get(name)
        if entry is None and not ((allow_path or _by_path.get()) and ":" in name):
            known = ", ".join(sorted(entries)) or "none"
            raise PluginError(
                f"{key}no {self.name} named {name!r} is installed here; installed: {known}{_hint(name, entries)}"
            )
        try:
            loaded = _imported(name) if entry is None else entry.load()
        except Exception as error:
            text = f"{key}{self.name} {name!r} cannot be loaded: {_why(error, name)}"
            raise PluginError(text) from error
        if not (inspect.isclass(loaded) and issubclass(loaded, self.base)):
            base = f"{self.base.__module__}.{self.base.__qualname__}"
            raise PluginError(f"{key}{self.name} {name!r} is not a subclass of {base}")
        note(loaded.__module__)
        return loaded

    def make(self, name: str, options: Mapping[str, Any] | None = None, at: str = "", *, allow_path: bool = False) -> T:
        """A plug-in with its options.

        Args:
            name: As in `load`.
            options: As given.
            at: As in `load`, and for the errors of the options; default: the kind's own section.
            allow_path: As in `load`.

        Raises:
            PluginError: As `load`.
            SpecError: An option is unknown or has a wrong value; the message names the key and the choices.
        """
        at = at or self.section
        return self.load(name, at, allow_path=allow_path)(Placed(options or {}, f"{at}.options"))


def _hint(name: str, known: Iterable[str]) -> str:
    """What to do where a name is not known here."""
    if ":" in name:
        return (
            "; a name with a colon is an import path, which the operator here must allow: --allow-paths of a "
            "coordinator and of `covey run replay`, [policy] allow_paths of a node"
        )
    from difflib import get_close_matches  # only a mistake needs it

    close = get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant}; what was installed while a daemon runs is found after its restart"


def _why(error: Exception, name: str) -> str:
    """Why an import failed, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name and name.split(":")[0].split(".")[0] == error.name:
        return (
            f"{error}; put its folder on PYTHONPATH of this machine's daemon, or install it as a package, and restart "
            "the daemon"
        )
    if isinstance(error, AttributeError) and ":" in name:
        return f"{error}; after the colon stands the name of the class"
    at = place_of_error(error)
    kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
    return f"{kind}{error}" + (f" ({at})" if at else "")


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def kind_named(name: str) -> Kind[Any]:
    """A kind by its name; imports its contract, and what that needs (torch).

    Raises:
        PluginError: There is no such kind.
    """
    entry = _entries(KINDS_GROUP).get(name)
    if entry is None:
        raise PluginError(f"no kind of plug-in is named {name!r}; choose {', '.join(sorted(_entries(KINDS_GROUP)))}")
    kind: Kind[Any] = entry.load()
    return kind
