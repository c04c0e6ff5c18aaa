"""A federation from Python: submit runs, follow them, take models away, check what happened.

    from covey.client import connect, local

    with connect(data_dir="/srv/covey") as federation:
        run = federation.submit("digits.toml")
        for change in federation.watch(run):
            print(change.run.done, "of", change.run.whole, change.run.unit)
        federation.export(run, "digits.safetensors", version="best")

    with local(nodes=4) as machine, machine.connect() as federation:   # a whole federation here, as `covey demo`
        ...

Nothing here prints; results are plain frozen values (`covey.client.values`), errors are `covey.errors.CoveyError`.
Names are imported when they are used: the library below (gRPC, SQLAlchemy) takes a while to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covey.client.connection import Connection, connect
    from covey.client.experiments.local_federation import LocalFederation, local
    from covey.client.experiments.simulated import Simulated, simulate

__all__ = ["Connection", "LocalFederation", "Simulated", "connect", "local", "simulate"]
_PLACES = {
    "Connection": "connection",
    "connect": "connection",
    "LocalFederation": "experiments.local_federation",
    "local": "experiments.local_federation",
    "Simulated": "experiments.simulated",
    "simulate": "experiments.simulated",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
