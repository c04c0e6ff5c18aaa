"""A federation as one object: what its record holds, and what its coordinator is asked to do."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from covey.client.audit.bundle import write_bundle
from covey.client.audit.verify import AuditReport, examine, examine_record
from covey.client.export import OnBytes, models_elsewhere, require_model, write_version
from covey.client.models.checking import CheckedRun, checked
from covey.client.models.initial import submitted
from covey.client.reading import paging, site_log
from covey.client.reading.access import Access
from covey.client.reading.names import RunName, VersionName, run_id, version_number
from covey.client.reading.run_log import log_of
from covey.client.reading.shares import capped_shares
from covey.client.reading.translation import audited_of, node_detail_of, signed_of, value_of, values_of, version_of
from covey.client.specification import Specification
from covey.client.studies.study_calls import Studies
from covey.client.target import Target
from covey.client.values import (
    Admin,
    Backup,
    Change,
    Contribution,
    Deleted,
    Event,
    LogLine,
    Node,
    NodeDetail,
    Round,
    RoundDetail,
    Run,
    Status,
    Token,
    TokenInfo,
    Version,
)
from covey.client.watch import OnLost, changes_over, follow
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb

if TYPE_CHECKING:
    from covey.client.reading.gossip_parts import GossipView
    from covey.client.reading.gossip_steps import GossipStep
    from covey.client.replay import ReplayReport
    from covey.wire.identities.identity import Identity

STOP_DEADLINE_S = 20.0
"""The coordinator answers when the run has ended, after ten seconds at the latest."""
BACKUP_DEADLINE_S, DELETE_DEADLINE_S = 3600.0, 600.0


def connect(
    data_dir: str | Path | None = None, *, server: str | None = None, identity: str | Path | None = None
) -> Connection:
    """Reach a federation; close it, or use it as a context manager.

    Args:
        data_dir: The coordinator's data directory, on its own machine. What only reads works there too while no
            coordinator is running.
        server: Else its address, `host:port`.
        identity: With `server`: a folder with the caller's key and certificate.

    Raises:
        ValueError: Neither a data directory nor an address with an identity is given, or both are.
    """
    if data_dir is not None and (server is not None or identity is not None):
        raise ValueError("data_dir says which coordinator, and so do server and identity: give one of the two")
    if server is not None and identity is not None:
        return Connection(Target(None, server, Path(identity).expanduser()))
    if data_dir is None:
        raise ValueError("name the coordinator's data_dir, or server and identity together")
    return Connection(Target(Path(data_dir).expanduser()))


class Connection:
    """A federation. Calls block; they raise the `CoveyError` that says what is wrong and what to do.

    What only reads goes through the running coordinator, or else to the SQLite database in the data directory. The
    rest raises `Unreachable` where no coordinator is running. One thread at a time may use it.
    """

    def __init__(self, target: Target) -> None:
        self.target, self._access = target, (access := Access(target))
        self._loop, self._call, self._reading = access.loop, access.call, access.record
        self.studies = Studies(access.call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and end its thread; iterators that it gave end with it."""
        self._access.close()

    @property
    def identity(self) -> Identity:
        """Whose keys are trusted: the caller's, or of a data directory that is read, the coordinator's."""
        return self._reading().identity

    # -- runs

    def submit(self, spec: Specification) -> Run:
        """Check a specification (a TOML file's path, its text, a mapping), here and at the coordinator; queue the run.

        Raises `SpecError` where it is wrong: the message names key, value and choices.
        """
        return value_of(Run, submitted(self._access, spec))

    def check(self, spec: Specification) -> CheckedRun:
        """What submitting a specification would come to. Nothing is recorded. Raises as `submit`."""
        return checked(self._access, spec)

    def runs(self, limit: int = 100, *, before: str = "") -> list[Run]:
        """The newest runs, the newest first; `before`: only those submitted before this one (its id)."""
        return list(self._loop.iterate(paging.runs(self._reading(), before, limit)))

    def every_run(self, *, before: str = "") -> Iterator[Run]:
        """Every run (submitted before one, by its id), the newest first, read as they are taken."""
        return self._loop.iterate(paging.runs(self._reading(), before))

    def run(self, run: RunName) -> Run:
        """A run as it is now."""
        return value_of(Run, self._loop.run(self._reading().run(run_id(run))))

    def watch(self, run: RunName, *, on_lost: OnLost | None = None) -> Iterator[Change]:
        """Follow a run until it has ended, across restarts of the coordinator.

        Args:
            run: The run.
            on_lost: Called with the reason each time that the coordinator is gone; it is then tried again.

        Yields:
            What changed. At first the newest 1,000 rounds and those still open, in as many steps as that takes.

        Raises:
            Unreachable: The coordinator does not answer: at first, or for two minutes.
        """
        return follow(lambda: self._changes(run_id(run)), on_lost)

    def _changes(self, run: str) -> Iterator[Change]:
        """A run's changes over a channel of its own."""
        return self._loop.iterate(changes_over(self._access.channel_of_its_own(), run))

    def run_log(self, run: RunName, *, rounds: int | None = 100) -> list[LogLine]:
        """What happened to a run, by time: its events, newest `rounds` (None: all), and answers that did not count."""
        shown = self.run(run)
        newest = self.rounds(shown) if rounds is None else self.rounds(shown, limit=rounds, newest=True)
        return log_of(self.events(run=shown, limit=None), newest, lambda number: self.round(shown, number))

    def site_log(self, run: RunName, node: str, *, after: int = 0) -> site_log.SiteLog:
        """What a node shares of its log about a run: the lines after a number."""
        return self._loop.run(site_log.read(self._reading(), run_id(run), node, after))

    def delete(self, run: RunName) -> Deleted:
        """Delete a run that has ended, for ever: its record, model and update files, and its event log.

        Raises:
            Conflict: It has not ended; stop it first.
        """
        return value_of(Deleted, self._call("DeleteRun", pb.RunRequest(run=run_id(run)), DELETE_DEADLINE_S))

    def stop(self, run: RunName) -> Run:
        """Stop a run; its committed versions stay."""
        return value_of(Run, self._call("StopRun", pb.RunRequest(run=run_id(run)), STOP_DEADLINE_S))

    # -- rounds and versions

    def rounds(self, run: RunName, *, after: int = 0, limit: int | None = None, newest: bool = False) -> list[Round]:
        """A run's rounds in order.

        Args:
            run: The run.
            after: Only rounds after this number.
            limit: At most so many: the first ones.
            newest: With `limit`: the last ones instead.
        """
        if newest and limit is not None:
            return list(self._loop.iterate(paging.newest_rounds(self._reading(), run_id(run), after, limit)))
        return list(self._loop.iterate(paging.rounds(self._reading(), run_id(run), after, limit)))

    def every_round(self, run: RunName, *, after: int = 0) -> Iterator[Round]:
        """A run's rounds in order, read as they are taken."""
        return self._loop.iterate(paging.rounds(self._reading(), run_id(run), after))

    def round(self, run: RunName, number: int) -> RoundDetail:
        """One round: who sent what, whether it was accepted, why not, and the version it made."""
        detail = self._loop.run(paging.round_detail(self._reading(), run_id(run), number))
        return replace(detail, capped=capped_shares(detail, self.run(run).spec))

    def contributions(self, run: RunName) -> list[Contribution]:
        """What each node of a run's roster did in it: how often it was asked, and what came of it."""
        return list(self.every_contribution(run))

    def every_contribution(self, run: RunName, *, after: str = "") -> Iterator[Contribution]:
        """As `contributions`, after one of the nodes (its name), each page read when it is needed."""
        return self._loop.iterate(paging.contributions(self._reading(), run_id(run), after))

    def gossip(self, run: RunName) -> GossipView:
        """What the nodes of a gossip run stated of their parts, and what their accounts come to."""
        from covey.client.reading.gossip_parts import view_of

        return view_of(self._loop.iterate(paging.gossip_parts(self._reading(), run_id(run))), self.run(run).spec)

    def gossip_steps(self, run: RunName) -> list[GossipStep]:
        """Every step that a node of a gossip run stated, by node and number; none of runs of other modes."""
        from covey.client.reading.gossip_steps import steps_of

        return steps_of(audited_of(self._loop.iterate(self._reading().signed(run_id(run)))))

    def code_of(self, run: RunName, nodes: Collection[str] | None = None) -> dict[str, str]:
        """The digest of the task's code that each node of the run's newest round ran, by node, as it signed it.

        With `nodes`: of these only; no more of the round's updates are read than lie between them.
        """
        newest = self.rounds(run, limit=1, newest=True)
        if not newest or (nodes is not None and not nodes):
            return {}
        updates = self._loop.iterate(paging.updates(self._reading(), run_id(run), newest[0].round, nodes))
        return {row.node: row.code for row in updates if row.code and (nodes is None or row.node in nodes)}

    def version(self, run: RunName, version: VersionName = "newest") -> Version:
        """A version by its number, the newest, or the best by the run's metric.

        Raises:
            NotFound: There is none.
        """
        return version_of(self._loop.run(self._reading().version(run_id(run), version_number(version))))

    def export(
        self,
        run: RunName,
        to: str | Path,
        *,
        version: VersionName = "newest",
        node: str = "",
        on_progress: OnBytes | None = None,
    ) -> Version:
        """Write a version as a safetensors file: checked chunk by chunk, in its place when all of it is there.

        Args:
            run: The run.
            to: The file.
            version: Which one.
            node: In a run without a global model: whose own model, as the method's nodes send it (raw values).
            on_progress: Called with how many bytes are there, of how many.

        Raises:
            NotFound: There is no such version, or no global model (the message names the nodes whose own there are),
                its file is not kept any more, or the folder does not exist.
            CorruptChunk: What came is not what was announced.
        """
        shown = self.run(run)
        if not shown.is_coordinated:
            raise NotFound(models_elsewhere(shown.run))
        chosen = version_of(self._loop.run(self._reading().version(run_id(run), version_number(version), node)))
        require_model(chosen, node)
        chunks = self._loop.iterate(self._reading().chunks(run_id(run), chosen.version, node))
        write_version(chosen, chunks, Path(to), on_progress)
        return chosen

    # -- checking

    def audit(self, run: RunName, receipts: Iterable[bytes] = ()) -> AuditReport:
        """Compare everything that is shown of a run with what was signed of it, by the keys that `identity` trusts.

        Args:
            run: The run.
            receipts: Lines of nodes' `receipts/RUN.jsonl`: what they were given for updates that must be on record.

        Raises:
            CoveyError: It cannot be read. What is wrong with it is in the report.
        """
        identity = self.identity
        audited = audited_of(self._loop.iterate(self._reading().signed(run_id(run))))
        if audited.rows or audited.coordinator_key == b"":
            return examine_record(audited, identity.federation, identity.coordinator_key, receipts)
        return self._audit_statements(self.run(run))

    def _audit_statements(self, run: Run) -> AuditReport:
        """Of a coordinator that gives no rows."""
        signed = signed_of(self._loop.iterate(self._reading().signed(run.run)))
        try:
            first_sha256 = self.version(run, 0).model_sha256
        except NotFound:
            first_sha256 = ""
        return examine(signed, run, self.identity.federation, self.identity.coordinator_key, first_sha256)

    def bundle(self, run: RunName, to: Path | str) -> int:
        """Write everything that an audit of a run needs into one file; how many rows it has.

        Raises:
            NotFound: There is no such run, or the folder does not exist.
            Conflict: The file exists.
        """
        replies = self._loop.iterate(self._reading().signed(run_id(run)))
        return write_bundle(Path(to), audited_of(replies), self.identity.federation)

    def replay(
        self,
        run: RunName,
        *,
        store_url: str | None = None,
        allow_path: bool = False,
        data_paths: Mapping[str, str] | None = None,
    ) -> ReplayReport:
        """Make every round, or decision, of a run again from its stored updates; needs the data directory.

        Raises:
            NotFound: The data directory is not known here, or files of updates are not kept any more.
            SpecError: The run's mode is not known here.
        """
        from covey.client.replay import replay_run

        if self.target.data_dir is None:
            raise NotFound("a run is replayed from its files: connect with the coordinator's data_dir")
        return replay_run(
            self.target.data_dir, run_id(run), store_url=store_url, allow_path=allow_path, data_paths=data_paths
        )

    # -- nodes

    def nodes(self, limit: int | None = None, *, after: str = "") -> list[Node]:
        """Nodes by name: at most `limit`, after one of them (its name)."""
        return list(self.every_node(limit, after=after))

    def every_node(self, limit: int | None = None, *, after: str = "") -> Iterator[Node]:
        """Nodes by name, at most `limit`, after one of them: each page is read when it is needed."""
        return self._loop.iterate(paging.nodes(self._reading(), after, limit))

    def node(self, node: str) -> NodeDetail:
        """One node, and the newest of what happened to it."""
        return node_detail_of(self._loop.run(self._reading().node(node)))

    def events(self, *, run: RunName = "", node: str = "", limit: int | None = 100) -> list[Event]:
        """The newest events, the newest first, optionally of one run or node; `limit` None: all."""
        of = self.run(run).run if run else ""
        return list(self._loop.iterate(paging.events(self._reading(), of, node, limit)))

    def token(self, node: str = "", *, role: str = "node", expires_s: float = 3600.0, uses: int = 1) -> Token:
        """A join token; without a name, for a random one. `role`: `node`, `admin` or `auditor`.

        With several `uses` it enrols as many nodes, which are named NODE-1, NODE-2, ... (by default node-1, ...).
        """
        request = pb.CreateTokenRequest(node=node, role=role, expires_s=expires_s, uses=uses)
        return value_of(Token, self._call("CreateToken", request))

    def tokens(self) -> list[TokenInfo]:
        """Join tokens, the newest first, without their secrets."""
        tokens, skip = list[TokenInfo](), -1
        while skip:
            reply: pb.ListTokensReply = self._call("ListTokens", pb.ListTokensRequest(skip=max(0, skip)))
            tokens += values_of(TokenInfo, reply.tokens)
            skip = reply.next
        return tokens

    def revoke_token(self, token: str) -> list[TokenInfo]:
        """Let tokens be redeemed no more: by an id (8 characters will do), or by the name that they are for.

        Raises `NotFound` where no such token has uses left. What was enrolled stays.
        """
        return list(values_of(TokenInfo, self._call("RevokeToken", pb.RevokeTokenRequest(token=token)).tokens))

    def admins(self) -> list[Admin]:
        """Admins and auditors, by name."""
        return list(self._loop.iterate(paging.admins(self._reading())))

    def evict(self, node: str, *, study: str = "") -> Node:
        """Shut a node out, of the federation or of one study, at once and for good."""
        return value_of(Node, self._call("EvictNode", pb.NodeRequest(node=node, study=study)))

    # -- the coordinator

    def status(self) -> Status:
        """What the coordinator does now."""
        return value_of(Status, self._call("Status", pb.StatusRequest()))

    def pause(self) -> Status:
        """Open no new round until `resume`; also after a restart."""
        return value_of(Status, self._call("Pause", pb.PauseRequest(paused=True)))

    def resume(self) -> Status:
        """Go on after `pause`."""
        return value_of(Status, self._call("Pause", pb.PauseRequest(paused=False)))

    def drain(self) -> Status:
        """Stop the coordinator once the round in progress is committed; its next start goes on from there."""
        return value_of(Status, self._call("Drain", pb.DrainRequest()))

    def backup(self, folder: str | Path) -> Backup:
        """Write a consistent copy of record, model files and keys into a new folder on the coordinator's machine."""
        request = pb.BackupRequest(folder=os.path.abspath(folder))
        return value_of(Backup, self._call("Backup", request, BACKUP_DEADLINE_S))
