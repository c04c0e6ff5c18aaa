"""Addresses, `HOST:PORT`, taken apart."""

from __future__ import annotations

import ipaddress


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `HOST:PORT`, without the brackets of an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine only."""
    host, _ = host_and_port(address)
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")
