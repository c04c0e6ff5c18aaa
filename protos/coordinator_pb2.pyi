from covey.protos import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("token_secret", "csr", "signing_key", "signing_proof")
    TOKEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNING_PROOF_FIELD_NUMBER: _ClassVar[int]
    token_secret: bytes
    csr: bytes
    signing_key: bytes
    signing_proof: bytes
    def __init__(self, token_secret: _Optional[bytes] = ..., csr: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., signing_proof: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr", "signing_key", "signing_proof")
    CSR_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNING_PROOF_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    signing_key: bytes
    signing_proof: bytes
    def __init__(self, csr: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., signing_proof: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("name", "role", "certificate", "authority", "federation", "coordinator_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    certificate: bytes
    authority: bytes
    federation: str
    coordinator_key: bytes
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., federation: _Optional[str] = ..., coordinator_key: _Optional[bytes] = ...) -> None: ...

class NodeMessage(_message.Message):
    __slots__ = ("hello", "heartbeat", "download", "offer", "decline", "progress", "evaluation", "gossip", "model", "site_log")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SITE_LOG_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    download: DownloadAsk
    offer: UpdateOffer
    decline: Decline
    progress: Progress
    evaluation: Evaluation
    gossip: GossipSaid
    model: ModelReport
    site_log: SiteLog
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., download: _Optional[_Union[DownloadAsk, _Mapping]] = ..., offer: _Optional[_Union[UpdateOffer, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., gossip: _Optional[_Union[GossipSaid, _Mapping]] = ..., model: _Optional[_Union[ModelReport, _Mapping]] = ..., site_log: _Optional[_Union[SiteLog, _Mapping]] = ...) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "heartbeat", "assignment", "download", "upload", "receipt", "refusal", "cancel", "goodbye", "gossip", "gossip_receipt", "gossip_notice", "elsewhere")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_NOTICE_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    heartbeat: Heartbeat
    assignment: Assignment
    download: DownloadGrant
    upload: UploadGrant
    receipt: Receipt
    refusal: Refusal
    cancel: Cancel
    goodbye: Goodbye
    gossip: GossipOrder
    gossip_receipt: GossipReceipt
    gossip_notice: GossipNotice
    elsewhere: ModelElsewhere
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., download: _Optional[_Union[DownloadGrant, _Mapping]] = ..., upload: _Optional[_Union[UploadGrant, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., gossip: _Optional[_Union[GossipOrder, _Mapping]] = ..., gossip_receipt: _Optional[_Union[GossipReceipt, _Mapping]] = ..., gossip_notice: _Optional[_Union[GossipNotice, _Mapping]] = ..., elsewhere: _Optional[_Union[ModelElsewhere, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "tasks", "device", "drill", "wire", "peer_address", "max_runs", "memory_bytes", "gpu_memory_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DRILL_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    device: str
    drill: str
    wire: int
    peer_address: str
    max_runs: int
    memory_bytes: int
    gpu_memory_bytes: int
    def __init__(self, version: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., device: _Optional[str] = ..., drill: _Optional[str] = ..., wire: _Optional[int] = ..., peer_address: _Optional[str] = ..., max_runs: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "federation", "node", "heartbeat_s", "wire", "lanes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    version: str
    federation: str
    node: str
    heartbeat_s: float
    wire: int
    lanes: int
    def __init__(self, version: _Optional[str] = ..., federation: _Optional[str] = ..., node: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., wire: _Optional[int] = ..., lanes: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("run", "round", "attempt", "work", "spec", "layout", "version", "model_sha256", "model", "roster_index", "num_partitions", "download_granted", "evaluate", "model_data", "change", "change_data", "change_base", "broadcast", "settled", "settled_accepted", "node_state", "phase", "inputs", "wanted", "params", "layout_file", "part", "participants")
    class Work(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WORK_UNSPECIFIED: _ClassVar[Assignment.Work]
        TRAIN: _ClassVar[Assignment.Work]
        EVALUATE: _ClassVar[Assignment.Work]
    WORK_UNSPECIFIED: Assignment.Work
    TRAIN: Assignment.Work
    EVALUATE: Assignment.Work
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROSTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_GRANTED_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DATA_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_DATA_FIELD_NUMBER: _ClassVar[int]
    CHANGE_BASE_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    SETTLED_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    NODE_STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FILE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    attempt: int
    work: Assignment.Work
    spec: bytes
    layout: bytes
    version: int
    model_sha256: str
    model: _tensors_pb2.Artifact
    roster_index: int
    num_partitions: int
    download_granted: bool
    evaluate: bool
    model_data: bytes
    change: _tensors_pb2.Artifact
    change_data: bytes
    change_base: str
    broadcast: bytes
    settled: str
    settled_accepted: bool
    node_state: _containers.RepeatedScalarFieldContainer[str]
    phase: int
    inputs: _containers.RepeatedCompositeFieldContainer[InputFile]
    wanted: _containers.RepeatedCompositeFieldContainer[WantedPart]
    params: bytes
    layout_file: _tensors_pb2.Artifact
    part: int
    participants: int
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., work: _Optional[_Union[Assignment.Work, str]] = ..., spec: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., version: _Optional[int] = ..., model_sha256: _Optional[str] = ..., model: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., roster_index: _Optional[int] = ..., num_partitions: _Optional[int] = ..., download_granted: _Optional[bool] = ..., evaluate: _Optional[bool] = ..., model_data: _Optional[bytes] = ..., change: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., change_data: _Optional[bytes] = ..., change_base: _Optional[str] = ..., broadcast: _Optional[bytes] = ..., settled: _Optional[str] = ..., settled_accepted: _Optional[bool] = ..., node_state: _Optional[_Iterable[str]] = ..., phase: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[InputFile, _Mapping]]] = ..., wanted: _Optional[_Iterable[_Union[WantedPart, _Mapping]]] = ..., params: _Optional[bytes] = ..., layout_file: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., part: _Optional[int] = ..., participants: _Optional[int] = ...) -> None: ...

class InputFile(_message.Message):
    __slots__ = ("part", "source", "artifact", "data")
    PART_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    part: str
    source: str
    artifact: _tensors_pb2.Artifact
    data: bytes
    def __init__(self, part: _Optional[str] = ..., source: _Optional[str] = ..., artifact: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class WantedPart(_message.Message):
    __slots__ = ("name", "codec", "size_bytes", "exact", "held")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    name: str
    codec: str
    size_bytes: int
    exact: bool
    held: int
    def __init__(self, name: _Optional[str] = ..., codec: _Optional[str] = ..., size_bytes: _Optional[int] = ..., exact: _Optional[bool] = ..., held: _Optional[int] = ...) -> None: ...

class DownloadAsk(_message.Message):
    __slots__ = ("digest", "with_table", "takes_peers")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WITH_TABLE_FIELD_NUMBER: _ClassVar[int]
    TAKES_PEERS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    with_table: bool
    takes_peers: bool
    def __init__(self, digest: _Optional[str] = ..., with_table: _Optional[bool] = ..., takes_peers: _Optional[bool] = ...) -> None: ...

class ModelElsewhere(_message.Message):
    __slots__ = ("digest", "holders", "statement", "signature")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    holders: _containers.RepeatedCompositeFieldContainer[GossipMember]
    statement: bytes
    signature: bytes
    def __init__(self, digest: _Optional[str] = ..., holders: _Optional[_Iterable[_Union[GossipMember, _Mapping]]] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("run", "digest", "is_lent", "liars")
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IS_LENT_FIELD_NUMBER: _ClassVar[int]
    LIARS_FIELD_NUMBER: _ClassVar[int]
    run: str
    digest: str
    is_lent: bool
    liars: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., digest: _Optional[str] = ..., is_lent: _Optional[bool] = ..., liars: _Optional[_Iterable[str]] = ...) -> None: ...

class DownloadGrant(_message.Message):
    __slots__ = ("digest", "chunk_sha256")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SHA256_FIELD_NUMBER: _ClassVar[int]
    digest: str
    chunk_sha256: bytes
    def __init__(self, digest: _Optional[str] = ..., chunk_sha256: _Optional[bytes] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("digest", "offset", "lane", "lanes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    lane: int
    lanes: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ..., lane: _Optional[int] = ..., lanes: _Optional[int] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("name", "codec", "artifact", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    codec: str
    artifact: _tensors_pb2.Artifact
    data: bytes
    def __init__(self, name: _Optional[str] = ..., codec: _Optional[str] = ..., artifact: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UpdateOffer(_message.Message):
    __slots__ = ("statement", "signature", "parts")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class UploadGrant(_message.Message):
    __slots__ = ("update", "parts")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    update: str
    parts: _containers.RepeatedCompositeFieldContainer[PartOffset]
    def __init__(self, update: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[PartOffset, _Mapping]]] = ...) -> None: ...

class PartOffset(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadReply(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("update", "statement", "signature")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    update: str
    statement: bytes
    signature: bytes
    def __init__(self, update: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("update", "code", "reason")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    update: str
    code: str
    reason: str
    def __init__(self, update: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ("run", "round", "attempt", "code", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    attempt: int
    code: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("run", "round", "phase", "step", "steps", "loss", "seconds", "waits_for")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    phase: str
    step: int
    steps: int
    loss: float
    seconds: float
    waits_for: str
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., seconds: _Optional[float] = ..., waits_for: _Optional[str] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("run", "version", "metrics")
    RUN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run: str
    version: int
    metrics: bytes
    def __init__(self, run: _Optional[str] = ..., version: _Optional[int] = ..., metrics: _Optional[bytes] = ...) -> None: ...

class SiteLog(_message.Message):
    __slots__ = ("run", "sharing", "lines")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    run: str
    sharing: str
    lines: _containers.RepeatedCompositeFieldContainer[SiteLogLine]
    def __init__(self, run: _Optional[str] = ..., sharing: _Optional[str] = ..., lines: _Optional[_Iterable[_Union[SiteLogLine, _Mapping]]] = ...) -> None: ...

class SiteLogLine(_message.Message):
    __slots__ = ("at", "round", "kind", "text")
    AT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at: float
    round: int
    kind: str
    text: str
    def __init__(self, at: _Optional[float] = ..., round: _Optional[int] = ..., kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("run", "round", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    reason: str
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GossipOrder(_message.Message):
    __slots__ = ("run", "spec", "model_sha256", "members", "model_bytes")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    run: str
    spec: bytes
    model_sha256: str
    members: _containers.RepeatedCompositeFieldContainer[GossipMember]
    model_bytes: int
    def __init__(self, run: _Optional[str] = ..., spec: _Optional[bytes] = ..., model_sha256: _Optional[str] = ..., members: _Optional[_Iterable[_Union[GossipMember, _Mapping]]] = ..., model_bytes: _Optional[int] = ...) -> None: ...

class GossipMember(_message.Message):
    __slots__ = ("name", "address", "fingerprint", "late", "part")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    fingerprint: str
    late: bool
    part: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., fingerprint: _Optional[str] = ..., late: _Optional[bool] = ..., part: _Optional[int] = ...) -> None: ...

class GossipSaid(_message.Message):
    __slots__ = ("run", "statement", "signature")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    run: str
    statement: bytes
    signature: bytes
    def __init__(self, run: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class GossipReceipt(_message.Message):
    __slots__ = ("run", "incarnation", "number", "step", "update")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: int
    number: int
    step: int
    update: str
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[int] = ..., number: _Optional[int] = ..., step: _Optional[int] = ..., update: _Optional[str] = ...) -> None: ...

class GossipNotice(_message.Message):
    __slots__ = ("run", "statement", "signature", "certificate")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    run: str
    statement: bytes
    signature: bytes
    certificate: bytes
    def __init__(self, run: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...
