"""A small coordinator behind real gRPC and TLS: plays a script in each session, keeps files, renews certificates."""

from __future__ import annotations

import asyncio

import grpc.aio
from cryptography import x509

from covey import messages as msg
from covey.coordinator.nodes.upload_lanes import UploadLanes
from covey.protos import coordinator_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.channels import server_credentials, server_options
from covey.wire.listeners.health import HealthService
from covey.wire.transfers import chunks
from covey.wire.transfers.lanes import Lane
from covey.wire.transfers.streams import receive, serve_download
from covey.wire.translation import from_node, to_node

WELCOME = msg.Welcome("9.9", "f", "n0", 10.0)
END = object()
"""In a script: the session ends here. Without it the session stays open until the node goes."""


class ServedCoordinator:
    """Serves `covey.v1.Coordinator` as far as a node's adapters need it.

    Attributes:
        address: Where it listens, once it does.
        scripts: What is sent in the sessions to come; afterwards each is welcomed and stays open.
        heard: What nodes said, as plain values; heartbeats as None.
        artifacts: By digest, what can be downloaded from `files`, or uploaded into them.
        refuses: Whether transfers are refused.
        lanes: Of each transfer's call, in their order.
    """

    def __init__(self, folder, authority):
        self.files, self.authority = ArtifactFiles(folder), authority
        self.scripts, self.heard, self.artifacts, self.refuses = [], [], {}, False
        self.sessions, self.address, self.lanes = 0, "", []
        self._uploads = UploadLanes()
        self._news = asyncio.Event()

    async def Session(self, requests, context):
        self.sessions += 1
        script = self.scripts.pop(0) if self.scripts else [WELCOME]
        reader = asyncio.create_task(self._read(requests))
        try:
            for message in script:
                if message is END:
                    return
                yield message if isinstance(message, pb.CoordinatorMessage) else to_node(message)
            await reader
        finally:
            reader.cancel()

    async def _read(self, requests):
        async for message in requests:
            self.heard.append(from_node(message))
            self._news.set()

    async def hears(self, count):
        """Wait until so many messages were heard."""
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()

    async def Renew(self, request, context):
        key = x509.load_der_x509_csr(request.csr).public_key()
        return pb.EnrolReply(
            name="n0", role="node", certificate=self.authority.issue("n0", "node", key).pem, federation="f"
        )

    async def download(self, request, context):
        if self.refuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not granted")
        artifact = self.artifacts[request.digest]
        lane = Lane.checked(request.lane, request.lanes)
        self.lanes.append(lane)
        async for message in serve_download(self.files.path(request.digest), artifact, request.offset, lane):
            yield message

    async def upload(self, stream, context):
        if self.refuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not granted")
        metadata = dict(context.invocation_metadata())
        artifact, offset = self.artifacts[metadata["covey-digest"]], int(metadata["covey-offset"])
        lane = Lane.parse(metadata.get("covey-lane", "0/1"))
        self.lanes.append(lane)

        async def take(chunks):
            spool = await asyncio.to_thread(self.files.begin, artifact)
            path = await receive(chunks, spool, offset=offset, stall_s=20.0)
            return path.stat().st_size

        received = await self._uploads.take("n0", artifact.digest, offset, lane, stream, take)
        return pb.UploadReply(received_bytes=received)

    async def start(self, identity):
        """Listen; gives the server, which the caller stops."""
        methods: dict[str, grpc.RpcMethodHandler] = {
            "Session": grpc.stream_stream_rpc_method_handler(
                self.Session,
                request_deserializer=pb.NodeMessage.FromString,
                response_serializer=pb.CoordinatorMessage.SerializeToString,
            ),
            "Renew": grpc.unary_unary_rpc_method_handler(
                self.Renew,
                request_deserializer=pb.RenewRequest.FromString,
                response_serializer=pb.EnrolReply.SerializeToString,
            ),
            "Download": chunks.download_handler(self.download),
            "Upload": chunks.upload_handler(self.upload),
        }
        server = grpc.aio.server(options=server_options())
        health = HealthService(lambda peer: None, {}).handler()
        server.add_generic_rpc_handlers((health, grpc.method_handlers_generic_handler("covey.v1.Coordinator", methods)))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(identity))
        await server.start()
        self.address = f"127.0.0.1:{port}"
        return server
