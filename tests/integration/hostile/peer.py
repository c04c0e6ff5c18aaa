"""An enrolled peer of a gossip run that says what it likes: made from `peer.proto` and `docs/wire.md` alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from covey.protos import coordinator_pb2, tensors_pb2
from covey.protos import peer_pb2 as pb
from covey.protos.peer_pb2_grpc import PeerStub

ANSWER_S = 60.0
CHUNK_BYTES = 1 << 20
ONE = 1 << 52


def credentials(folder: Path) -> grpc.ChannelCredentials:
    """Those of an identity's folder."""
    parts = [(folder / name).read_bytes() for name in ("authority.crt", "tls.key", "tls.crt")]
    return grpc.ssl_channel_credentials(*parts)


class Stream:
    """An open call of small messages, both ways; it must be closed."""

    def __init__(self, method: Any) -> None:
        self._outbox: queue.Queue[Any] = queue.Queue()
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._call = method(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, name="hostile-peer")
        self._reader.start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._inbox.put(message)
        except grpc.RpcError as error:
            self._inbox.put(error)
        self._inbox.put(None)

    def send(self, message: Any) -> None:
        self._outbox.put(message)

    def take(self, kind: str) -> Any:
        """The next message of a kind; others are passed over."""
        give_up_at = time.monotonic() + ANSWER_S
        while True:
            message = self._inbox.get(timeout=max(0.01, give_up_at - time.monotonic()))
            if message is None or isinstance(message, grpc.RpcError):
                raise ConnectionError(f"the link ended before {kind!r}: {message}")
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)

    def ended(self) -> Any:
        """Wait for the end: the gRPC error, or None."""
        error, give_up_at = None, time.monotonic() + ANSWER_S
        while (message := self._inbox.get(timeout=max(0.01, give_up_at - time.monotonic()))) is not None:
            error = message if isinstance(message, grpc.RpcError) else error
        return error

    def close(self) -> None:
        self._outbox.put(None)
        self._call.cancel()
        self._reader.join(ANSWER_S)


