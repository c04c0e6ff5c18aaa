"""A client with a real node identity that says what it likes: every message is made by hand, byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import queue
import threading
import time

import grpc
import numpy as np

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.layout import Layout
from covey.messages import WIRE
from covey.protos import coordinator_pb2 as pb
from covey.protos import tensors_pb2
from covey.protos.coordinator_pb2_grpc import CoordinatorStub
from covey.wire.channels import channel_credentials, channel_options
from covey.wire.identities.identity import Identity
from covey.wire.transfers.chunks import UPLOAD, encode

ANSWER_S = 20.0
SERIAL = itertools.count(1)


class Session:
    """One open stream; it must be closed."""

    def __init__(self, stub):
        self._outbox, self._inbox = queue.Queue(), queue.Queue()
        self._call = stub.Session(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, name="hostile-session")
        self._reader.start()

    def _read(self):
        try:
            for message in self._call:
                self._inbox.put(message)
        except grpc.RpcError as error:
            self._inbox.put(error)
        self._inbox.put(None)

    def send(self, **kind):
        self._outbox.put(pb.NodeMessage(**kind))

    def take(self, kind, accept=lambda message: True, timeout_s=ANSWER_S):
        """The next message of a kind that is acceptable; others are passed over."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            message = self._inbox.get(timeout=max(0.01, give_up_at - time.monotonic()))
            if message is None or isinstance(message, grpc.RpcError):
                raise ConnectionError(f"the session ended before {kind!r}: {message}")
            if message.WhichOneof("kind") == kind and accept(getattr(message, kind)):
                return getattr(message, kind)

    def ended(self, timeout_s=ANSWER_S):
        """Wait for the end; the gRPC error it ended with, or None."""
        error, give_up_at = None, time.monotonic() + timeout_s
        while (message := self._inbox.get(timeout=max(0.01, give_up_at - time.monotonic()))) is not None:
            error = message if isinstance(message, grpc.RpcError) else error
        return error

    def close(self):
        self._outbox.put(None)
        self._call.cancel()
        self._reader.join(ANSWER_S)
        assert not self._reader.is_alive()


class Hostile:
    """What one node may try. A context manager: at its end all its calls are over."""

    def __init__(self, folder, address):
        self.folder, self.identity = folder, Identity.load(folder)
        options = channel_options("coordinator.covey", f"hostile-{id(self)}")
        self.channel = grpc.secure_channel(address, channel_credentials(self.identity), options)
        self.stub = CoordinatorStub(self.channel)
        self._exits = contextlib.ExitStack()
        self._session = None

    def __enter__(self):
        self._exits.callback(self.channel.close)
        self.connect()
        return self

    def __exit__(self, *_):
        self._exits.close()

    @property
    def session(self):
        """The session that is used; there is one from the first `connect` on."""
        assert self._session is not None
        return self._session

    def open(self):
        """A new session, without a hello."""
        session = Session(self.stub)
        self._exits.callback(session.close)
        return session

    def connect(self):
        """A new session that was welcomed: from now on the one that is used."""
        self._session = self.open()
        self.session.send(hello=pb.Hello(version="0", wire=WIRE, tasks=["digits", "synthetic"], device="cpu"))
        self.session.take("welcome")
        return self.session

    def assignment(self, run, number):
        return self.session.take("assignment", lambda a: a.run == run and a.round == number and a.work == a.TRAIN)

    # -- updates

    def update(self, assignment, data=None):
        """An update with nothing wrong: its statement as a dictionary, and its file's bytes.

        By default a tiny change that no update had before: a file that the coordinator has is not sent again.
        """
        model = Layout.from_json(assignment.layout).part("model")
        data = np.full(model.numel, 1e-6 * next(SERIAL), "<f4").tobytes() if data is None else data
        part = {
            "name": "model",
            "codec": "none",
            "options": {},
            "layout": model.sha256,
            "digest": artifact(data).digest,
            "bytes": len(data),
        }
        claim = {
            "covey": "update/1",
            "federation": self.identity.federation,
            "run": assignment.run,
            "round": assignment.round,
            "node": self.identity.name,
            "key": self.identity.signing_key.key_id,
            "base": assignment.model_sha256,
            "parts": [part],
            "weight": 10.0,
            "metrics": {},
        }
        return claim, data

    def offer(self, claim, data, *, inline=True, parts=None, signature=None):
        """An offer of a claim (a dictionary, or bytes for a statement as they are), truly signed unless given."""
        statement = claim if isinstance(claim, bytes) else statement_of(claim)
        signature = self.identity.signing_key.sign(statement) if signature is None else signature
        parts = [part_of(data, inline=inline)] if parts is None else parts
        return pb.UpdateOffer(statement=statement, signature=signature, parts=parts)

    def honest(self, assignment):
        """Offer an update with nothing wrong, small enough to come along; its receipt."""
        return self.deliver(self.offer(*self.update(assignment)))

    def deliver(self, offer):
        """Make an offer, and wait for the receipt."""
        self.session.send(offer=offer)
        return self.session.take("receipt", lambda receipt: receipt.update == name_of(offer))

    def refused(self, offer):
        """Make an offer, and wait for the refusal."""
        self.session.send(offer=offer)
        return self.session.take("refusal", lambda refusal: refusal.update == name_of(offer))

    # -- bulk

    def upload(self, digest, messages, offset="0"):
        """Call Upload with raw messages; its reply."""
        call = self.channel.stream_unary(
            UPLOAD, request_serializer=None, response_deserializer=pb.UploadReply.FromString
        )
        metadata = (("covey-digest", digest), ("covey-offset", offset))
        return call(iter(messages), metadata=metadata, timeout=ANSWER_S)

    def download(self, digest, offset=0):
        """Call Download; the bytes."""
        request = pb.DownloadRequest(digest=digest, offset=offset)
        return b"".join(chunk.data for chunk in self.stub.Download(request, timeout=ANSWER_S))


def statement_of(claim):
    """Canonical JSON, also of what no statement may hold (NaN)."""
    return json.dumps(claim, sort_keys=True, separators=(",", ":")).encode()


def name_of(offer):
    return hashlib.sha256(offer.statement).hexdigest()


def chunks(data):
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def messages(data):
    return [encode(chunk) for chunk in chunks(data)]


def flipped(message):
    """A message with another last byte."""
    return message[:-1] + bytes([message[-1] ^ 1])


def artifact(data):
    return artifact_of(chunks(data))


def part_of(data, *, name="model", codec="none", inline=True, **changes):
    """A part as it is announced; `changes` to the artifact's fields."""
    made = artifact(data)
    fields = {"digest": made.digest, "size_bytes": made.size_bytes, "chunk_sha256": made.chunk_sha256} | changes
    return pb.Part(name=name, codec=codec, artifact=tensors_pb2.Artifact(**fields), data=data if inline else b"")
