"""Addresses for daemons that are started again."""

from __future__ import annotations

import contextlib
import random
import socket

PORTS = range(10_000, 32_000)
"""Below those that the system gives to whoever connects: nobody takes one while its daemon is started again."""


def free_addresses(count: int) -> list[str]:
    """Different addresses on loopback that nobody listens on.

    Raises:
        OSError: There are not so many.
    """
    addresses: list[str] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(addresses) == count:
            return addresses
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            addresses.append(f"127.0.0.1:{port}")
    raise OSError("every port is taken")
