"""What node and coordinator say to each other, as plain values; only `covey.wire.translation` sees protobuf.

The node's identity is never in a message: it is what its certificate says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from covey.artifact import Artifact
from covey.site_log import SiteLog as SiteLog
from covey.site_log import SiteLogLine as SiteLogLine

Work = Literal["train", "evaluate"]
WIRE = 3
"""The version of these messages; each side says its own in its first message, and refuses another one in words."""


@dataclass(frozen=True)
class InputFile:
    """A file that a node gets beside the model.

    Attributes:
        part: The part's name, as the run's method declares it.
        source: The node whose file it is; empty: the run's own.
        artifact: The file; another node's may be without its chunk digests, which then come with the download's grant.
        data: The file itself, if it is small enough to come along.
    """

    part: str
    source: str
    artifact: Artifact
    data: bytes = b""


@dataclass(frozen=True)
class WantedPart:
    """A part that the node is to send.

    Attributes:
        name: As the run's method declares it.
        codec: How it is encoded.
        size_bytes: Its size: exact, or the most there may be.
        exact: Whether it must have just this size.
        held: The later phase in which it may be asked for; 0: it is sent now.
    """

    name: str
    codec: str
    size_bytes: int
    exact: bool
    held: int = 0


@dataclass(frozen=True)
class Change:
    """The committed change from the version before, for a node that has that version.

    Attributes:
        artifact: Its file; `data` is the file itself, if it is small.
        base: Digest of the file of the version before.
    """

    artifact: Artifact
    base: str
    data: bytes = b""


@dataclass(frozen=True)
class Feedback:
    """What became of this node's newest update on which the run has decided; an empty digest: there is none."""

    update: str = ""
    accepted: bool = False


@dataclass(frozen=True)
class Assignment:
    """What a node is asked to do. Sent again after a reconnection.

    Attributes:
        run: The run's id.
        round: The round, or in an asynchronous run the assignment's own number. Of an evaluation the version's number.
        attempt: Of the round.
        work: `train`: train from the base model and offer an update; `evaluate`: evaluate the base model only.
        spec: The run specification, canonical JSON.
        layout: The model's layout, JSON (`covey.layout`); empty where it is a file.
        version: The base version's number.
        model_sha256: Of the base version.
        model: Its file.
        roster_index: This node's place in the run's roster.
        num_partitions: Into how many parts experiment data is cut.
        part: Which of them is this node's, from 0; -1: the one of its place in the roster.
        phase: Of the round, from 1; methods that ask for one answer have one phase.
        download_granted: The model may be downloaded without asking.
        evaluate: Also evaluate the base model on the node's own data before training.
        model_data: The model's file itself, if it is small.
        change: The change that leads to the base version.
        broadcast: What the codec said of the last round's updates.
        feedback: On the node's newest update.
        node_state: Names of what the run's nodes keep from update to update.
        inputs: Files beside the model.
        wanted: The parts to send, and those to hold back.
        params: JSON of the method's own.
        layout_file: The file of a layout that is too long for a message.
        participants: How many nodes are invited to the round, or have answered in it before; 0: it is not said.
    """

    run: str
    round: int
    attempt: int
    work: Work
    spec: str
    layout: str
    version: int
    model_sha256: str
    model: Artifact
    roster_index: int
    num_partitions: int
    phase: int = 1
    download_granted: bool = False
    evaluate: bool = False
    model_data: bytes = b""
    change: Change | None = None
    broadcast: bytes = b""
    feedback: Feedback = Feedback()
    node_state: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    wanted: tuple[WantedPart, ...] = ()
    params: str = ""
    layout_file: Artifact | None = None
    part: int = -1
    participants: int = 0

    @property
    def key(self) -> tuple[str, int, int, str, Work]:
        """Two assignments with the same key ask for the same work."""
        return self.run, self.round, self.phase, self.model_sha256, self.work


# -- from the node --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """What a node says of itself; where peers call it, how many runs it takes, with how much memory (0: not said)."""

    version: str
    tasks: tuple[str, ...]
    device: str
    drill: str = ""
    wire: int = WIRE
    peer_address: str = ""
    max_runs: int = 0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True)
class DownloadAsk:
    """A node asks for a place in the queue of downloads."""

    digest: str
    with_table: bool = False
    """Whether the file was announced without its chunk digests, so that the grant has to bring them."""
    takes_peers: bool = False
    """Whether other nodes that have the file may be named instead of a grant."""


