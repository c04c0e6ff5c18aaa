"""A daemon that is told to end, in a process of its own: signals are of the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from covey.signals import told_by_signals

async def main():
    stop = asyncio.Event()
    with told_by_signals(stop.set):
        os.kill(os.getpid(), signal.{first})
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

asyncio.run(main())
for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(os.getpid(), number)
print("ended")
sys.exit(3)
"""


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_further_signals_change_nothing_until_the_process_is_gone(first: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "ended\n", "")
