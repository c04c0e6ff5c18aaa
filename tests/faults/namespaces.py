"""A second machine, as a network namespace with a cable to this one, whose link can be cut by its firewall."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

HERE, THERE = "10.79.7.1", "10.79.7.2"
BOTH_WAYS = ("INPUT", "OUTPUT")


class Cable:
    """A pair of virtual network devices, one here (`HERE`) and one in a namespace (`THERE`); nothing here is changed.

    Attributes:
        under: What starts a program at the other end.
    """

    def __init__(self) -> None:
        self._name = f"covey-{os.getpid()}"
        self._device = f"covey{os.getpid() % 100_000:05}"
        self.under = ("ip", "netns", "exec", self._name)

    def make(self) -> None:
        """Make both.

        Raises:
            CalledProcessError: This user, or this machine, may not.
        """
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", self._device, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _run("ip", "addr", "add", f"{HERE}/30", "dev", self._device)
        _run("ip", "link", "set", self._device, "up")
        for command in ("addr add {}/30 dev eth0", "link set eth0 up", "link set lo up"):
            _run("ip", "-n", self._name, *command.format(THERE).split())
        _run(*self.under, "iptables", "-L")

    def cut(self) -> None:
        """From now on nothing passes, neither way, and nobody is told."""
        for chain in BOTH_WAYS:
            _run(*self.under, "iptables", "-A", chain, "-p", "tcp", "-j", "DROP")

    @property
    def stopped_packets(self) -> int:
        """How many were stopped since the cut, both ways."""
        listed = subprocess.run([*self.under, "iptables", "-L", "-v", "-x", "-n"], check=True, capture_output=True)
        rows = [line.split() for line in listed.stdout.decode().splitlines()]
        return sum(int(row[0]) for row in rows if row and row[0].isdigit())

    def mend(self) -> None:
        """All passes again."""
        _run(*self.under, "iptables", "-F")

    def close(self) -> None:
        """Take all away; the devices go with their namespace."""
        subprocess.run(["ip", "link", "del", self._device], capture_output=True)
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """One, or the test is skipped."""
    if os.getuid() != 0:
        pytest.skip("only root may make a network namespace")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")
    made = Cable()
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace with a firewall can be made here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
