"""The child program of `covey plugins`: imports plug-ins, and writes what they say of themselves as JSON.

Reads `[[kind, name], ...]` from standard input. What the plug-ins print goes to standard error.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from typing import Any

from covey.errors import CoveyError
from covey.plugins import installed, kind_named


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


def main() -> None:
    """Answer for every plug-in that is asked for."""
    wanted = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        entries = [entry(kind, name) for kind, name in wanted]
    print(json.dumps(entries))


if __name__ == "__main__":
    main()
