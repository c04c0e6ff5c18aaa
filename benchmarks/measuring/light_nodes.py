"""Many nodes in one process: each has its own identity, connection and session, and no worker, no disk and no training.

    python -m benchmarks.measuring.light_nodes SERVER FOLDER...

Each FOLDER is the identity of an enrolled node. A node answers every assignment at once with an update of zeros that is
a little different from the others', signed as a real one; the update travels with its offer, so it must be small.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from covey import __version__
from covey import messages as msg
from covey.artifact import Artifact, artifact_of
from covey.errors import CoveyError
from covey.layout import Layout
from covey.node.membership.link import CoordinatorLink
from covey.wire.identities.identity import Identity
from covey.wire.identities.signing import PartStatement, UpdateStatement

TASKS = ("synthetic",)


class LightNode:
    """One of them.

    Args:
        identity: Its own.
        server: Where the coordinator is.
        number: What makes its updates differ from the others'.
    """

    def __init__(self, identity: Identity, server: str, number: int) -> None:
        self._identity, self._number = identity, number
        self._files: dict[tuple[int, str], tuple[Artifact, bytes]] = {}
        self.link = CoordinatorLink(identity, server, self._hello, self._receive, lambda: None)

    def _hello(self) -> msg.Hello:
        return msg.Hello(__version__, TASKS, "cpu", "")

    def _receive(self, message: msg.CoordinatorMessage) -> None:
        if isinstance(message, msg.Assignment) and message.work == "evaluate":
            self.link.send(msg.Evaluation(message.run, message.version))
        elif isinstance(message, msg.Assignment):
            self.link.send(self._offer(message))

    def _offer(self, asked: msg.Assignment) -> msg.UpdateOffer:
        files = [(part, *self._file(part)) for part in asked.wanted]
        layout = Layout.from_json(asked.layout)
        statement = UpdateStatement(
            federation=self._identity.federation,
            run=asked.run,
            round=asked.round,
            node=self._identity.name,
            key=self._identity.signing_key.key_id,
            base=asked.model_sha256,
            parts=tuple(
                PartStatement(
                    part.name, part.codec, {}, layout.part(part.name).sha256, artifact.digest, artifact.size_bytes
                )
                for part, artifact, _ in files
            ),
            weight=1.0,
            metrics={},
            phase=asked.phase,
        ).to_bytes()
        parts = tuple(msg.OfferedPart(part.name, part.codec, artifact, data) for part, artifact, data in files)
        return msg.UpdateOffer(statement, self._identity.signing_key.sign(statement), parts)

    def _file(self, part: msg.WantedPart) -> tuple[Artifact, bytes]:
        key = part.size_bytes, part.name
        if key not in self._files:
            seed = hashlib.sha256(f"{self._number} {part.name}".encode()).digest()
            # Two bytes of a small float32 each, in no particular order: 1e-41 and the like, in effect zeros.
            data = (seed[:2] + bytes(2)).ljust(part.size_bytes, b"\0")[: part.size_bytes]
            self._files[key] = artifact_of([data]), data
        return self._files[key]


async def run(server: str, folders: Sequence[Path]) -> None:
    """Keep a session open for each identity until cancelled."""
    nodes = [LightNode(Identity.load(folder), server, number) for number, folder in enumerate(folders)]
    sessions = []
    for node in nodes:
        sessions.append(asyncio.create_task(node.link.run()))
        await asyncio.sleep(0.02)  # not all handshakes at once
    await asyncio.gather(*sessions)


def main() -> int:
    """The program."""
    try:
        asyncio.run(run(sys.argv[1], [Path(folder) for folder in sys.argv[2:]]))
    except CoveyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
