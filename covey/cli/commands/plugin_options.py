"""The child program of `covey plugins`: imports plug-ins, and answers with what they say of themselves.

It is asked with `[[kind, name], ...]`.
"""

from __future__ import annotations

import inspect
from typing import Any

from covey.errors import CoveyError
from covey.plugins import installed, kind_named
from covey.user_code.asking import respond


def entry(kind: str, name: str) -> dict[str, Any]:
    """One plug-in: where it comes from, what it says of itself, and the JSON schema of its options."""
    known = next((plugin for plugin in installed(kind) if plugin.name == name), None)
    options: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "target": known.target if known else "",
        "package": known.package if known else "",
        "summary": "",
        "options": None,
        "error": "",
    }
    try:
        loaded = kind_named(kind).load(name)
    except CoveyError as error:
        return {**options, "error": str(error)}
    summary = (inspect.getdoc(loaded) or "").partition("\n")[0]
    return {**options, "summary": summary, "options": loaded.Options.model_json_schema()}


def entries(wanted: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every plug-in that is asked for."""
    return [entry(kind, name) for kind, name in wanted]


if __name__ == "__main__":
    respond(entries)
