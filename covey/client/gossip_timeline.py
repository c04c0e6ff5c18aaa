"""A gossip run as a timeline, by the records of its nodes: training, mixing, waiting, and each batch on its way.

A node is a process of the trace: a row for its own work, and one for each peer and direction. Every batch that a record
has is there, also where nothing says how long it took, because its node was killed: then it has no length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from covey.client.trace_events import Row, Slice, Trace
from covey.errors import LedgerError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import weight
from covey.node.gossip.folders import incarnations, newest
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import require_facts, rows_of
from covey.node.gossip.record.schema import ExchangeRow, SpanRow, StepRow

Record = Mapping[str, Any]
UNKNOWN = "how long it took is not on record here"
LEAST_WAIT_S = 1e-3
"""A shorter pause between two pieces of work is not shown."""
Batch = tuple[Incarnation, Incarnation, int]
"""From whom, to whom, and its number on the edge."""


@dataclass(frozen=True)
class History:
    """What one incarnation's record says of its past: rows of its tables, in order."""

    run: str
    me: Incarnation
    steps: Sequence[Record]
    exchanges: Sequence[Record]
    spans: Sequence[Record]


@dataclass(frozen=True)
class Timeline:
    """A run's trace.

    Attributes:
        run: Its name.
        nodes: Whose records it is made of.
        exchanges: How many batches were given or had; one that two records have counts once.
        trace: The events.
    """

    run: str
    nodes: Sequence[Incarnation]
    exchanges: int
    trace: Trace

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return self.trace.to_json({"run": self.run})


def read_timeline(data_dirs: Sequence[Path], run: str | None = None) -> Timeline:
    """The timeline of a run, by the records in the data directories of its nodes; the nodes may run meanwhile.

    Args:
        data_dirs: Of all nodes, or of some.
        run: The run's name; None: the only one that there is.

    Raises:
        NotFound: There is no such run, or it is not said which.
        LedgerError: The records are of several runs.
        StoreError: A record cannot be read.
    """
    histories = [history for folder in data_dirs for history in _histories(newest(folder, run).parent)]
    runs = sorted({history.run for history in histories})
    if len(runs) > 1:
        raise LedgerError(f"these records are of several runs: {', '.join(runs)}; say which one with --run NAME")
    return timeline_of(histories)


def _histories(folder: Path) -> Iterator[History]:
    for number in incarnations(folder):
        engine = open_record(folder / str(number))
        try:
            facts = require_facts(engine)
            steps, exchanges, spans = (rows_of(engine, table) for table in (StepRow, ExchangeRow, SpanRow))
            yield History(facts.name, facts.me, steps, exchanges, spans)
        finally:
            engine.dispose()


def timeline_of(histories: Sequence[History]) -> Timeline:
    """The timeline of what records say."""
    trace = Trace()
    sent: dict[Batch, Slice] = {}
    taken: dict[Batch, Slice] = {}
    for history in sorted(histories, key=lambda history: history.me):
        pid = trace.process(str(history.me))
        _add_steps(trace, pid, history)
        _add_work(trace, trace.row(pid, "work"), history.spans)
        for batch, piece in _exchanges(trace, pid, history):
            (sent if batch[0] == history.me else taken)[batch] = piece
    for batch in sorted(sent.keys() & taken.keys()):
        sent[batch] = _delivered(sent[batch], taken[batch])
        trace.arrow(sent[batch], taken[batch])
    for piece in (*sent.values(), *taken.values()):
        trace.add(piece)
    nodes = sorted(history.me for history in histories)
    return Timeline(histories[0].run if histories else "", nodes, len(sent.keys() | taken.keys()), trace)


def _add_steps(trace: Trace, pid: int, history: History) -> None:
    """When each step was on record, and the mass then."""
    row = trace.row(pid, "record")
    for step in history.steps:
        mass = {name: weight(int(step[name])) for name in ("live", "in_flight", "lost")}
        name = {"model_sha256": step["model_sha256"]} if step["model_sha256"] else {}
        trace.instant(row, f"step {step['step']}", step["at"], {**mass, **name})
        trace.counter(pid, "mass", step["at"], mass["live"])


def _add_work(trace: Trace, row: Row, spans: Sequence[Record]) -> None:
    """What the node did itself, and the pauses between: then it waited. Where it did not run, it did not wait."""
    until: float | None = None
    for span in sorted((span for span in spans if not span["peer"]), key=lambda span: (span["began"], span["id"])):
        if span["kind"] == "started":
            trace.instant(row, "started", span["began"], {})
            until = span["began"]
            continue
        if until is not None and span["began"] - until >= LEAST_WAIT_S:
            trace.add(Slice(row, "wait", "wait", until, span["began"], {"before": f"{span['kind']} {span['step']}"}))
        name = f"{span['kind']} {span['step']}"
        trace.add(Slice(row, name, "work", span["began"], span["ended"], {"step": span["step"]}))
        until = max(until or 0.0, span["ended"])


def _exchanges(trace: Trace, pid: int, history: History) -> Iterator[tuple[Batch, Slice]]:
    """Each batch that the record has, with a row for each peer and direction."""
    spans: dict[tuple[str, Incarnation, int], list[Record]] = {}
    for span in history.spans:
        if span["peer"]:
            key = span["kind"], Incarnation(span["peer"], span["incarnation"]), span["sequence"]
            spans.setdefault(key, []).append(span)
    rows: dict[tuple[str, Incarnation], Row] = {}
    for exchange in history.exchanges:
        peer, sequence = Incarnation(exchange["peer"], exchange["incarnation"]), exchange["sequence"]
        kind, word = ("send", "to") if exchange["way"] == "out" else ("take", "from")
        if (word, peer) not in rows:
            rows[word, peer] = trace.row(pid, f"{word} {peer}")
        batch = (history.me, peer, sequence) if word == "to" else (peer, history.me, sequence)
        name = f"batch {sequence} {word} {peer}"
        yield batch, _exchange(rows[word, peer], name, exchange, spans.get((kind, peer, sequence), []))


def _exchange(row: Row, name: str, exchange: Record, spans: Sequence[Record]) -> Slice:
    """A batch; several spans: it was sent again after a restart."""
    args = {
        "step": exchange["step"],
        "mass": weight(int(exchange["units"])),
        "size_bytes": exchange["size_bytes"],
        "tries": sum(span["tries"] for span in spans),
        "outcome": spans[-1]["outcome"] if spans else UNKNOWN,
    }
    began = min((span["began"] for span in spans), default=exchange["at"])
    return Slice(row, name, "exchange", began, max((span["ended"] for span in spans), default=began), args)


def _delivered(sent: Slice, taken: Slice) -> Slice:
    """A batch that its receiver has on record, whatever its sender, which was stopped, knew of that."""
    if not sent.args["outcome"]:
        return sent
    return replace(sent, ended=max(sent.ended, taken.ended), args={**sent.args, "outcome": ""})
