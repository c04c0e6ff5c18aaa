"""The daemons' event loop does what asyncio's does: results, errors, and a child on a socket pair as the worker is."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
import uvloop

from covey.driver import event_loop

ECHO = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(100))"


async def echoed(line):
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ECHO, str(theirs.fileno()), pass_fds=(theirs.fileno(),), start_new_session=True
    )
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(line)
    found = await reader.read()
    writer.close()
    return found, await process.wait(), type(asyncio.get_running_loop())


def test_a_child_is_spoken_to_and_its_end_is_heard():
    assert event_loop.run(echoed(b"a line\n")) == (b"a line\n", 0, uvloop.Loop)


def test_what_is_raised_comes_out():
    async def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        event_loop.run(fail())
