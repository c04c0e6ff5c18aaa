"""The node's ports in memory, and a coordinator on their other side."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import TransferError
from covey.layout import Layout, TensorSpec
from covey.node.actor import NodeActor
from covey.node.assignments.record.store import NodeStore
from covey.node.operator.config import NodeConfig
from covey.node.operator.metrics import OUTCOMES
from covey.node.services import NodeServices
from covey.spec import RoundsSpec, TaskSection
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.identities.identity import Identity
from covey.wire.identities.signing import ReceiptStatement, SigningKey, UpdateStatement, verify
from covey.worker.jobs.evaluation import EvaluateResult
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.runs import InitialResult
from covey.worker.jobs.training import TrainProgress, TrainResult
from covey.worker.jobs.versions import ApplyResult

SMALL = Layout.of([TensorSpec("w", "float32", (5,)), TensorSpec("seen", "int64", (2,), "buffers")])
LARGE = Layout.of([TensorSpec("w", "float32", (100_000,))])
SPEC = RoundsSpec(name="x", task=TaskSection(name="digits")).to_json()
COORDINATOR_KEY, NODE_KEY = SigningKey.generate(), SigningKey.generate()


def model_bytes(layout, seed=0):
    return bytes([seed]) * layout.file_bytes


def wanted(layout):
    """The layout's own parts."""
    sizes = {"model": 4 * layout.part("model").numel, "buffers": layout.part("buffers").nbytes}
    return tuple(msg.WantedPart(name, "", size, exact=False) for name, size in sizes.items() if size)


def assignment(run="r", number=1, *, layout=SMALL, seed=0, **fields):
    """To train from a model that comes along if it is small; its version has the number of the round before."""
    content = model_bytes(layout, seed)
    asked = msg.Assignment(
        run=run,
        round=number,
        attempt=1,
        work="train",
        spec=SPEC,
        layout=layout.canonical_bytes().decode(),
        version=1,
        model_sha256=hashlib.sha256(content).hexdigest(),
        model=artifact_of([content]),
        roster_index=0,
        num_partitions=3,
        model_data=content if len(content) < 10_000 else b"",
        wanted=wanted(layout),
    )
    return replace(asked, **fields)


class Clock:
    """Time that passes only when somebody sleeps, and then at once."""

    def __init__(self):
        self.seconds = 0.0
        self.slept = []

    def now(self):
        return self.seconds

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


class Worker:
    """Writes what it is told to write; `gates` hold back the trainings of a run, `errors` are raised in turn."""

    def __init__(self):
        self.jobs, self.gates, self.errors, self.private = [], {}, [], False
        self.metrics = {"loss": (2.0, 4.0)}
        self.filters = ()
        self.models = {}
        self.at_once = 0

    def trained(self):
        return [(job.run, job.round) for job in self.jobs]

    async def do(self, operation, job, on_progress=None):
        match operation.name:
            case "train":
                return await self.train(job, on_progress)
            case "initial":
                return await self.initial(job.run, job.spec_json, job.out, allow_path=job.allow_path)
            case _:
                return await getattr(self, operation.name)(job)

    async def train(self, job, on_progress):
        self.jobs.append(job)
        self.at_once += 1
        assert self.at_once == 1
        try:
            on_progress(TrainProgress(1, 2, 0.5, 0.1))
            if job.run in self.gates:
                await self.gates[job.run].wait()
            if self.errors:
                raise self.errors.pop(0)
        finally:
            self.at_once -= 1
        parts = tuple(self._part(name, path, job) for name, path in job.scratch.items())
        state = tuple(self._state(name, path, job) for name, path in job.out_state.items())
        return TrainResult(parts, 7, 2, 0.1, self.metrics, {}, state, private=self.private, filters=self.filters)

    def _part(self, name, path, job):
        size = {"model": 4 * Layout.from_json(job.layout).part("model").numel}.get(name, 8)
        content = f"{job.run} {job.round} {name}".encode().ljust(size, b".")
        path.write_bytes(content)
        layout = Layout.from_json(job.layout).part(name).sha256
        return WrittenFile(name, path, artifact_of([content]), layout=layout)

    def _state(self, name, path, job):
        content = f"{name} after {job.run} {job.round}".encode()
        path.write_bytes(content)
        return WrittenFile(name, path, artifact_of([content]))

    async def evaluate(self, job):
        self.jobs.append(job)
        return EvaluateResult({"accuracy": (3.0, 4.0)})

    async def initial(self, run, spec_json, out, *, allow_path):
        return InitialResult("", self._made("seed", out), "")

    async def apply(self, job):
        return ApplyResult(self._made(job.change.read_bytes(), job.out), "")

    def _made(self, source, out):
        if self.errors:
            raise self.errors.pop(0)
        content = self.models[source]
        out.write_bytes(content)
        return artifact_of([content])


