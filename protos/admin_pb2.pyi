from covey.protos import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRunRequest(_message.Message):
    __slots__ = ("spec_toml", "spec_json")
    SPEC_TOML_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    spec_toml: str
    spec_json: str
    def __init__(self, spec_toml: _Optional[str] = ..., spec_json: _Optional[str] = ...) -> None: ...

class CheckRunReply(_message.Message):
    __slots__ = ("spec", "notes", "noted", "waits_for", "nodes", "nodes_count", "ready")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    NOTED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    spec: str
    notes: str
    noted: str
    waits_for: str
    nodes: _containers.RepeatedCompositeFieldContainer[CheckedNode]
    nodes_count: int
    ready: int
    def __init__(self, spec: _Optional[str] = ..., notes: _Optional[str] = ..., noted: _Optional[str] = ..., waits_for: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[CheckedNode, _Mapping]]] = ..., nodes_count: _Optional[int] = ..., ready: _Optional[int] = ...) -> None: ...

class CheckedNode(_message.Message):
    __slots__ = ("node", "connected", "refusal", "remark")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    node: str
    connected: bool
    refusal: str
    remark: str
    def __init__(self, node: _Optional[str] = ..., connected: _Optional[bool] = ..., refusal: _Optional[str] = ..., remark: _Optional[str] = ...) -> None: ...

class SubmitModelRequest(_message.Message):
    __slots__ = ("submission", "model", "data")
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    submission: SubmitRunRequest
    model: _tensors_pb2.Artifact
    data: bytes
    def __init__(self, submission: _Optional[_Union[SubmitRunRequest, _Mapping]] = ..., model: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("run", "rows")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    run: str
    rows: bool
    def __init__(self, run: _Optional[str] = ..., rows: _Optional[bool] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("limit", "before")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before: str
    def __init__(self, limit: _Optional[int] = ..., before: _Optional[str] = ...) -> None: ...

class ListRunsReply(_message.Message):
    __slots__ = ("runs", "next")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run", "name", "mode", "state", "reason", "rounds_committed", "rounds", "model_version", "model_sha256", "metrics", "submitted_at", "started_at", "ended_at", "spec", "roster", "updates_decided", "updates", "roster_size", "steps_done", "steps")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    UPDATES_DECIDED_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ROSTER_SIZE_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    run: str
    name: str
    mode: str
    state: str
    reason: str
    rounds_committed: int
    rounds: int
    model_version: int
    model_sha256: str
    metrics: str
    submitted_at: float
    started_at: float
    ended_at: float
    spec: str
    roster: _containers.RepeatedScalarFieldContainer[str]
    updates_decided: int
    updates: int
    roster_size: int
    steps_done: int
    steps: int
    def __init__(self, run: _Optional[str] = ..., name: _Optional[str] = ..., mode: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., rounds_committed: _Optional[int] = ..., rounds: _Optional[int] = ..., model_version: _Optional[int] = ..., model_sha256: _Optional[str] = ..., metrics: _Optional[str] = ..., submitted_at: _Optional[float] = ..., started_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., spec: _Optional[str] = ..., roster: _Optional[_Iterable[str]] = ..., updates_decided: _Optional[int] = ..., updates: _Optional[int] = ..., roster_size: _Optional[int] = ..., steps_done: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...

class DeleteRunReply(_message.Message):
    __slots__ = ("run", "files", "bytes")
    RUN_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    run: str
    files: int
    bytes: int
    def __init__(self, run: _Optional[str] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class RunStatus(_message.Message):
    __slots__ = ("run", "rounds", "nodes", "nodes_count")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_COUNT_FIELD_NUMBER: _ClassVar[int]
    run: Run
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeProgress]
    nodes_count: int
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeProgress, _Mapping]]] = ..., nodes_count: _Optional[int] = ...) -> None: ...

