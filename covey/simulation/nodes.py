"""Virtual nodes: the node's own actor, on a link that hands its messages to the coordinator in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from covey import messages as msg
from covey.artifact import CHUNK_BYTES, Artifact
from covey.coordinator.environment import Environment
from covey.coordinator.nodes.service import CoordinatorService
from covey.coordinator.nodes.sessions import Session, Sessions
from covey.errors import NotFound
from covey.node.actor import NodeActor
from covey.node.ports import Bulk, Link, OnBytes
from covey.node.services import NodeServices
from covey.simulation.adversaries import Adversaries
from covey.simulation.files import NodeFiles
from covey.wire.transfers.chunks import prefix


class MemoryLink(Link):
    """A node's session (`covey.node.ports.Link`), always open.

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

    @property
    @override
    def up(self) -> bool:
        return True

    @override
    async def connected(self) -> None:
        """It always is."""

    def send(self, message: msg.NodeMessage) -> None:
        """Have the coordinator take a message; the files of an offer are there before it."""
        if isinstance(message, msg.Progress):
            return
        if isinstance(message, msg.Decline):
            self._declined(f"{self._seat.node}: {message.reason}")
        if isinstance(message, msg.UpdateOffer):
            self._hand_over(message.parts)
        self._env.background.spawn(self._service.dispatch(self._seat, message))

    def _hand_over(self, parts: tuple[msg.OfferedPart, ...]) -> None:
        """Give the files, and count the bytes that would have been sent; small parts count as they come along."""
        for part in parts:
            if not self._env.files.has(part.artifact.digest):
                self._files.hand_over(part.artifact)
                for run in self._env.runs.active.values() if not part.data else ():  # there is one
                    run.progress.bytes_received += part.artifact.size_bytes


class MemoryBulk(Bulk):
    """A node's transfers (`covey.node.ports.Bulk`): what the coordinator has is here, and what it needs is there."""

    def __init__(self, files: NodeFiles) -> None:
        self._files = files

    @override
    async def download(self, artifact: Artifact, on_bytes: OnBytes) -> None:
        """Nothing moves: what the coordinator has is here.

        Raises:
            NotFound: The coordinator has no such file, so that nobody could have it sent.
        """
        if not self._files.has(artifact.digest):
            raise NotFound(f"the coordinator has no file {artifact.digest}")

    @override
    async def upload(self, path: Path, artifact: Artifact, offset: int, on_bytes: OnBytes) -> None:
        self._files.hand_over(artifact)


class VirtualNode:
    """A node without processes, sockets and keys on disk: the actor of a real one, with memory behind its ports.

    Args:
        services: What it works with.
        env: The coordinator's, where bytes are counted.
        adversaries: Told when work has ended.
    """

    def __init__(self, services: NodeServices, env: Environment, adversaries: Adversaries) -> None:
        self._env, self._adversaries, self._name = env, adversaries, services.identity.name
        self._actor = NodeActor(services, self._ended)

    @property
    def busy(self) -> bool:
        """Whether it is working."""
        return self._actor.busy

    def receive(self, message: msg.CoordinatorMessage) -> None:
        """Take a message from the coordinator."""
        if isinstance(message, msg.Assignment):
            run = self._env.runs.of(message.run)
            if run is not None:
                run.progress.bytes_sent += download_bytes(message, self._actor.held_model(message.run))
        self._actor.receive(message)

    def _ended(self, assignment: msg.Assignment) -> None:
        self._adversaries.finished(self._name, assignment.round)

    async def stop(self) -> None:
        """Give up what it does."""
        await self._actor.stop()


def download_bytes(assignment: msg.Assignment, held: str) -> int:
    """What a node would fetch for an assignment, beside what came along with it.

    Args:
        assignment: The assignment.
        held: Digest of the file of the run's newest model that the node has; empty: none.
    """
    files = {item.artifact.digest: item.artifact.size_bytes for item in assignment.inputs if not item.data}
    inputs = sum(map(_streamed, files.values()))
    layout = _streamed(assignment.layout_file.size_bytes) if assignment.layout_file and not held else 0
    return inputs + layout + _model_bytes(assignment, held)


def _model_bytes(assignment: msg.Assignment, held: str) -> int:
    change = assignment.change
    if assignment.model_data or assignment.model.digest == held:
        return 0
    if change is not None and held and change.base == held:
        return 0 if change.data else _streamed(change.artifact.size_bytes)
    return 0 if assignment.version == 0 else _streamed(assignment.model.size_bytes)


def _streamed(size_bytes: int) -> int:
    """A file's bytes as a download counts them: each chunk with the few bytes that say its length."""
    whole, rest = divmod(size_bytes, CHUNK_BYTES)
    return size_bytes + whole * len(prefix(CHUNK_BYTES)) + len(prefix(rest))


class Recipient(Protocol):
    """Takes what the coordinator sends to one node."""

    def receive(self, message: msg.CoordinatorMessage) -> None:
        """Take a message, at once."""


class VirtualSessions(Sessions):
    """The sessions of virtual nodes: a message is taken as it is sent, and nobody loses a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: Mapping[str, Recipient] = {}
        self._names: list[str] = []

    def seat(self, nodes: Mapping[str, Recipient]) -> None:
        """These are the nodes."""
        self._nodes, self._names = nodes, sorted(nodes)

    @override
    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        recipient = self._nodes.get(node)
        if recipient is None:
            return False
        recipient.receive(message)
        return True

    @override
    def nodes(self) -> list[str]:
        return list(self._names)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes
