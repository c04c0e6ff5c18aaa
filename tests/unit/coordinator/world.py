"""A coordinator's runs on small real parts: a store and files in a folder, keys, nodes that record what they are sent.

The worker does what `covey.coordinator.runs.ports.Worker` says with bytes instead of tensors: a version's file is a
hash of what it was made from, so that the same inputs give the same version.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time

from covey import messages as msg
from covey.aggregation.verdicts import Verdict, word_for
from covey.artifact import artifact_of, artifact_of_file
from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.admin.operation import Operation
from covey.coordinator.modes.contract import ReplayInputs
from covey.coordinator.modes.registry import replay_of, take_up
from covey.coordinator.nodes.gossip import AuthorityNotary
from covey.coordinator.nodes.members import Members
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.offers import Offers
from covey.coordinator.runs.ports import RunServices
from covey.coordinator.runs.retention import Retention
from covey.coordinator.runs.schedule.scheduler import Scheduler
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import Studies
from covey.driver.background import Background
from covey.driver.changes import Changes
from covey.layout import Layout
from covey.machines.places import Room
from covey.parts import DeclaredPart
from covey.spec import parse_toml
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import NodeRecord, RunRecord
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from covey.wire.identities.authority import Authority
from covey.wire.identities.signing import PartStatement, SigningKey, UpdateStatement
from covey.worker.jobs.evaluation import EvaluateResult
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.runs import Description, InitialResult
from covey.worker.jobs.steps import StepResult, updates_of

FEDERATION = "f" * 16
LAYOUT = Layout.from_json(make.LAYOUT)
MODEL_BYTES = LAYOUT.part("model").nbytes
MODEL = DeclaredPart(
    "model", "none", LAYOUT.part("model").sha256, MODEL_BYTES, True, 1, None, "all", "rule", (), in_model=True
)
ROUNDS = """
name = "digits"
[task]
name = "digits"
[rounds]
count = {count}
min_nodes = {nodes}
[evaluation]
where = "{where}"
"""
UPDATES = """
name = "digits"
mode = "async"
[task]
name = "digits"
[training]
local_steps = 1
[exchange]
payload = "gradient"
[aggregation]
name = "staleness-mean"
[async]
updates = {count}
min_nodes = {nodes}
[evaluation]
where = "{where}"
every = 1
[keep]
updates = 100
"""


class Nodes:
    """The nodes that are connected, and what each was sent."""

    def __init__(self, *names):
        self.connected = set(names)
        self.sent = []
        self.port = 7410
        self.callers: set[str] = set()
        """Those that nobody can call."""
        self._more = asyncio.Event()

    def nodes(self):
        return sorted(self.connected)

    def __contains__(self, node):
        return node in self.connected

    def takes(self, node):
        return True

    def peer(self, node):
        address = "" if node in self.callers else f"{node}.example:{self.port}"
        return msg.GossipMember(node, address, "aa" * 32) if node in self.connected else None

    def send(self, node, message):
        if node not in self.connected:
            return False
        self.sent.append((node, message))
        self._more.set()
        return True

    def got(self, kind, node=None):
        return [message for to, message in self.sent if isinstance(message, kind) and node in (None, to)]

    async def until(self, met):
        """Wait until `met()` holds, which is asked whenever something was sent."""
        while not met():
            self._more.clear()
            await self._more.wait()


class Worker:
    """Does jobs one at a time, in the order in which they were given."""

    def __init__(self):
        self.description = Description(central=True, aggregator_min=1, slots={}, parts=(MODEL,))
        self.errors = {}
        """Operation to what it raises."""
        self.gates = {}
        """Operation to an event without which it is not done."""
        self.stays = 0
        """How many tensors of the model stay on nodes."""
        self.jobs = []
        self.rejected = {}
        self.plans = {}
        """(round, phase) to the further phase that the method opens once, when it has seen these answers."""
        self.makes_versions = True
        self.pins: list[int] = []
        """What the policy's state refers to after a decision."""
        self._turn, self._more = asyncio.Lock(), asyncio.Event()

    async def begins(self, operation):
        """Wait until a job of an operation was begun."""
        while not self.done(operation):
            self._more.clear()
            await self._more.wait()

    async def do(self, operation, job, on_progress=None):
        async with self._turn:
            self.jobs.append((operation.name, job))
            self._more.set()
            if operation.name in self.gates:
                await self.gates[operation.name].wait()
            if operation.name in self.errors:
                raise self.errors[operation.name]
            return getattr(self, f"_{operation.name}")(job)

    def done(self, operation):
        """The jobs of an operation that were begun."""
        return [job for name, job in self.jobs if name == operation]

    def _describe(self, job):
        return self.description

    def _initial(self, job):
        artifact, sha256 = written(job.out, job.spec_json.encode())
        return InitialResult(make.LAYOUT, artifact, sha256, self.stays)

    def _step(self, job):
        return self._decide(job) if job.answers[0].number else self._aggregate(job)

    def _aggregate(self, job):
        asked = job.version + 1, job.phase
        if asked in self.plans:
            return StepResult((), opens=self.plans.pop(asked))
        verdicts = tuple(
            Verdict(a.node, word_for(a.node not in self.rejected), self.rejected.get(a.node, ""), 0.5, {"norm": 1.0})
            for a in updates_of(job)
        )
        rows = [row for row in updates_of(job) if row.node not in self.rejected]
        if not rows:
            return StepResult(verdicts, enough=False, rule="mean")
        files = [job.models[job.version], *(row.parts["model"] for row in rows if "model" in row.parts)]
        artifact, sha256 = written(job.out, *(path.read_bytes() for path in files))
        state = tuple(
            WrittenFile(name, path, written(path, name.encode(), sha256.encode())[0])
            for name, path in job.out_state.items()
        )
        return StepResult(verdicts, artifact=artifact, model_sha256=sha256, state=state, rule="mean")

    def _decide(self, job):
        (arrival,) = job.answers
        verdict = Verdict(arrival.node, "accepted", share=1.0, number=arrival.number)
        state = json.dumps({"decided": arrival.number})
        pinned = tuple(number for number in self.pins if number not in job.lost)
        if not self.makes_versions:
            return StepResult((verdict,), state_json=state, pinned_updates=pinned)
        update = arrival.parts["model"].read_bytes()
        artifact, sha256 = written(job.out, job.models[job.version].read_bytes(), update)
        return StepResult((verdict,), state_json=state, pinned_updates=pinned, artifact=artifact, model_sha256=sha256)

    def _evaluate(self, job):
        return EvaluateResult({"accuracy": (3.0, 4.0), "nothing": (0.0, 0.0)})


