"""The order of things: file synced, renamed, directory synced, row committed, and only then the receipt."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass

import psutil
import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
DISK = "fsync,fdatasync,rename,renameat,renameat2,pwrite64"
NETWORK = "sendmsg,sendmmsg,sendto,write,writev"
PAGE_BYTES = "4096"
ANSWER_BYTES = 150
"""Encrypted, a receipt and the reply to an upload are longer; pings and flow control have a few dozen bytes."""
LARGE = {"task": "synthetic", "options": "parameters = 600000"}
"""An update of three chunks."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("durability"), nodes=1) as made:
        yield made.start()


def test_an_uploaded_update_is_durable_before_its_receipt(federation, tmp_path):
    with traced(federation, tmp_path / "trace") as calls:
        run = federation.submit(spec("uploaded", rounds=1, min_nodes=1, **LARGE))
        federation.wait(run)
    recorded_before_its_receipt(federation, calls, part_digest(federation, run))


def test_an_update_that_travels_inline_is_durable_before_its_receipt(federation, tmp_path):
    with traced(federation, tmp_path / "trace") as calls:
        run = federation.submit(spec("inline", rounds=1, min_nodes=1))
        federation.wait(run)
    recorded_before_its_receipt(federation, calls, part_digest(federation, run))


def recorded_before_its_receipt(federation, calls, digest):
    """File, name, folder, row: each synced. From the rename to the row's end the node gets nothing like a receipt."""
    synced = first(calls, rf"^f(data)?sync\(\d+<[^>]*spool/{digest}")
    renamed = first(calls, rf"^rename.*spool/{digest}.*artifacts/{digest}", after=synced)
    folder = first(calls, r"^f(data)?sync\(\d+<[^>]*artifacts>", after=renamed)
    written = first(calls, rf"^pwrite64\(\d+<[^>]*covey\.db-wal>.*{digest}", after=folder)
    committed = first(calls, r"^f(data)?sync\(\d+<[^>]*covey\.db-wal>", after=written)
    ports = ports_of_node(federation)
    answers = [call for call in calls if call.began > renamed.began and bytes_sent(call, ports) >= ANSWER_BYTES]
    assert answers, "the node was sent nothing after its update"
    assert answers[0].began > committed.ended


@dataclass
class Call:
    """A system call: its text, and the numbers of the lines in which it began and ended."""

    text: str
    began: int
    ended: int


@contextlib.contextmanager
def traced(federation, path):
    """The coordinator's system calls while the body ran; filled at its end."""
    found: list[Call] = []
    options = ["-f", "-yy", "-s", PAGE_BYTES, "-e", f"trace={DISK},{NETWORK}", "-o", str(path)]
    command = ["strace", *options, "-p", str(federation.coordinator.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        try:
            if b"attached" not in tracer.stderr.readline():
                pytest.skip("strace may not attach to a process here")
            yield found
        finally:
            tracer.terminate()
            tracer.stderr.read()
    found.extend(calls_in(path.read_text().splitlines()))


def calls_in(lines):
    """The calls in the order in which they began; one that another thread's line interrupted is put together."""
    calls, unfinished = [], {}
    for number, line in enumerate(lines):
        thread, _, text = line.partition(" ")
        text = text.lstrip()
        if text.startswith("<... "):
            if thread in unfinished:
                unfinished.pop(thread).ended = number
            continue
        calls.append(Call(text, number, number))
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = calls[-1]
    return calls


def first(calls, pattern, after=None):
    """The first call like this, begun after another one had ended."""
    start = -1 if after is None else after.ended
    for call in calls:
        if call.began > start and re.search(pattern, call.text):
            return call
    raise AssertionError(f"no call like {pattern} after line {start} of the trace")


def ports_of_node(federation):
    """Its ends of all its connections."""
    connections = psutil.Process(federation.node(0).pid).net_connections("tcp")
    return {connection.laddr.port for connection in connections}


def bytes_sent(call, ports):
    """How much a call hands to a connection that leads to one of these ports; 0 for any other call."""
    found = re.match(r"(?:send|write)\w*\(\d+<TCP\S*->\S*:(\d+)\]>, ", call.text)
    if found is None or int(found[1]) not in ports:
        return 0
    return sum(map(int, re.findall(r"iov_len=(\d+)", call.text))) or len(call.text)


def part_digest(federation, run):
    """The digest of the model part of the run's only update."""
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database:
        [(parts,)] = database.execute("SELECT parts FROM assignments WHERE run = ?", (run,)).fetchall()
    match = re.search(r"[0-9a-f]{64}", parts)
    assert match is not None
    return match.group()
