"""The one error tree of Covey.

Every error has a stable `code` (kebab-case) that crosses the wire; `covey.wire.errors` maps each code to a gRPC
status. The message given at construction is for the log and for local users; what the other side of the wire may see
of it, in whatever message, is `public_text`.

    CoveyError
      SpecError            a run specification is wrong
      PluginError          a plug-in is unknown, or cannot be loaded
      PolicyError          the node's operator does not allow what a run asks for
        NotNow               ... and may later: it is out of hours, or too few take part
      NoPart               all parts of a run's data are with other nodes
      LayoutError          names, shapes or dtypes differ from what the run expects
      InvalidUpdate        an offered update cannot be one
      Late                 the round does not take this update any more
      NotReady             the run is just being taken up; offer again
      TransferError        a bulk transfer failed
        CorruptChunk         a chunk does not have the announced digest
        Stalled              no byte arrived for too long
        LimitExceeded        more was announced than this side accepts
      IdentityError        certificate, token or signature is not acceptable
      StoreError           the record or its files
        StoreUnavailable     the database cannot be reached now
        Obstructed           this machine cannot do it now: a disk is read-only, too many files are open
          DiskFull           there is no room for a file, or for the record
        NotFound             no such run, round, node, token or file
        Conflict             contradicts what is already recorded
        Fenced               another coordinator holds the lease
      WorkerError          the child program with the tensors
        WorkerDied           it ended before it answered
        WorkerStalled        a job made no step for too long, and it was ended
        TaskError            the task's own code failed
        OutOfMemory          a job needs more memory than there is for it
      RunFailed            a run cannot go on
      LedgerError          an exchange between peers contradicts the account of mass
"""

from __future__ import annotations

from collections.abc import Mapping


class CoveyError(Exception):
    """Root of every error that Covey raises on purpose."""

    code = "internal"


class SpecError(CoveyError):
    """A run specification is wrong; the message names the key, the value and the choices."""

    code = "invalid-spec"


class PluginError(CoveyError):
    """A plug-in is unknown or cannot be loaded."""

    code = "unknown-plugin"


class PolicyError(CoveyError):
    """The node's operator does not allow what a run asks for."""

    code = "declined"


class NotNow(PolicyError):
    """The node's operator does not allow it now; asked again later, the node may do it."""

    code = "not-now"


class NoPart(CoveyError):
    """All parts of a run's data are with other nodes; there is one for this node once one of those is lost."""

    code = "no-part"


class LayoutError(CoveyError):
    """Names, shapes or dtypes differ from what the run expects."""

    code = "layout-mismatch"


class InvalidUpdate(CoveyError):
    """What a node offers as its update cannot be one: wrong parts, sizes, codec or weight."""

    code = "invalid-update"


class Late(CoveyError):
    """The round does not take this node's update any more."""

    code = "late"


class NotReady(CoveyError):
    """The coordinator is just taking up a run; the same offer will be welcome in a moment."""

    code = "not-ready"


class TransferError(CoveyError):
    """A bulk transfer failed."""

    code = "transfer-failed"


class CorruptChunk(TransferError):
    """A chunk does not have the announced digest."""

    code = "corrupt-chunk"


class Stalled(TransferError):
    """No byte arrived for too long."""

    code = "stalled"


class LimitExceeded(TransferError):
    """More was announced than this side accepts."""

    code = "limit-exceeded"


class IdentityError(CoveyError):
    """A certificate, token or signature is not acceptable."""

    code = "identity"


class VersionMismatch(CoveyError):
    """Node and coordinator speak different versions of the messages between them; the text says whom to upgrade."""

    code = "version"


class StoreError(CoveyError):
    """The record of runs, or its files, refused an operation."""

    code = "store"


class StoreUnavailable(StoreError):
    """The database cannot be reached now; trying again later may succeed."""

    code = "store-unavailable"


class Obstructed(StoreError):
    """This machine cannot do it now, and can when somebody has mended that: the message says where, and what to do."""

    code = "obstructed"


class DiskFull(Obstructed):
    """A disk, or this user's share of it, has no room for a file or for the record."""

    code = "disk-full"


class NotFound(StoreError):
    """No such run, round, node, token or file."""

    code = "not-found"


class Conflict(StoreError):
    """Contradicts what is already recorded."""

    code = "conflict"


class Fenced(StoreError):
    """Another coordinator holds the lease on this store."""

    code = "fenced"


class WorkerError(CoveyError):
    """The child program that does everything with tensors reported a failure.

    Attributes:
        traceback: Where it was raised in the child; empty: not known. For the log, never part of the message.
    """

    code = "worker"
    traceback = ""


class WorkerDied(WorkerError):
    """The worker process ended before it answered (killed, or out of memory)."""

    code = "worker-died"


class WorkerStalled(WorkerError):
    """A job made no step for too long; the worker was ended, and the next job gets a new one."""

    code = "worker-stalled"


class TaskError(WorkerError):
    """The task's own code raised; the message carries its text."""

    code = "task-failed"


class OutOfMemory(WorkerError):
    """A job needs more memory than the worker may have, or than there is; the message says what to do."""

    code = "out-of-memory"


class RunFailed(CoveyError):
    """A run cannot go on; the message is its recorded reason."""

    code = "run-failed"


class LedgerError(CoveyError):
    """An exchange between peers contradicts the account of mass; the message names the peer and the batch."""

    code = "ledger"


PUBLIC_TEXTS: Mapping[str, str] = {
    "store-unavailable": "the coordinator's database is away; try again later",
    "obstructed": "a disk of the coordinator cannot be written now; its operator must see to it",
    "disk-full": "the coordinator's disk is full; its operator must make room",
    "fenced": "another coordinator has taken over; try again",
    "store": "the coordinator's record refused this; see its log",
    "worker": "the coordinator's worker failed; see its log",
    "worker-died": "the coordinator's worker died; try again",
    "internal": "internal error; see the coordinator's log",
}
"""By code, what is said to others instead of an error's message, which has this machine's paths or the insides of its
record in it. An error of another code is the other side's own doing, and its message says what."""


def public_text(error: CoveyError) -> str:
    """What a node, or an admin elsewhere, may see of an error of this machine."""
    return PUBLIC_TEXTS.get(error.code) or str(error)


def by_code() -> dict[str, type[CoveyError]]:
    """Every error class of the tree by its code."""
    kinds: dict[str, type[CoveyError]] = {}
    todo: list[type[CoveyError]] = [CoveyError]
    while todo:
        cls = todo.pop()
        kinds.setdefault(cls.code, cls)
        todo.extend(cls.__subclasses__())
    return kinds
