"""Covey: federated and decentralized learning between independent processes.

    import covey

    with covey.local(nodes=4) as federation:          # or covey.connect("/srv/covey")
        run = federation.submit("digits.toml").wait()
        run.metrics().to_frame().plot(x="round", y="accuracy")
        model.load_state_dict(run.model("best"))

docs/client.md has the rest. Names are imported when they are used; `__init__.pyi` has their types.
"""

from __future__ import annotations

import importlib
import os.path
from typing import Any

__all__ = ["FederatedRun", "Federation", "connect", "local", "simulate", "sweep"]
__version__ = "0.1.0"

_LINKED = ("aggregation", "coordinator", "node", "protos", "storage")
"""Packages whose folders lie at the top level of the repository; a clone has links to them here."""
_missing = [name for name in _LINKED if not os.path.isdir(os.path.join(os.path.dirname(__file__), name))]
if _missing:
    raise ImportError(
        f"covey/{_missing[0]} is not a folder: this copy of the repository was made without symbolic links. "
        "Clone it again with `git clone -c core.symlinks=true`, or install the wheel"
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = {"FederatedRun": "run", "sweep": "sweep"}.get(name, "federation")
    return getattr(importlib.import_module(f"covey.library.{room}"), name)