class Coordinator:
    """The other end of link and bulk: grants at once, takes every offer, and answers with a signed receipt.

    Attributes:
        files: What can be downloaded, by digest.
        heard: Every message.
        refusals: Codes for the offers to come; an empty one takes the offer.
        breaks: How many transfers break before they begin.
        answers: Whether it answers at all.
        elsewhere: What it says instead of a grant to who takes models from others; None: nothing.
    """

    elsewhere: msg.ModelElsewhere | None = None

    def __init__(self, node_files):
        self.files, self.heard, self.refusals, self.breaks, self.answers = {}, [], [], 0, True
        self.received, self.offsets = {}, []
        self.tables = []
        """What the grants to come bring of chunks' digests."""
        self.up, self._node_files = True, node_files
        self._session = asyncio.Event()
        self._session.set()
        self._tell = lambda message: None
        self._offered: msg.UpdateOffer | None = None

    def listen(self, receive):
        self._tell = receive

    # -- link

    def send(self, message):
        if not self.up:
            return
        self.heard.append(message)
        if self.answers:
            match message:
                case msg.DownloadAsk(takes_peers=True) if self.elsewhere is not None:
                    self._tell(self.elsewhere)
                case msg.DownloadAsk():
                    self._tell(msg.DownloadGrant(message.digest, self.tables.pop(0) if self.tables else b""))
                case msg.UpdateOffer():
                    self._take(message)

    async def connected(self):
        await self._session.wait()

    def lose(self):
        self.up = False
        self._session.clear()

    def come_back(self):
        self.up = True
        self._session.set()

    def of(self, kind):
        return [message for message in self.heard if isinstance(message, kind)]

    def _take(self, offer):
        self._offered = offer
        digest = hashlib.sha256(offer.statement).hexdigest()
        code = self.refusals.pop(0) if self.refusals else ""
        missing = [p for p in offer.parts if not p.data and p.artifact.digest not in self.received]
        if code:
            self._tell(msg.Refusal(digest, code, "said so"))
        elif missing:
            self._tell(msg.UploadGrant(digest, tuple((p.artifact.digest, 0) for p in missing)))
        else:
            self.confirm(offer)

    def confirm(self, offer=None):
        self._tell(self.receipt(offer or self._offered))

    def receipt(self, offer):
        verify(NODE_KEY.public_bytes, offer.statement, offer.signature)
        statement, digest = UpdateStatement.from_bytes(offer.statement), hashlib.sha256(offer.statement).hexdigest()
        text = ReceiptStatement("f", statement.run, statement.round, statement.node, digest, 1.0).to_bytes()
        return msg.Receipt(digest, text, COORDINATOR_KEY.sign(text))

    # -- bulk

    def _broken(self):
        if self.breaks:
            self.breaks -= 1
            raise TransferError("cut")

    async def download(self, artifact, on_bytes):
        self._broken()
        on_bytes(artifact.size_bytes)
        self._node_files.put(artifact, self.files[artifact.digest])

    async def upload(self, path, artifact, offset, on_bytes):
        self._broken()
        self.offsets.append(offset)
        on_bytes(artifact.size_bytes - offset)
        self.received[artifact.digest] = path.read_bytes()
        assert self._offered is not None
        if all(part.artifact.digest in self.received for part in self._offered.parts):
            self.confirm()


class Node:
    """A node's services in memory, with an actor and its coordinator."""

    def __init__(self, data_dir, **config):
        self.data_dir = data_dir
        self.files = ArtifactFiles(data_dir / "files", durable=False)
        self.store, self.worker, self.clock = NodeStore(data_dir), Worker(), Clock()
        self.coordinator = Coordinator(self.files)
        self.services = NodeServices(
            NodeConfig(data_dir, **config),
            identity(),
            self.coordinator,
            self.coordinator,
            self.files,
            self.worker,
            self.store,
            clock=self.clock,
        )
        self.ended = []
        self.actor = NodeActor(self.services, self.ended.append)
        self.coordinator.listen(self.actor.receive)

    async def until(self, condition):
        """Let the node work until something is so."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 -- much of it happens in threads
                await asyncio.sleep(0.001)

    async def idle(self):
        await self.until(lambda: not self.actor.busy)

    def outcomes(self):
        registry = self.services.metrics.registry
        values = {o: registry.get_sample_value("covey_work_updates_total", {"outcome": o}) for o in OUTCOMES}
        return {outcome: value for outcome, value in values.items() if value}

    def on_disk(self):
        return {path.name for path in (self.data_dir / "files" / "artifacts").iterdir()}


def identity():
    return Identity(
        name="n0",
        role="node",
        federation="f",
        server="",
        coordinator_key=COORDINATOR_KEY.public_bytes,
        key_pem=b"",
        certificate_pem=b"",
        authority_pem=b"",
        signing_key=NODE_KEY,
        expires_at=float("inf"),
    )