class HostilePeer:
    """Calls one node. A context manager: at its end all its calls are over.

    Args:
        address: Of the node.
        called: Its name.
        folder: The identity that is shown.
        spec: The run's specification, as nodes hash it.
        run: The run's name.
    """

    def __init__(self, address: str, called: str, folder: Path, spec: str, run: str = "gossip") -> None:
        self.called, self.run, self._folder = called, run, folder
        self._spec = hashlib.sha256(spec.encode()).hexdigest()
        options = [("grpc.ssl_target_name_override", f"{called}.node.covey"), ("grpc.hostile", str(id(self)))]
        self.channel = grpc.secure_channel(address, credentials(folder), options)
        self.stub: Any = PeerStub(self.channel)
        self._streams: list[Stream] = []

    def __enter__(self) -> HostilePeer:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()
        self.channel.close()

    @property
    def name(self) -> str:
        return str(json.loads((self._folder / "federation.json").read_text())["name"])

    # -- calls ------------------------------------------------------------------------------------------------------

    def stream(self, method: str = "Link", *, raw: bool = False) -> Stream:
        """A call, nothing said yet; `raw`: messages are bytes."""
        call = getattr(self.stub, method)
        if raw:
            call = self.channel.stream_stream(f"/covey.v1.Peer/{method}", None, pb.PeerMessage.FromString)
        self._streams.append(Stream(call))
        return self._streams[-1]

    def linked(self, **hello: Any) -> Stream:
        """A link that was greeted."""
        stream = self.stream()
        stream.send(self.hello(**hello))
        stream.take("hello")
        return stream

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Meanwhile it shows signs of life."""
        over, beats = threading.Event(), self.stream("Beat")

        def beat() -> None:
            number = 0
            while not over.wait(0.5):
                number += 1
                beats.send(pb.PeerBeat(number=number))

        thread = threading.Thread(target=beat, name="hostile-beats")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def answered(self, kind: str, **hello: Any) -> tuple[Stream, Any]:
        """A link and what the node says first, where too many were opened just before."""
        give_up_at = time.monotonic() + ANSWER_S
        while True:
            stream = self.stream()
            stream.send(self.hello(**hello))
            try:
                return stream, stream.take(kind)
            except ConnectionError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.5)

    def push(
        self, digest: str, data: bytes, offset: str = "0", before_the_last: Callable[[], object] = lambda: None
    ) -> grpc.StatusCode:
        """Bring a body; `before_the_last` chunk something is done."""

        def messages() -> Iterator[tensors_pb2.Chunk]:
            for start in range(0, len(data), CHUNK_BYTES):
                if start + CHUNK_BYTES >= len(data):
                    before_the_last()
                yield tensors_pb2.Chunk(data=data[start : start + CHUNK_BYTES])

        metadata = (("covey-digest", digest), ("covey-offset", offset))
        return _status(lambda: self.stub.Push(messages(), metadata=metadata, timeout=ANSWER_S))

    def fetch(self, digest: str) -> grpc.StatusCode:
        request = coordinator_pb2.DownloadRequest(digest=digest, offset=0)
        return _status(lambda: list(self.stub.Fetch(request, timeout=ANSWER_S)))

    def notify(self, statement: bytes, signature: bytes, certificate: bytes) -> grpc.StatusCode:
        message = pb.SignedEviction(statement=statement, signature=signature, certificate=certificate)
        return _status(lambda: self.stub.Notify(message, timeout=ANSWER_S))

    # -- messages ---------------------------------------------------------------------------------------------------

    def hello(self, **changes: Any) -> pb.PeerMessage:
        fields = {"wire": 1, "run": self.run, "incarnation": 1, "specification": self._spec, "minted": ONE}
        return pb.PeerMessage(hello=pb.PeerHello(**{**fields, **changes}))

    def given(self, sequence: int, in_all: int, **changes: Any) -> pb.SignedMass:
        """What this peer signs to have given in all, up to a batch."""
        certificate = x509.load_pem_x509_certificate((self._folder / "tls.crt").read_bytes())
        authority = x509.load_pem_x509_certificate((self._folder / "authority.crt").read_bytes())
        statement = {
            "covey": "mass/1",
            "federation": json.loads((self._folder / "federation.json").read_text())["federation"],
            "run": self.run,
            "sender": self.name,
            "sender_incarnation": 1,
            "receiver": self.called,
            "receiver_incarnation": 1,
            "sequence": sequence,
            "units": str(in_all),
            **changes,
        }
        assert certificate.issuer == authority.subject
        raw = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
        return self.sign(raw, b"covey/mass-given/1\n")

    def sign(self, raw: bytes, domain: bytes) -> pb.SignedMass:
        key = serialization.load_pem_private_key((self._folder / "tls.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate((self._folder / "tls.crt").read_bytes())
        signature = key.sign(domain + raw, ec.ECDSA(hashes.SHA256()))
        return pb.SignedMass(
            statement=raw, signature=signature, certificate=certificate.public_bytes(serialization.Encoding.DER)
        )

    def offer(
        self,
        data: bytes,
        *,
        sequence: int = 1,
        units: int = 7,
        step: int = 0,
        came: bytes | None = None,
        given: pb.SignedMass | None = None,
        total: int | None = None,
        **body: Any,
    ) -> pb.PeerMessage:
        """An offer whose body comes along; `total`: what it signs to have given in all."""
        table = b"".join(
            hashlib.sha256(data[start : start + CHUNK_BYTES]).digest() for start in range(0, len(data), CHUNK_BYTES)
        )
        digest = hashlib.sha256(table).hexdigest()
        fields = {"digest": digest, "size_bytes": len(data), "chunk_sha256": table, **body}
        if given is None:
            given = self.given(sequence, units if total is None else total)
        message = pb.BatchOffer(
            sequence=sequence, units=units, step=step, data=data if came is None else came, given=given
        )
        message.body.CopyFrom(tensors_pb2.Artifact(**fields))
        return pb.PeerMessage(offer=message)


def _status(call: Any) -> grpc.StatusCode:
    with contextlib.suppress(StopIteration):
        try:
            call()
        except grpc.RpcError as error:
            status: grpc.StatusCode = error.code()
            return status
    return grpc.StatusCode.OK
