"""Which code of the users' own is in memory: its digest, and whether its files were edited since they were imported.

A module counts where it is neither Covey's, nor of Python's library, nor (but for the package that a plug-in itself is
in) installed: those change with a new installation, after which daemons are started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

from covey.user_code.imports import file_of, imported_by

_LIBRARY = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_PACKAGE = __name__.partition(".")[0]
GONE = "gone"
"""In place of a digest: the file was deleted."""
_digests: dict[str, str] = {}
"""Module to the SHA-256 (hex) of its file when it was first seen here."""
_failed: set[str] = set()
"""Modules that were dropped last; those that are noted again came back whole."""
_belonging: dict[str, frozenset[str]] = {}
"""A module that plug-ins come from, to all modules of the users' own that it consists of."""


def code_digest(plugin: type) -> str:
    """SHA-256 (hex) of the code that a class came with, as it was imported: its module and those that it uses.

    The digest is of names and contents: it is the same on every machine that has the same files.
    """
    names = sorted(_noted(plugin.__module__))
    lines = "".join(f"{name} {_digests[name]}\n" for name in names if name in _digests)
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""


def note(module: str) -> None:
    """Remember what a module consists of, soon after its import."""
    _noted(module)


def forget_edited() -> frozenset[str]:
    """Drop modules whose files were edited from memory, with those that use them; the next import reads them anew.

    Returns:
        What was dropped. Objects that were made of it live on.
    """
    importlib.invalidate_caches()
    users = {root: names for root, names in _belonging.items() if _top(root) != _PACKAGE}
    noted = {name: _digests[name] for name in frozenset[str]().union(*users.values()) if name in _digests}
    edited = {name for name, digest in noted.items() if _file_digest(name) not in (digest, "")}
    roots = [root for root, names in users.items() if names & edited]
    dropped = frozenset[str]().union(*(_belonging[root] for root in roots))
    for root in roots:
        del _belonging[root]
    # What an import that failed left behind goes as well: nobody knows what it was made of.
    for name in dropped | {name for name in _failed if name not in _digests}:
        _drop(name)
    _failed.clear()
    _failed.update(dropped)
    return dropped


def _drop(name: str) -> None:
    _digests.pop(name, None)
    module = sys.modules.pop(name, None)
    file = getattr(module, "__file__", None)
    if file:
        # Compiled files are told from newer sources by whole seconds and by length only.
        with contextlib.suppress(OSError, NotImplementedError, ValueError):
            Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)


def _noted(root: str) -> frozenset[str]:
    if root not in _belonging:
        names = frozenset(_reachable(root))
        for name in names - _digests.keys():
            if digest := _file_digest(name):
                _digests[name] = digest
        _belonging[root] = names
    return _belonging[root]


def _reachable(root: str) -> set[str]:
    modules, waiting = set[str](), [root]
    while waiting:
        name = waiting.pop()
        if name in modules or not _counts(name, root):
            continue
        modules.add(name)
        if _top(name) != _PACKAGE:
            waiting += [*_used(name), *imported_by(name), *_parents(name)]
    return modules


def _used(name: str) -> Iterator[str]:
    """What a module that is in memory has from others, however it came there."""
    for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
        # Asks nothing of an object itself, which may be a proxy that imports what it stands for.
        kind = type(value)
        if issubclass(kind, ModuleType):
            yield value.__name__
        else:
            yield str(value.__module__ if issubclass(kind, (type, FunctionType)) else kind.__module__)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _counts(name: str, root: str) -> bool:
    if name == root:
        return name in sys.modules
    if _top(name) == _PACKAGE or name == "__main__" or (file := file_of(name)) is None:
        return False
    return _top(name) == _top(root) or not (file.startswith(_LIBRARY) or _INSTALLED & set(Path(file).parts))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _file_digest(name: str) -> str:
    """SHA-256 (hex) of a module's file as it is now; empty: it cannot be read now, or was never in memory."""
    file = file_of(name)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file is not None else ""
    except FileNotFoundError:
        return GONE
    except OSError:
        return ""
