"""The contract of the store: what is recorded, and what every back end promises.

All methods are synchronous, atomic (one transaction each) and safe to call from any thread; the daemon calls
them from one worker thread. What a method returned without an error survives `kill -9` and a power cut. Times
are Unix seconds.

Every method may raise `StoreUnavailable` (the database is away: try again later) and, if it writes, `Fenced`
(another coordinator took the lease: this one must stop). A call that raised has changed nothing, with one
exception: where the connection broke during the commit itself, it may have happened. The methods that bring a
run forward may therefore be called again with the same arguments.
"""

from __future__ import annotations

from covey.storage.record.events import Events
from covey.storage.record.gossip import Gossip
from covey.storage.record.identities import Identities
from covey.storage.record.life import Life
from covey.storage.record.records import (
    ContributionRecord,
    EventRecord,
    GossipMemberRecord,
    GossipStatementRecord,
    Json,
    NodeRecord,
    PartRecord,
    RedemptionRecord,
    Role,
    RoundRecord,
    RoundState,
    RunRecord,
    RunState,
    RunSummary,
    SignedUpdateRecord,
    StepRecord,
    TokenRecord,
    UpdateRecord,
    Verdict,
    VersionRecord,
    step_verdict,
)
from covey.storage.record.retention import Retention
from covey.storage.record.rounds import Rounds
from covey.storage.record.runs import Runs
from covey.storage.record.seals import Seals
from covey.storage.record.steps import Steps
from covey.storage.record.updates import Updates
from covey.storage.record.versions import Versions

__all__ = [
    "ContributionRecord",
    "EventRecord",
    "GossipMemberRecord",
    "GossipStatementRecord",
    "Json",
    "NodeRecord",
    "PartRecord",
    "RedemptionRecord",
    "Role",
    "RoundRecord",
    "RoundState",
    "RunRecord",
    "RunState",
    "RunSummary",
    "SignedUpdateRecord",
    "StepRecord",
    "Store",
    "TokenRecord",
    "UpdateRecord",
    "Verdict",
    "VersionRecord",
    "step_verdict",
]


class Store(Life, Runs, Rounds, Updates, Steps, Versions, Retention, Identities, Events, Seals, Gossip):
    """The record of nodes, tokens, runs, rounds, updates, steps, versions, events, seals and gossip."""
