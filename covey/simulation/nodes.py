"""Virtual nodes: the node daemon's own code, on a link that hands its messages to the coordinator in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from covey import messages as msg
from covey.artifact import CHUNK_BYTES, Artifact
from covey.coordinator.environment import Environment
from covey.coordinator.nodes.service import CoordinatorService
from covey.coordinator.nodes.sessions import Session, Sessions
from covey.errors import WorkerError
from covey.node.assignments.executor import Bench, Work
from covey.node.daemon import NodeDaemon
from covey.node.membership.link import Link
from covey.protos import coordinator_pb2 as pb
from covey.simulation.adversaries import Adversaries
from covey.simulation.files import NodeFiles
from covey.wire.artifacts import artifact_from
from covey.wire.chunks import prefix
from covey.wire.translation import from_node, to_node

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(room="simulation")


class MemoryLink(Link):
    """A node's connection, always open.

    Args:
        env: The coordinator's.
        service: What the coordinator does with nodes' messages.
        session: The node's.
        files: The node's.
        declined: Told the reason of every refusal to work.
    """

    def __init__(
        self,
        env: Environment,
        service: CoordinatorService,
        session: Session,
        files: NodeFiles,
        declined: Callable[[str], None],
    ) -> None:
        self._env, self._service, self._seat, self._files = env, service, session, files
        self._declined = declined

    def send(self, message: pb.NodeMessage) -> None:
        """Have the coordinator take a message; the files of an offer are there before it."""
        kind = message.WhichOneof("kind")
        if kind == "progress":
            return
        if kind == "decline":
            self._declined(f"{self._seat.node}: {message.decline.reason}")
        if kind == "offer":
            self._upload([(artifact_from(part.artifact), bool(part.data)) for part in message.offer.parts])
        plain = from_node(message)
        if plain is not None:
            self._env.background.spawn(self._service.dispatch(self._seat, plain))

    def _upload(self, parts: list[tuple[Artifact, bool]]) -> None:
        """Give the files, and count the bytes that would have been sent; small parts count as they come along."""
        for artifact, came_along in parts:
            if not self._env.files.has(artifact.digest):
                self._files.hand_over(artifact)
                for run in self._env.runs.active.values() if not came_along else ():  # there is one
                    run.bytes_received += artifact.size_bytes

    async def connected(self) -> None:
        """As `Link.connected`: at once."""


class VirtualNode(NodeDaemon):
    """A node without processes, sockets and keys on disk: `NodeDaemon` from where a message has come in.

    Args:
        bench: What it works with.
        env: The coordinator's, where bytes are counted.
        adversaries: Told when work has ended.
    """

    def __init__(self, bench: Bench, env: Environment, adversaries: Adversaries) -> None:
        self._bench, self._env, self._adversaries = bench, env, adversaries
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is working."""
        return self._task is not None and not self._task.done()

    def receive(self, message: pb.CoordinatorMessage) -> None:
        """Take a message from the coordinator."""
        run = self._env.runs.of(message.assignment.run)
        if run is not None:
            run.bytes_sent += download_bytes(message.assignment, self._bench.model)
        self._message(message)

    async def _after(self, previous: asyncio.Task[None] | None, work: Work) -> None:
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        try:
            await work.do()
        except Exception as error:
            log.exception("work failed", node=self._bench.identity.name)
            # The deadlines that would end a silent node's round are not kept here.
            work._decline(WorkerError(f"internal error: {error!r}"))
        finally:
            self._adversaries.finished(self._bench.identity.name, work.message.round)

    async def stop(self) -> None:
        """Give up what it does."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def download_bytes(message: pb.Assignment, held: str) -> int:
    """What a node would fetch for an assignment, beside what came along with it.

    Args:
        message: The assignment.
        held: Digest of the file of the newest model that the node has; empty: none.
    """
    if message.model_data or message.model.digest == held:
        return 0
    if message.HasField("change") and held and message.change_base == held:
        return 0 if message.change_data else _streamed(message.change.size_bytes)
    return 0 if message.version == 0 else _streamed(message.model.size_bytes)


def _streamed(size_bytes: int) -> int:
    """A file's bytes as a download counts them: each chunk with the few bytes that say its length."""
    whole, rest = divmod(size_bytes, CHUNK_BYTES)
    return size_bytes + whole * len(prefix(CHUNK_BYTES)) + len(prefix(rest))


class VirtualSessions(Sessions):
    """The sessions of virtual nodes: a message is taken as it is sent, and nobody loses a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: Mapping[str, VirtualNode] = {}
        self._names: list[str] = []

    def seat(self, nodes: Mapping[str, VirtualNode]) -> None:
        """These are the nodes."""
        self._nodes, self._names = nodes, sorted(nodes)

    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        """As `Sessions.send`."""
        found = self._nodes.get(node)
        if found is None:
            return False
        found.receive(to_node(message))
        return True

    def nodes(self) -> list[str]:
        """As `Sessions.nodes`."""
        return list(self._names)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes
