"""Between plain messages (`covey.messages`) and protobuf, both ways. Nothing of what comes in is checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from covey import messages as msg
from covey.protos import coordinator_pb2 as pb
from covey.wire.artifacts import artifact_from, artifact_message


def to_coordinator(message: msg.NodeMessage) -> pb.NodeMessage:
    """A node's message as it goes over the wire."""
    match message:
        case msg.Hello():
            return pb.NodeMessage(hello=pb.Hello(**vars(message)))
        case msg.DownloadAsk():
            return pb.NodeMessage(download=pb.DownloadAsk(**vars(message)))
        case msg.UpdateOffer():
            parts = [
                pb.Part(name=p.name, codec=p.codec, artifact=artifact_message(p.artifact), data=p.data)
                for p in message.parts
            ]
            offer = pb.UpdateOffer(statement=message.statement, signature=message.signature, parts=parts)
            return pb.NodeMessage(offer=offer)
        case msg.Decline():
            return pb.NodeMessage(decline=pb.Decline(**vars(message)))
        case msg.Progress():
            return pb.NodeMessage(progress=pb.Progress(**vars(message)))
        case msg.Evaluation():
            return pb.NodeMessage(evaluation=pb.Evaluation(**vars(message)))
        case msg.ModelReport():
            return pb.NodeMessage(model=pb.ModelReport(**vars(message)))
        case msg.GossipSaid():
            return pb.NodeMessage(gossip=pb.GossipSaid(**vars(message)))
        case msg.SiteLog():
            lines = [pb.SiteLogLine(**vars(line)) for line in message.lines]
            return pb.NodeMessage(site_log=pb.SiteLog(run=message.run, sharing=message.sharing, lines=lines))


def from_node(message: pb.NodeMessage) -> msg.NodeMessage | None:
    """A node's message as a plain value; None: a heartbeat, or a kind that is not known here."""
    match message.WhichOneof("kind"):
        case "hello":
            hello = message.hello
            return msg.Hello(
                hello.version,
                tuple(hello.tasks),
                hello.device,
                hello.drill,
                hello.wire,
                hello.peer_address,
                hello.max_runs,
                hello.memory_bytes,
                hello.gpu_memory_bytes,
            )
        case "download":
            return msg.DownloadAsk(message.download.digest, message.download.with_table, message.download.takes_peers)
        case "offer":
            offer = message.offer
            parts = tuple(
                msg.OfferedPart(p.name, p.codec, artifact_from(p.artifact), bytes(p.data)) for p in offer.parts
            )
            return msg.UpdateOffer(bytes(offer.statement), bytes(offer.signature), parts)
        case "decline":
            decline = message.decline
            return msg.Decline(decline.run, decline.round, decline.attempt, decline.code, decline.reason)
        case "progress":
            now = message.progress
            return msg.Progress(
                now.run, now.round, now.phase, now.step, now.steps, now.loss, now.seconds, now.waits_for
            )
        case "evaluation":
            evaluation = message.evaluation
            return msg.Evaluation(evaluation.run, evaluation.version, bytes(evaluation.metrics))
        case "model":
            report = message.model
            return msg.ModelReport(report.run, report.digest, report.is_lent, tuple(report.liars))
        case "site_log":
            shared = message.site_log
            lines = tuple(msg.SiteLogLine(line.at, line.round, line.kind, line.text) for line in shared.lines)
            return msg.SiteLog(shared.run, shared.sharing, lines)
        case "gossip":
            return msg.GossipSaid(message.gossip.run, bytes(message.gossip.statement), bytes(message.gossip.signature))
        case _:
            return None


def to_node(message: msg.CoordinatorMessage) -> pb.CoordinatorMessage:
    """A coordinator's message as it goes over the wire."""
    match message:
        case msg.Welcome():
            return pb.CoordinatorMessage(welcome=pb.Welcome(**vars(message)))
        case msg.Assignment():
            return pb.CoordinatorMessage(assignment=_assignment_message(message))
        case msg.DownloadGrant():
            return pb.CoordinatorMessage(download=pb.DownloadGrant(**vars(message)))
        case msg.UploadGrant():
            parts = [pb.PartOffset(digest=digest, offset=offset) for digest, offset in message.offsets]
            return pb.CoordinatorMessage(upload=pb.UploadGrant(update=message.update, parts=parts))
        case msg.Receipt():
            return pb.CoordinatorMessage(receipt=pb.Receipt(**vars(message)))
        case msg.Refusal():
            return pb.CoordinatorMessage(refusal=pb.Refusal(**vars(message)))
        case msg.Cancel():
            return pb.CoordinatorMessage(cancel=pb.Cancel(**vars(message)))
        case msg.Goodbye():
            return pb.CoordinatorMessage(goodbye=pb.Goodbye(**vars(message)))
        case msg.GossipOrder():
            members = [pb.GossipMember(**vars(member)) for member in message.members]
            whole = {**vars(message), "spec": message.spec.encode(), "members": members}
            return pb.CoordinatorMessage(gossip=pb.GossipOrder(**whole))
        case msg.ModelElsewhere():
            holders = [pb.GossipMember(**vars(member)) for member in message.holders]
            return pb.CoordinatorMessage(elsewhere=pb.ModelElsewhere(**{**vars(message), "holders": holders}))
        case msg.GossipReceipt():
            return pb.CoordinatorMessage(gossip_receipt=pb.GossipReceipt(**vars(message)))
        case msg.GossipNotice():
            return pb.CoordinatorMessage(gossip_notice=pb.GossipNotice(**vars(message)))