@dataclass(frozen=True)
class ModelReport:
    """What became of a model: whether others can have it from this node, and who gave wrong bytes of it."""

    run: str
    digest: str
    is_lent: bool
    liars: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfferedPart:
    """A part's file; `data` is the file itself, if it came along."""

    name: str
    codec: str
    artifact: Artifact
    data: bytes = b""


@dataclass(frozen=True)
class UpdateOffer:
    """An update that is durable on the node: the signed statement's exact bytes, and the parts in its order."""

    statement: bytes
    signature: bytes
    parts: tuple[OfferedPart, ...]


@dataclass(frozen=True)
class Decline:
    """The node will not do the assigned work: a code of the error table, and the reason for people."""

    run: str
    round: int
    attempt: int
    code: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a node is; for people, never for decisions other than "still alive".

    `phase` is `queued`, `waiting`, `downloading`, `training` or `uploading`; steps are local steps, of a transfer MiB;
    `loss` is not-a-number in a transfer; `waits_for` says what keeps a node that is `waiting` from going on.
    """

    run: str
    round: int
    phase: str
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    waits_for: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: JSON, metric name to [total, count], or to the reason why it is missing."""

    run: str
    version: int
    metrics: bytes = b""


@dataclass(frozen=True)
class GossipSaid:
    """How far a node is in a gossip run: the exact bytes of its statement, and its signature."""

    run: str
    statement: bytes
    signature: bytes


NodeMessage = Hello | DownloadAsk | UpdateOffer | Decline | Progress | Evaluation | GossipSaid | ModelReport | SiteLog

# -- from the coordinator -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Welcome:
    """The first message of a session; `lanes`: how many connections one file may take, each way."""

    version: str
    federation: str
    node: str
    heartbeat_s: float
    wire: int = WIRE
    lanes: int = 0


@dataclass(frozen=True)
class DownloadGrant:
    """This file may be downloaded now."""

    digest: str
    chunk_sha256: bytes = b""
    """The chunks' digests, where they were asked for."""


@dataclass(frozen=True)
class UploadGrant:
    """Send these files of an offered update: digest to the first byte wanted."""

    update: str
    offsets: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Receipt:
    """The update is durable at the coordinator; signed."""

    update: str
    statement: bytes
    signature: bytes


@dataclass(frozen=True)
class Refusal:
    """An offer, or an upload, was not accepted."""

    update: str
    code: str
    reason: str


@dataclass(frozen=True)
class Cancel:
    """Stop working on this round (0: on all of the run)."""

    run: str
    round: int
    reason: str


@dataclass(frozen=True)
class Goodbye:
    """The session ends: `evicted`, `replaced`, `stopping`, `expired`, `version`."""

    code: str
    reason: str


@dataclass(frozen=True)
class GossipMember:
    """A node of a gossip run.

    Attributes:
        name: What its certificate says.
        address: Where it is called, `HOST:PORT`; empty: it only calls.
        fingerprint: SHA-256 (hex) of its certificate's public key (SubjectPublicKeyInfo, DER).
        late: Whether it came after the run began: it takes part from its second incarnation on.
        part: Of a late node: its part of the data, or where each has its own its place in the roster.
    """

    name: str
    address: str
    fingerprint: str
    late: bool = False
    part: int = 0


@dataclass(frozen=True)
class GossipOrder:
    """A gossip run to take part in.

    Attributes:
        run: Its id, by which nodes name it to each other, too.
        spec: Its specification, canonical JSON.
        model_sha256: Of the first model.
        members: Who takes part, this node included, by name.
        model_bytes: Size of the file that the specification begins with; 0: every node makes the model from the seed.
    """

    run: str
    spec: str
    model_sha256: str
    members: tuple[GossipMember, ...]
    model_bytes: int = 0


@dataclass(frozen=True)
class GossipReceipt:
    """What is on record of a node's part: its newest statement, and how many steps statements have told of."""

    run: str
    incarnation: int
    number: int
    step: int
    update: str
    """SHA-256 (hex) of the statement; empty: there is none."""


@dataclass(frozen=True)
class GossipNotice:
    """That an incarnation is out of a gossip run: a statement's bytes, a signature, and the certificate (DER) of it."""

    run: str
    statement: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True)
class ModelElsewhere:
    """Instead of a grant: who has a file, and what shows them, signed, that this node may have it."""

    digest: str
    holders: tuple[GossipMember, ...]
    statement: bytes
    signature: bytes


CoordinatorMessage = (
    Welcome
    | Assignment
    | DownloadGrant
    | UploadGrant
    | Receipt
    | Refusal
    | Cancel
    | Goodbye
    | GossipOrder
    | GossipReceipt
    | GossipNotice
    | ModelElsewhere
)
