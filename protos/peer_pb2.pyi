from covey.protos import tensors_pb2 as _tensors_pb2
from covey.protos import coordinator_pb2 as _coordinator_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerMessage(_message.Message):
    __slots__ = ("hello", "progress", "offer", "grant", "acknowledged", "refused", "left", "eviction", "goodbye", "half_asked", "statements", "ways", "order", "proof", "farewell")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    EVICTION_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    HALF_ASKED_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    WAYS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    progress: PeerProgress
    offer: BatchOffer
    grant: BatchGrant
    acknowledged: BatchAcknowledged
    refused: BatchRefused
    left: PeerHasLeft
    eviction: SignedEviction
    goodbye: PeerGoodbye
    half_asked: HalfAsked
    statements: PeerStatements
    ways: PeerWays
    order: PeerOrder
    proof: MassProof
    farewell: SignedMass
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., progress: _Optional[_Union[PeerProgress, _Mapping]] = ..., offer: _Optional[_Union[BatchOffer, _Mapping]] = ..., grant: _Optional[_Union[BatchGrant, _Mapping]] = ..., acknowledged: _Optional[_Union[BatchAcknowledged, _Mapping]] = ..., refused: _Optional[_Union[BatchRefused, _Mapping]] = ..., left: _Optional[_Union[PeerHasLeft, _Mapping]] = ..., eviction: _Optional[_Union[SignedEviction, _Mapping]] = ..., goodbye: _Optional[_Union[PeerGoodbye, _Mapping]] = ..., half_asked: _Optional[_Union[HalfAsked, _Mapping]] = ..., statements: _Optional[_Union[PeerStatements, _Mapping]] = ..., ways: _Optional[_Union[PeerWays, _Mapping]] = ..., order: _Optional[_Union[PeerOrder, _Mapping]] = ..., proof: _Optional[_Union[MassProof, _Mapping]] = ..., farewell: _Optional[_Union[SignedMass, _Mapping]] = ...) -> None: ...

class PeerHello(_message.Message):
    __slots__ = ("wire", "version", "run", "incarnation", "specification", "minted")
    WIRE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SPECIFICATION_FIELD_NUMBER: _ClassVar[int]
    MINTED_FIELD_NUMBER: _ClassVar[int]
    wire: int
    version: str
    run: str
    incarnation: int
    specification: str
    minted: int
    def __init__(self, wire: _Optional[int] = ..., version: _Optional[str] = ..., run: _Optional[str] = ..., incarnation: _Optional[int] = ..., specification: _Optional[str] = ..., minted: _Optional[int] = ...) -> None: ...

class PeerProgress(_message.Message):
    __slots__ = ("step", "sequence", "acknowledged", "applied", "is_finished", "farewell")
    STEP_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    IS_FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    step: int
    sequence: int
    acknowledged: int
    applied: int
    is_finished: bool
    farewell: int
    def __init__(self, step: _Optional[int] = ..., sequence: _Optional[int] = ..., acknowledged: _Optional[int] = ..., applied: _Optional[int] = ..., is_finished: _Optional[bool] = ..., farewell: _Optional[int] = ...) -> None: ...

class BatchOffer(_message.Message):
    __slots__ = ("sequence", "units", "step", "body", "data", "given")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    units: int
    step: int
    body: _tensors_pb2.Artifact
    data: bytes
    given: SignedMass
    def __init__(self, sequence: _Optional[int] = ..., units: _Optional[int] = ..., step: _Optional[int] = ..., body: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., data: _Optional[bytes] = ..., given: _Optional[_Union[SignedMass, _Mapping]] = ...) -> None: ...

class SignedMass(_message.Message):
    __slots__ = ("statement", "signature", "certificate")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    certificate: bytes
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class PeerStatements(_message.Message):
    __slots__ = ("gave", "had", "took")
    GAVE_FIELD_NUMBER: _ClassVar[int]
    HAD_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    gave: SignedMass
    had: SignedMass
    took: SignedMass
    def __init__(self, gave: _Optional[_Union[SignedMass, _Mapping]] = ..., had: _Optional[_Union[SignedMass, _Mapping]] = ..., took: _Optional[_Union[SignedMass, _Mapping]] = ...) -> None: ...

class MassProof(_message.Message):
    __slots__ = ("before", "refused")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    before: SignedMass
    refused: SignedMass
    def __init__(self, before: _Optional[_Union[SignedMass, _Mapping]] = ..., refused: _Optional[_Union[SignedMass, _Mapping]] = ...) -> None: ...

class PeerWays(_message.Message):
    __slots__ = ("ways",)
    WAYS_FIELD_NUMBER: _ClassVar[int]
    ways: _containers.RepeatedCompositeFieldContainer[PeerWay]
    def __init__(self, ways: _Optional[_Iterable[_Union[PeerWay, _Mapping]]] = ...) -> None: ...

class PeerWay(_message.Message):
    __slots__ = ("to", "bytes_per_s", "round_trip_s")
    TO_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    to: str
    bytes_per_s: float
    round_trip_s: float
    def __init__(self, to: _Optional[str] = ..., bytes_per_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ...) -> None: ...

class PeerOrder(_message.Message):
    __slots__ = ("step", "nodes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    step: int
    nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, step: _Optional[int] = ..., nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchGrant(_message.Message):
    __slots__ = ("sequence", "digest", "offset")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    digest: str
    offset: int
    def __init__(self, sequence: _Optional[int] = ..., digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class BatchAcknowledged(_message.Message):
    __slots__ = ("sequence", "had")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HAD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    had: SignedMass
    def __init__(self, sequence: _Optional[int] = ..., had: _Optional[_Union[SignedMass, _Mapping]] = ...) -> None: ...

class BatchRefused(_message.Message):
    __slots__ = ("sequence", "code", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    code: str
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PeerHasLeft(_message.Message):
    __slots__ = ("applied",)
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    applied: int
    def __init__(self, applied: _Optional[int] = ...) -> None: ...

class HalfAsked(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SignedEviction(_message.Message):
    __slots__ = ("statement", "signature", "certificate")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    certificate: bytes
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class NewestRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NewestReply(_message.Message):
    __slots__ = ("model", "step")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    model: _tensors_pb2.Artifact
    step: int
    def __init__(self, model: _Optional[_Union[_tensors_pb2.Artifact, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class ChunksRequest(_message.Message):
    __slots__ = ("digest", "first", "count", "statement", "signature")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    first: int
    count: int
    statement: bytes
    signature: bytes
    def __init__(self, digest: _Optional[str] = ..., first: _Optional[int] = ..., count: _Optional[int] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class NotifyReply(_message.Message):
    __slots__ = ("is_new",)
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    is_new: bool
    def __init__(self, is_new: _Optional[bool] = ...) -> None: ...

class PeerGoodbye(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PeerBeat(_message.Message):
    __slots__ = ("number", "echo", "echo_age_us")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    ECHO_AGE_US_FIELD_NUMBER: _ClassVar[int]
    number: int
    echo: int
    echo_age_us: int
    def __init__(self, number: _Optional[int] = ..., echo: _Optional[int] = ..., echo_age_us: _Optional[int] = ...) -> None: ...
