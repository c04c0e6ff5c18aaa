"""Floods of every kind at once, for as long as a run takes: its rounds go on, and nothing of the flooder's piles up."""

from __future__ import annotations

import contextlib
import socket
import threading

import grpc
import pytest

from covey.messages import WIRE
from covey.protos import coordinator_pb2 as pb
from tests.integration.hostile.attacks import garbage, wrong_signature
from tests.integration.hostile.runs import POLICY, STATUS, outcomes, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
HELLO = pb.NodeMessage(hello=pb.Hello(version="0", wire=WIRE, tasks=["digits"] * 1000, device="cpu" * 60))
HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303")
"""The beginning of a TLS handshake."""
BRISK = POLICY + "\ndeadline_s = 2\nhard_deadline_s = 3"
SESSIONS, HANDSHAKES = 1000, 500


def slow_handshakes(address, stack):
    """Connections that have begun to shake hands, and go no further."""
    host, port = address.split(":")
    for _ in range(HANDSHAKES):
        with contextlib.suppress(OSError):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 10))
            connection.sendall(HALF_A_HELLO)


def sessions(hostile, ended):
    """One session after the other, each with a hello of some size; how they ended."""
    codes = set()
    for _ in range(SESSIONS):
        if ended.is_set():
            break
        call = hostile.stub.Session(iter([HELLO]), timeout=20)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            codes.add(error.code())
    return codes


def messages(hostile, ended, assignment):
    """Hellos, evaluations and offers without end, in one session; it may end before."""
    evaluation = pb.Evaluation(run=assignment.run, version=1, metrics=b'{"accuracy": [1, 1]}')
    kinds = [
        HELLO,
        pb.NodeMessage(evaluation=evaluation),
        pb.NodeMessage(offer=wrong_signature(hostile, assignment)),
        pb.NodeMessage(offer=garbage(hostile, assignment)),
    ]

    def stream():
        yield HELLO
        while not ended.is_set():
            yield from kinds

    with contextlib.suppress(grpc.RpcError):
        for _ in hostile.stub.Session(stream(), timeout=60):
            pass


def test_rounds_go_on_beside_floods(federation, hostile):
    run = submit(federation, "beside-floods", rounds=4, policy=BRISK)
    assignment = hostile.assignment(run, 1)
    ended, seen = threading.Event(), set()
    with contextlib.ExitStack() as stack:
        slow_handshakes(federation.coordinator_address, stack)
        slow_handshakes(federation.enrol_address, stack)
        work = [
            threading.Thread(target=messages, args=(hostile, ended, assignment)),
            threading.Thread(target=lambda: seen.update(sessions(hostile, ended))),
        ]
        for thread in work:
            thread.start()
        try:
            assert federation.wait(run)["rounds_committed"] == 4
        finally:
            ended.set()
            for thread in work:
                thread.join()
    assert {outcomes(federation, run, number)["n0"][0] for number in range(1, 5)} == {"accepted"}
    assert "nodes/accuracy" not in federation.show(run)["metrics"]  # it was not asked
    assert seen <= {STATUS.UNAVAILABLE, STATUS.RESOURCE_EXHAUSTED}
    events = federation.cli("node", "show", "n1", "--data-dir", federation.coordinator_dir)
    assert len(events.splitlines()) < 100