def written(path, *contents):
    """Write the hash of some contents to a file of a model's size; its artifact, and the content's SHA-256."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents))
    path.write_bytes(digest.digest()[:MODEL_BYTES])
    return artifact_of_file(path), digest.hexdigest()


class World:
    """Everything that runs are given, on a folder."""

    def __init__(self, folder, *names, files=None):
        self.folder = folder
        self.store = StoreThread(open_store(f"sqlite:///{folder / 'covey.db'}"))
        self.files = files or ArtifactFiles(folder / "files")
        self.keys = {name: SigningKey.generate() for name in names}
        for name, key in self.keys.items():
            if name not in {node.node for node in self.record.nodes()}:
                record = NodeRecord(name, "node", "active", 10.0, signing_key=key.public_bytes, key_id=key.key_id)
                make.enrol(self.record, record)
        self.nodes, self.worker = Nodes(*names), Worker()
        self.members = Members(self.store)
        self.operation, self.metrics, self.changes = Operation(), CoordinatorMetrics(), Changes()
        self.retention, self.background, self.runs = Retention(self.files), Background(), ActiveRuns()
        self.studies = Studies()
        self.received = []
        """What was received of uploads: the offsets."""
        self.services = RunServices(
            federation=FEDERATION,
            nodes=self.nodes,
            members=self.members,
            store=self.store,
            files=self.files,
            retention=self.retention,
            worker=self.worker,
            signer=SigningKey.generate(),
            notary=AuthorityNotary(Authority.open(folder / "authority"), time.time),
            metrics=self.metrics,
            changes=self.changes,
            operator=self.operation,
            clock=time.time,
            started_at=time.time(),
        )
        self.offers = Offers(self.services, self.runs, self.background, self._receive)
        self._tasks = []

    @property
    def record(self):
        return self.store.store

    async def _receive(self, stream, spool, *, offset, stall_s, on_progress):
        self.received.append(offset)
        try:
            async for chunk in stream:
                await asyncio.to_thread(spool.write, chunk)
                on_progress(len(chunk))
            await asyncio.to_thread(spool.finish)
        finally:
            spool.abandon()

    # -- runs

    def submit(self, run="run", *, mode=ROUNDS, count=2, where="central", submitted_at=1000.0):
        spec = parse_toml(mode.format(count=count, nodes=len(self.nodes.connected), where=where))
        text = spec.to_json()
        record = RunRecord(run, f"name of {run}", spec.mode, text, spec.seed, "queued", "", submitted_at)
        self.record.add_run(record)
        return record

    def active(self, run):
        """The active run of a recorded one, which is not executed yet."""
        active = take_up(self.services, self.record.run(run))
        self.runs.add(active)
        return active

    def execute(self, run):
        """Take a recorded run up, and execute it beside the test."""
        active = self.active(run)
        task = asyncio.create_task(active.execute())
        self._tasks.append(task)
        return active, task

    def scheduler(self, max_runs=4, make_run=take_up):
        for node in self.nodes.nodes():
            self.runs.places.joined(node, Room())
        return Scheduler(self.services, self.runs, make_run, max_runs, self.studies)

    # -- nodes

    def update_of(self, sender, assignment, content=None, *, signer=None, **changes):
        """A node's offer, with its file, for an assignment; `changes` are those of the statement."""
        data = (content or f"{sender} {assignment.run} {assignment.round}".encode()).ljust(MODEL_BYTES, b".")
        data, signer = hashlib.sha256(data).digest()[:MODEL_BYTES], signer or self.keys[sender]
        artifact, name = artifact_of([data]), self._part_of(assignment)
        layout = LAYOUT.part("model").sha256 if name == "model" else ""
        part = PartStatement(name, "none", {}, layout, artifact.digest, artifact.size_bytes)
        values = {
            "federation": FEDERATION,
            "run": assignment.run,
            "round": assignment.round,
            "node": sender,
            "key": signer.key_id,
            "base": assignment.model_sha256,
            "parts": (part,),
            "weight": 1.0,
            "metrics": {},
            "phase": assignment.phase,
        }
        statement = UpdateStatement(**values | changes).to_bytes()
        return msg.UpdateOffer(statement, signer.sign(statement), (msg.OfferedPart(name, "none", artifact, data),))

    def _part_of(self, assignment):
        """The part that the assignment asks for now: here, each phase has one."""
        return next((part.name for part in assignment.wanted if not part.held), "model")

    async def work(self, run, stop=lambda: False):
        """Answer every assignment of a run, as it comes, until its task is done or `stop()` holds."""
        answered = set()
        active = self.runs.active[run]
        while not stop() and not (active.machine is not None and active.machine.done):
            for node, message in list(self.nodes.sent):
                if isinstance(message, msg.Assignment) and message.run == run and (node, message) not in answered:
                    answered.add((node, message))
                    await self.answer(active, node, message)
                    if stop():
                        return
            await self.changed(active)

    async def answer(self, active, node, message):
        if message.work == "evaluate":
            await active.node_evaluated(node, message.version, {"accuracy": (1.0, 2.0)})
        else:
            await self.offers.offer(node, self.update_of(node, message))

    async def changed(self, active):
        """Wait for the next change; a run that has ended has none."""
        seen = self.changes.count
        if active.machine is None or not active.machine.done:
            await self.changes.after(seen)

    def replay(self, folder, run="run"):
        """Of a run on record, into a new folder."""
        folder.mkdir()
        artifacts = self.folder / "files" / "artifacts"
        return replay_of(ReplayInputs(self.record, self.record.run(run), artifacts, self.worker, folder))

    def edit(self, statement, *values):
        """Change the record behind the coordinator's back."""
        with sqlite3.connect(self.folder / "covey.db") as database:
            assert database.execute(statement, values).rowcount

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()
