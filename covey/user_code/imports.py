"""What a module of the users' own imports, as its source says: at its top, and within its functions."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path


def file_of(name: str) -> str | None:
    """The file of a module that is in memory, or else of the one that an import would find; None: there is none.

    Nothing is imported for it: a part of a package counts once its package is in memory.
    """
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return file if isinstance(file, str) else None
    parent = name.rpartition(".")[0]
    if not name or (parent and parent not in sys.modules):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec is not None and spec.has_location else None


def imported_by(name: str) -> Iterator[str]:
    """The names that a module's source imports: modules, and what may be modules of a package."""
    file = file_of(name)
    if file is None or not file.endswith(".py"):
        return
    try:
        source = Path(file).read_bytes()
    except OSError:
        return
    package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
    for module, level in _imports(source):
        above = package.rsplit(".", level - 1)[0] if level > 1 else package
        yield ".".join(filter(None, [above, module])) if level else module


@lru_cache(maxsize=256)
def _imports(source: bytes) -> tuple[tuple[str, int], ...]:
    """(name, how many packages up) of each import; of `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    imports: dict[tuple[str, int], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {(alias.name, 0): None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imports[base, node.level] = None
            imports |= {(f"{base}.{alias.name}".lstrip("."), node.level): None for alias in node.names}
    return tuple(imports)