def from_coordinator(message: pb.CoordinatorMessage) -> msg.CoordinatorMessage | None:
    """A coordinator's message as a plain value; None: a heartbeat, or a kind that is not known here."""
    kind = message.WhichOneof("kind")
    read = _READ.get(kind) if kind is not None else None
    return None if read is None or kind is None else read(getattr(message, kind))


def input_message(item: msg.InputFile) -> pb.InputFile:
    """A file beside the model as it goes into an assignment."""
    artifact = artifact_message(item.artifact)
    return pb.InputFile(part=item.part, source=item.source, artifact=artifact, data=item.data)


def _assignment_message(assignment: msg.Assignment) -> pb.Assignment:
    message = pb.Assignment(
        run=assignment.run,
        round=assignment.round,
        attempt=assignment.attempt,
        work=pb.Assignment.EVALUATE if assignment.work == "evaluate" else pb.Assignment.TRAIN,
        spec=assignment.spec.encode(),
        layout=assignment.layout.encode(),
        version=assignment.version,
        model_sha256=assignment.model_sha256,
        model=artifact_message(assignment.model),
        roster_index=assignment.roster_index,
        num_partitions=assignment.num_partitions,
        phase=assignment.phase,
        download_granted=assignment.download_granted,
        evaluate=assignment.evaluate,
        model_data=assignment.model_data,
        broadcast=assignment.broadcast,
        settled=assignment.feedback.update,
        settled_accepted=assignment.feedback.accepted,
        node_state=assignment.node_state,
        params=assignment.params.encode(),
        part=assignment.part + 1,
        participants=assignment.participants,
        inputs=[input_message(item) for item in assignment.inputs],
        wanted=[pb.WantedPart(**vars(part)) for part in assignment.wanted],
    )
    if assignment.change is not None:
        message.change.CopyFrom(artifact_message(assignment.change.artifact))
        message.change_base, message.change_data = assignment.change.base, assignment.change.data
    if assignment.layout_file is not None:
        message.layout_file.CopyFrom(artifact_message(assignment.layout_file))
    return message


def _assignment_from(message: pb.Assignment) -> msg.Assignment:
    change = None
    if message.HasField("change"):
        change = msg.Change(artifact_from(message.change), message.change_base, bytes(message.change_data))
    return msg.Assignment(
        run=message.run,
        round=message.round,
        attempt=message.attempt,
        work="evaluate" if message.work == pb.Assignment.EVALUATE else "train",
        spec=message.spec.decode(),
        layout=message.layout.decode(),
        version=message.version,
        model_sha256=message.model_sha256,
        model=artifact_from(message.model),
        roster_index=message.roster_index,
        num_partitions=message.num_partitions,
        phase=message.phase or 1,  # a coordinator that knows no phases says none
        download_granted=message.download_granted,
        evaluate=message.evaluate,
        model_data=bytes(message.model_data),
        change=change,
        broadcast=bytes(message.broadcast),
        feedback=msg.Feedback(message.settled, message.settled_accepted),
        node_state=tuple(message.node_state),
        inputs=tuple(msg.InputFile(i.part, i.source, artifact_from(i.artifact), bytes(i.data)) for i in message.inputs),
        wanted=tuple(msg.WantedPart(w.name, w.codec, w.size_bytes, w.exact, w.held) for w in message.wanted),
        params=message.params.decode(),
        layout_file=artifact_from(message.layout_file) if message.HasField("layout_file") else None,
        part=message.part - 1,
        participants=message.participants,
    )


def _members_from(members: Iterable[pb.GossipMember]) -> tuple[msg.GossipMember, ...]:
    return tuple(msg.GossipMember(m.name, m.address, m.fingerprint, m.late, m.part) for m in members)


def _order_from(message: pb.GossipOrder) -> msg.GossipOrder:
    members = _members_from(message.members)
    return msg.GossipOrder(message.run, message.spec.decode(), message.model_sha256, members, message.model_bytes)


_READ: dict[str, Callable[[Any], msg.CoordinatorMessage]] = {
    "welcome": lambda m: msg.Welcome(m.version, m.federation, m.node, m.heartbeat_s, m.wire, m.lanes),
    "assignment": _assignment_from,
    "download": lambda m: msg.DownloadGrant(m.digest, bytes(m.chunk_sha256)),
    "upload": lambda m: msg.UploadGrant(m.update, tuple((part.digest, part.offset) for part in m.parts)),
    "receipt": lambda m: msg.Receipt(m.update, bytes(m.statement), bytes(m.signature)),
    "refusal": lambda m: msg.Refusal(m.update, m.code, m.reason),
    "cancel": lambda m: msg.Cancel(m.run, m.round, m.reason),
    "goodbye": lambda m: msg.Goodbye(m.code, m.reason),
    "elsewhere": lambda m: msg.ModelElsewhere(
        m.digest, _members_from(m.holders), bytes(m.statement), bytes(m.signature)
    ),
    "gossip": _order_from,
    "gossip_receipt": lambda m: msg.GossipReceipt(m.run, m.incarnation, m.number, m.step, m.update),
    "gossip_notice": lambda m: msg.GossipNotice(m.run, bytes(m.statement), bytes(m.signature), bytes(m.certificate)),
}
