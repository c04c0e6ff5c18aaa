"""Where a node keeps a gossip run: DATA_DIR/gossip/RUN/INCARNATION has the record and the files of one incarnation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from covey.errors import Conflict, NotFound, SpecError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.protocols.runs import protocol_of
from covey.node.gossip.record.database import FILE, create_record, open_record
from covey.node.gossip.record.reader import RunFacts, read_facts, write_facts
from covey.spec import GossipSpec, parse_json

FOLDER = "gossip"
LEAVE = "leave"
"""A file of this name in an incarnation's folder asks the node to leave in order."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Residence:
    """One incarnation's folder, its open record, and what that says of the run."""

    folder: Path
    engine: Engine
    facts: RunFacts


def run_folder(data_dir: Path, run: str) -> Path:
    """Where a run is kept. Raises SpecError if its name cannot be a folder's."""
    if not _NAME.fullmatch(run):
        raise SpecError(f"name: {run[:64]!r} cannot name a folder; use letters, digits, and . _ - after the first")
    return data_dir / FOLDER / run


def incarnations(folder: Path) -> list[int]:
    """Those that a run's folder has a record of, ascending."""
    return sorted(int(path.parent.name) for path in folder.glob(f"*/{FILE}") if path.parent.name.isdecimal())


def newest(data_dir: Path, run: str | None) -> Path:
    """The folder of a run's newest incarnation.

    Args:
        data_dir: The node's.
        run: Its name; None: the only one that there is.

    Raises:
        NotFound: There is none, or there are several; the message has those that there are.
    """
    runs = sorted(path.name for path in (data_dir / FOLDER).glob("*") if incarnations(path))
    if not runs:
        text = f"{data_dir} has no gossip run: this is no node's folder, or the node has not begun yet"
        raise NotFound(f"{text} (covey gossip start; through a coordinator: covey run submit)")
    if run is None and len(runs) > 1:
        raise NotFound(f"{data_dir} has the gossip runs {', '.join(runs)}; say which one with --run NAME")
    folder = run_folder(data_dir, run or runs[0])
    numbers = incarnations(folder)
    if not numbers:
        raise NotFound(f"{data_dir} has no gossip run {run!r}, but {', '.join(runs)}")
    return folder / str(numbers[-1])


def ask_to_leave(data_dir: Path, run: str | None = None) -> None:
    """Ask a node to hand all its mass over and leave; a running node sees it within a second or two."""
    (newest(data_dir, run) / LEAVE).touch()


def take_back_leave(data_dir: Path, run: str | None = None) -> None:
    """Take that back, where the node has not seen it. Raises NotFound if nobody asked."""
    try:
        (newest(data_dir, run) / LEAVE).unlink()
    except FileNotFoundError:
        raise NotFound(f"nobody asked the node in {data_dir} to leave") from None


def reside(
    data_dir: Path, spec: GossipSpec, node: str, peers: Iterable[str], *, run: str = "", rejoins: bool
) -> Residence:
    """Open the record of this node's part in a run; a new one where there is none.

    Args:
        data_dir: The node's.
        spec: The run.
        node: This node.
        peers: All nodes with which the run began. One that is not among them came late: it takes part from its second
            incarnation on, as if an earlier one had been evicted.
        run: What the run is called here; empty: as its specification says.
        rejoins: Whether an incarnation that is over for good is followed by a new one.

    Raises:
        Conflict: The record is of another specification, or its incarnation is over.
        StoreError: It cannot be opened.
    """
    name = run or spec.name
    folder = run_folder(data_dir, name)
    numbers = incarnations(folder)
    founders = tuple(map(Incarnation, sorted(peers)))
    is_late = Incarnation(node) not in founders
    number, text = numbers[-1] if numbers else 1 + is_late, spec.to_json()
    if numbers:
        residence = _opened(folder / str(number))
        if parse_json(residence.facts.spec) != spec:  # an older version wrote it without keys that are new
            raise Conflict(f"run {name!r} is on record here with another specification: give this one another name")
        if residence.facts.ended not in ("evicted", "retired"):
            return residence
        residence.engine.dispose()
        if not rejoins:
            raise Conflict(_over(residence.facts))
        number, text = number + 1, residence.facts.spec  # which peers have
    me = Incarnation(node, number)
    others = tuple(peer for peer in founders if peer.node != node)
    minted = ONE if number == 1 else joins_with(spec)
    facts = RunFacts(name, text, me, others if is_late else tuple(sorted((*others, me))), minted)
    create_record(folder / str(number), lambda engine: write_facts(engine, facts))
    return _opened(folder / str(number))


def joins_with(spec: GossipSpec) -> int:
    """The units that a node begins with whose earlier incarnation was evicted; where the receiver weighs, as all do."""
    protocol = protocol_of(spec.gossip, allow_path=True)  # the operator was asked before
    joins = spec.gossip.join or protocol.joins
    return ONE if joins == "mint" or protocol.weighs == "receiver" else 0


def _opened(folder: Path) -> Residence:
    engine = open_record(folder)
    facts = read_facts(engine)
    if facts is None:
        raise NotFound(f"the record in {folder} is empty: it was not finished when it was made; remove the folder")
    return Residence(folder, engine, facts)


def _over(facts: RunFacts) -> str:
    after = "once an admin has evicted it (covey ca evict), " if facts.ended == "retired" else ""
    why = f" ({facts.reason})" if facts.reason else ""
    return f"{facts.me} is {facts.ended}{why}; {after}start again with --rejoin to take part as a new incarnation"
