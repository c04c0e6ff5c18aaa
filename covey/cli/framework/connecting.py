"""The connection of a command, as its options say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covey.client.connection import Connection
    from covey.client.target import Target


def connected(target: Target) -> Connection:
    """Reach a coordinator; a context manager. Imports the client when it is called: help needs none of it."""
    from covey.client.connection import Connection

    return Connection(target)