class NodeProgress(_message.Message):
    __slots__ = ("node", "phase", "step", "steps", "loss", "seconds", "since", "bytes_received", "bytes_sent")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    node: str
    phase: str
    step: int
    steps: int
    loss: float
    seconds: float
    since: float
    bytes_received: int
    bytes_sent: int
    def __init__(self, node: _Optional[str] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., seconds: _Optional[float] = ..., since: _Optional[float] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ...) -> None: ...

class NodeWork(_message.Message):
    __slots__ = ("run", "name", "round", "phase", "step", "steps", "since", "bytes_received", "bytes_sent")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    run: str
    name: str
    round: int
    phase: str
    step: int
    steps: int
    since: float
    bytes_received: int
    bytes_sent: int
    def __init__(self, run: _Optional[str] = ..., name: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., since: _Optional[float] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ...) -> None: ...

class RoundRequest(_message.Message):
    __slots__ = ("run", "round", "after", "limit")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    after: str
    limit: int
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListContributionsRequest(_message.Message):
    __slots__ = ("run", "after", "limit")
    RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run: str
    after: str
    limit: int
    def __init__(self, run: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListContributionsReply(_message.Message):
    __slots__ = ("contributions", "next")
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    next: str
    def __init__(self, contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("node", "asked", "accepted", "rejected", "declined", "lost", "late", "last_round", "last_verdict", "last_reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    LAST_ROUND_FIELD_NUMBER: _ClassVar[int]
    LAST_VERDICT_FIELD_NUMBER: _ClassVar[int]
    LAST_REASON_FIELD_NUMBER: _ClassVar[int]
    node: str
    asked: int
    accepted: int
    rejected: int
    declined: int
    lost: int
    late: int
    last_round: int
    last_verdict: str
    last_reason: str
    def __init__(self, node: _Optional[str] = ..., asked: _Optional[int] = ..., accepted: _Optional[int] = ..., rejected: _Optional[int] = ..., declined: _Optional[int] = ..., lost: _Optional[int] = ..., late: _Optional[int] = ..., last_round: _Optional[int] = ..., last_verdict: _Optional[str] = ..., last_reason: _Optional[str] = ...) -> None: ...

class ListGossipRequest(_message.Message):
    __slots__ = ("run", "after", "limit")
    RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run: str
    after: str
    limit: int
    def __init__(self, run: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListGossipReply(_message.Message):
    __slots__ = ("parts", "next")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[GossipPart]
    next: str
    def __init__(self, parts: _Optional[_Iterable[_Union[GossipPart, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class GossipPart(_message.Message):
    __slots__ = ("node", "address", "fingerprint", "state", "reason", "received_at", "statement", "late")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    node: str
    address: str
    fingerprint: str
    state: str
    reason: str
    received_at: float
    statement: bytes
    late: bool
    def __init__(self, node: _Optional[str] = ..., address: _Optional[str] = ..., fingerprint: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., received_at: _Optional[float] = ..., statement: _Optional[bytes] = ..., late: _Optional[bool] = ...) -> None: ...

class ListRoundsRequest(_message.Message):
    __slots__ = ("run", "after", "limit", "newest")
    RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    run: str
    after: int
    limit: int
    newest: bool
    def __init__(self, run: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ..., newest: _Optional[bool] = ...) -> None: ...

class ListRoundsReply(_message.Message):
    __slots__ = ("rounds", "next")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    next: int
    def __init__(self, rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("round", "state", "attempt", "started_at", "committed_at", "seconds", "accepted", "rejected", "bytes_received", "bytes_sent", "metrics", "reason", "invited", "base_version", "version", "arrival", "declined", "lost", "late", "received", "last_reason", "phase")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INVITED_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    LAST_REASON_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    round: int
    state: str
    attempt: int
    started_at: float
    committed_at: float
    seconds: float
    accepted: int
    rejected: int
    bytes_received: int
    bytes_sent: int
    metrics: str
    reason: str
    invited: _containers.RepeatedScalarFieldContainer[str]
    base_version: int
    version: int
    arrival: int
    declined: int
    lost: int
    late: int
    received: int
    last_reason: str
    phase: int
    def __init__(self, round: _Optional[int] = ..., state: _Optional[str] = ..., attempt: _Optional[int] = ..., started_at: _Optional[float] = ..., committed_at: _Optional[float] = ..., seconds: _Optional[float] = ..., accepted: _Optional[int] = ..., rejected: _Optional[int] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., metrics: _Optional[str] = ..., reason: _Optional[str] = ..., invited: _Optional[_Iterable[str]] = ..., base_version: _Optional[int] = ..., version: _Optional[int] = ..., arrival: _Optional[int] = ..., declined: _Optional[int] = ..., lost: _Optional[int] = ..., late: _Optional[int] = ..., received: _Optional[int] = ..., last_reason: _Optional[str] = ..., phase: _Optional[int] = ...) -> None: ...

class RoundDetail(_message.Message):
    __slots__ = ("round", "updates", "version", "next", "nodes", "nodes_count", "resent_up", "resent_down")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESENT_UP_FIELD_NUMBER: _ClassVar[int]
    RESENT_DOWN_FIELD_NUMBER: _ClassVar[int]
    round: Round
    updates: _containers.RepeatedCompositeFieldContainer[Update]
    version: Version
    next: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeProgress]
    nodes_count: int
    resent_up: int
    resent_down: int
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[Update, _Mapping]]] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., next: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodeProgress, _Mapping]]] = ..., nodes_count: _Optional[int] = ..., resent_up: _Optional[int] = ..., resent_down: _Optional[int] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("node", "verdict", "reason", "digest", "bytes", "weight", "share", "numbers", "metrics", "received_at", "base_sha256", "key_id", "phase", "code")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    verdict: str
    reason: str
    digest: str
    bytes: int
    weight: float
    share: float
    numbers: str
    metrics: str
    received_at: float
    base_sha256: str
    key_id: str
    phase: int
    code: str
    def __init__(self, node: _Optional[str] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ..., digest: _Optional[str] = ..., bytes: _Optional[int] = ..., weight: _Optional[float] = ..., share: _Optional[float] = ..., numbers: _Optional[str] = ..., metrics: _Optional[str] = ..., received_at: _Optional[float] = ..., base_sha256: _Optional[str] = ..., key_id: _Optional[str] = ..., phase: _Optional[int] = ..., code: _Optional[str] = ...) -> None: ...

class LocateVersionRequest(_message.Message):
    __slots__ = ("run", "version", "node")
    RUN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    run: str
    version: int
    node: str
    def __init__(self, run: _Optional[str] = ..., version: _Optional[int] = ..., node: _Optional[str] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "model_sha256", "artifact", "metrics", "created_at", "kept", "members", "members_count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_COUNT_FIELD_NUMBER: _ClassVar[int]
    version: int
    model_sha256: str
    artifact: _tensors_pb2.Artifact
    metrics: str
    created_at: float
    kept: bool
    members: _containers.RepeatedScalarFieldContainer[str]
    members_count: int
    def __init__(self, version: _Optional[int] = ..., model_sha256: _Optional[str] = ..., artifact: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., metrics: _Optional[str] = ..., created_at: _Optional[float] = ..., kept: _Optional[bool] = ..., members: _Optional[_Iterable[str]] = ..., members_count: _Optional[int] = ...) -> None: ...

class AuditReply(_message.Message):
    __slots__ = ("coordinator_key", "commits", "updates", "rows")
    COORDINATOR_KEY_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    coordinator_key: bytes
    commits: _containers.RepeatedCompositeFieldContainer[Commit]
    updates: _containers.RepeatedCompositeFieldContainer[SignedUpdate]
    rows: _containers.RepeatedCompositeFieldContainer[AuditedRow]
    def __init__(self, coordinator_key: _Optional[bytes] = ..., commits: _Optional[_Iterable[_Union[Commit, _Mapping]]] = ..., updates: _Optional[_Iterable[_Union[SignedUpdate, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[AuditedRow, _Mapping]]] = ...) -> None: ...

class AuditedRow(_message.Message):
    __slots__ = ("table", "values")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    table: str
    values: bytes
    def __init__(self, table: _Optional[str] = ..., values: _Optional[bytes] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("version", "statement", "signature")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    version: int
    statement: bytes
    signature: bytes
    def __init__(self, version: _Optional[int] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedUpdate(_message.Message):
    __slots__ = ("round", "node", "statement", "signature", "signing_key", "verdict", "kept", "base_version")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    round: int
    node: str
    statement: bytes
    signature: bytes
    signing_key: bytes
    verdict: str
    kept: bool
    base_version: int
    def __init__(self, round: _Optional[int] = ..., node: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., verdict: _Optional[str] = ..., kept: _Optional[bool] = ..., base_version: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("after", "limit", "role")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    role: str
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ..., role: _Optional[str] = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes", "next")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    next: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class NodeRequest(_message.Message):
    __slots__ = ("node", "study")
    NODE_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    node: str
    study: str
    def __init__(self, node: _Optional[str] = ..., study: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node", "state", "enrolled_at", "last_seen_at", "certificate_expires_at", "version", "device", "tasks", "accepted", "rejected", "drill", "declined", "lost", "late", "last_reason", "work", "max_runs", "memory_bytes", "gpu_memory_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_AT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DRILL_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    LAST_REASON_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    state: str
    enrolled_at: float
    last_seen_at: float
    certificate_expires_at: float
    version: str
    device: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    accepted: int
    rejected: int
    drill: str
    declined: int
    lost: int
    late: int
    last_reason: str
    work: _containers.RepeatedCompositeFieldContainer[NodeWork]
    max_runs: int
    memory_bytes: int
    gpu_memory_bytes: int
    def __init__(self, node: _Optional[str] = ..., state: _Optional[str] = ..., enrolled_at: _Optional[float] = ..., last_seen_at: _Optional[float] = ..., certificate_expires_at: _Optional[float] = ..., version: _Optional[str] = ..., device: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., accepted: _Optional[int] = ..., rejected: _Optional[int] = ..., drill: _Optional[str] = ..., declined: _Optional[int] = ..., lost: _Optional[int] = ..., late: _Optional[int] = ..., last_reason: _Optional[str] = ..., work: _Optional[_Iterable[_Union[NodeWork, _Mapping]]] = ..., max_runs: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ...) -> None: ...

class NodeDetail(_message.Message):
    __slots__ = ("node", "events")
    NODE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("run", "node", "before", "limit")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run: str
    node: str
    before: int
    limit: int
    def __init__(self, run: _Optional[str] = ..., node: _Optional[str] = ..., before: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListEventsReply(_message.Message):
    __slots__ = ("events", "next")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next: int
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("at", "kind", "run", "node", "detail")
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    at: float
    kind: str
    run: str
    node: str
    detail: str
    def __init__(self, at: _Optional[float] = ..., kind: _Optional[str] = ..., run: _Optional[str] = ..., node: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("node", "expires_s", "role", "uses")
    NODE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    node: str
    expires_s: float
    role: str
    uses: int
    def __init__(self, node: _Optional[str] = ..., expires_s: _Optional[float] = ..., role: _Optional[str] = ..., uses: _Optional[int] = ...) -> None: ...

class CreateTokenReply(_message.Message):
    __slots__ = ("token", "node", "expires_at", "uses")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    token: str
    node: str
    expires_at: float
    uses: int
    def __init__(self, token: _Optional[str] = ..., node: _Optional[str] = ..., expires_at: _Optional[float] = ..., uses: _Optional[int] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("limit", "skip")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    limit: int
    skip: int
    def __init__(self, limit: _Optional[int] = ..., skip: _Optional[int] = ...) -> None: ...

class ListTokensReply(_message.Message):
    __slots__ = ("tokens", "next")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenInfo]
    next: int
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenInfo, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Study(_message.Message):
    __slots__ = ("name", "nodes", "admins", "members", "auditors", "max_runs", "evicted")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ADMINS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    AUDITORS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNS_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    nodes: _containers.RepeatedScalarFieldContainer[str]
    admins: _containers.RepeatedScalarFieldContainer[str]
    members: _containers.RepeatedScalarFieldContainer[str]
    auditors: _containers.RepeatedScalarFieldContainer[str]
    max_runs: int
    evicted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., nodes: _Optional[_Iterable[str]] = ..., admins: _Optional[_Iterable[str]] = ..., members: _Optional[_Iterable[str]] = ..., auditors: _Optional[_Iterable[str]] = ..., max_runs: _Optional[int] = ..., evicted: _Optional[_Iterable[str]] = ...) -> None: ...

class ListStudiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStudiesReply(_message.Message):
    __slots__ = ("studies",)
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedCompositeFieldContainer[Study]
    def __init__(self, studies: _Optional[_Iterable[_Union[Study, _Mapping]]] = ...) -> None: ...

class EditStudyRequest(_message.Message):
    __slots__ = ("study", "create", "remove_nodes", "remove_people", "remove_max_runs", "remove_whole")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_PEOPLE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_MAX_RUNS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_WHOLE_FIELD_NUMBER: _ClassVar[int]
    study: Study
    create: bool
    remove_nodes: _containers.RepeatedScalarFieldContainer[str]
    remove_people: _containers.RepeatedScalarFieldContainer[str]
    remove_max_runs: bool
    remove_whole: bool
    def __init__(self, study: _Optional[_Union[Study, _Mapping]] = ..., create: _Optional[bool] = ..., remove_nodes: _Optional[_Iterable[str]] = ..., remove_people: _Optional[_Iterable[str]] = ..., remove_max_runs: _Optional[bool] = ..., remove_whole: _Optional[bool] = ...) -> None: ...

class TokenInfo(_message.Message):
    __slots__ = ("id", "node", "role", "state", "created_at", "expires_at", "uses", "uses_left")
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    id: str
    node: str
    role: str
    state: str
    created_at: float
    expires_at: float
    uses: int
    uses_left: int
    def __init__(self, id: _Optional[str] = ..., node: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., created_at: _Optional[float] = ..., expires_at: _Optional[float] = ..., uses: _Optional[int] = ..., uses_left: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CoordinatorStatus(_message.Message):
    __slots__ = ("version", "federation", "state", "nodes_connected", "current_run", "store", "active_runs", "waits_for")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODES_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_RUN_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    version: str
    federation: str
    state: str
    nodes_connected: int
    current_run: str
    store: str
    active_runs: _containers.RepeatedScalarFieldContainer[str]
    waits_for: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., federation: _Optional[str] = ..., state: _Optional[str] = ..., nodes_connected: _Optional[int] = ..., current_run: _Optional[str] = ..., store: _Optional[str] = ..., active_runs: _Optional[_Iterable[str]] = ..., waits_for: _Optional[_Iterable[str]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("folder",)
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    folder: str
    def __init__(self, folder: _Optional[str] = ...) -> None: ...

class BackupReply(_message.Message):
    __slots__ = ("folder", "bytes", "machine")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    folder: str
    bytes: int
    machine: str
    def __init__(self, folder: _Optional[str] = ..., bytes: _Optional[int] = ..., machine: _Optional[str] = ...) -> None: ...

class ListSiteLogRequest(_message.Message):
    __slots__ = ("run", "node", "after")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    run: str
    node: str
    after: int
    def __init__(self, run: _Optional[str] = ..., node: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class ListSiteLogReply(_message.Message):
    __slots__ = ("sharing", "lines", "next")
    SHARING_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    sharing: str
    lines: _containers.RepeatedCompositeFieldContainer[SiteLogEntry]
    next: int
    def __init__(self, sharing: _Optional[str] = ..., lines: _Optional[_Iterable[_Union[SiteLogEntry, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class SiteLogEntry(_message.Message):
    __slots__ = ("number", "at", "round", "kind", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    at: float
    round: int
    kind: str
    text: str
    def __init__(self, number: _Optional[int] = ..., at: _Optional[float] = ..., round: _Optional[int] = ..., kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
