from __future__ import annotations

import grpc
import pytest

from covey.errors import CoveyError, NotFound
from covey.protos import admin_pb2 as pb
from covey.testing import admin


def test_every_field_is_there_and_json_text_is_parsed():
    run = pb.Run(run="r1", state="running", metrics='{"accuracy": 0.5}', roster=["n0", "n1"])
    found = admin.fields_of(run)
    assert found["metrics"] == {"accuracy": 0.5}
    assert found["roster"] == ["n0", "n1"]
    assert found["spec"] == {}
    assert {"run", "name", "mode", "state", "reason", "rounds_committed", "model_version", "model_sha256"} <= set(found)


def test_messages_in_messages_and_bytes_are_kept():
    reply = pb.AuditReply(coordinator_key=b"\x01", commits=[pb.Commit(version=2, statement=b"{}")])
    found = admin.fields_of(reply)
    assert found["coordinator_key"] == b"\x01"
    assert found["commits"] == [{"version": 2, "statement": b"{}", "signature": b""}]


class Refused(grpc.RpcError):
    def __init__(self, status, trailing=()):
        self.status, self.trailing = status, trailing

    def code(self):
        return self.status

    def details(self):
        return "no such run"

    def trailing_metadata(self):
        return self.trailing


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused(grpc.StatusCode.UNAVAILABLE), ConnectionError),
        (Refused(grpc.StatusCode.DEADLINE_EXCEEDED), ConnectionError),
        (Refused(grpc.StatusCode.NOT_FOUND, (("covey-code", "not-found"),)), NotFound),
        (Refused(grpc.StatusCode.INTERNAL), CoveyError),
    ],
)
def test_errors_keep_their_kind(error, kind):
    found = admin._translated("ShowRun", error)
    assert type(found) is kind
    assert "no such run" in str(found)
