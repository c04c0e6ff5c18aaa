"""A run as a timeline: every exchange and all work that the records have, in a file that viewers can read."""

import functools
import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from covey.cli.main import covey
from covey.client.gossip_timeline import History, read_timeline, timeline_of
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.node.gossip.diary import Diary
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import Base, ExchangeRow, SpanRow, StepRow
from covey.testing.traces import check_trace
from tests.unit.node.gossip.nodes import Unit, has_come_to, spec_of

pytestmark = pytest.mark.timeout(60)
A, B = Incarnation("a"), Incarnation("b", 2)
STEPS = 8


async def test_a_run_through_a_bad_wire_with_a_restart_is_there_from_end_to_end(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(3, STEPS), "abc")
    for name in unit.names:
        unit.start(name, 0.2)
    await unit.until("b", functools.partial(has_come_to, 3))
    await unit.stop("b")
    unit.start("b", 0.2)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    out = tmp_path / "trace.json"
    folders = [str(tmp_path / name) for name in unit.names]
    done = CliRunner().invoke(covey, ["gossip", "trace", *folders, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(covey, ["gossip", "trace", *folders, "--out", str(tmp_path / "none" / "x.json")])
    assert refused.exit_code == 1
    assert "cannot write" in refused.output
    content = json.loads(out.read_text())
    slices = check_trace(content)
    # every batch that a record has is a slice, and each went from one to another
    batches = Counter()
    for name in unit.names:
        engine = open_record(tmp_path / name / "gossip" / "unit" / "1")
        given = rows_of(engine, ExchangeRow)
        batches.update((name, "to" if row["way"] == "out" else "from", row["peer"], row["sequence"]) for row in given)
        steps = [row["step"] for row in rows_of(engine, StepRow)]
        engine.dispose()
        assert steps == list(range(STEPS + 1))
    names = {event["pid"]: event["args"]["name"] for event in content["traceEvents"] if event["name"] == "process_name"}
    exchanges = [event for event in slices if event["cat"] == "exchange"]
    shown = Counter()
    for event in exchanges:
        _, sequence, way, peer = event["name"].split()
        shown[names[event["pid"]], way, peer, int(sequence)] += 1
        if " to " in event["name"]:
            assert event["args"]["outcome"] == ""
    assert shown == batches
    assert max(shown.values()) == 1
    assert max(event["args"]["tries"] for event in exchanges) > 1  # the wire drops a fifth
    whole = len([event for event in exchanges if " to " in event["name"]])
    assert len([event for event in content["traceEvents"] if event["ph"] == "s"]) == whole
    assert json.loads(done.stdout) | {"began": 0} == {
        "file": str(out),
        "run": "unit",
        "nodes": unit.names,
        "exchanges": whole,
        "began": 0,
    }
    # and so is all that each node did itself
    for pid, name in names.items():
        work = {event["name"] for event in slices if event["pid"] == pid and event["cat"] == "work"}
        missing = {f"{kind} {step}" for kind in ("train", "apply", "publish") for step in range(STEPS)} - work
        # of a publication in which the node was stopped nobody saw the end
        assert {word.split()[0] for word in missing} <= ({"publish"} if name == "b" else set())
        assert len(missing) <= 1
        assert any(word.startswith("mix") for word in work)
        starts = [event for event in content["traceEvents"] if event["pid"] == pid and event["name"] == "started"]
        assert len(starts) == (2 if name == "b" else 1)
    # a record of before there were spans has its exchanges
    engine = open_record(tmp_path / "a" / "gossip" / "unit" / "1")
    Base.metadata.tables[SpanRow.__tablename__].drop(engine)
    engine.dispose()
    alone = read_timeline([tmp_path / "a"])
    assert alone.exchanges == sum(key[0] == "a" for key in batches)
    assert {event["cat"] for event in check_trace(alone.to_json())} == {"exchange"}


def row(way: str, peer: Incarnation, at: float) -> dict[str, object]:
    who = {"way": way, "peer": peer.node, "incarnation": peer.number, "sequence": 1}
    return {**who, "units": str(ONE // 4), "step": 0, "size_bytes": 32, "at": at}


def span(number: int, kind: str, began: float, ended: float) -> dict[str, object]:
    nobody = {"peer": "", "incarnation": 0, "sequence": 0, "tries": 0, "outcome": ""}
    return {"id": number, "kind": kind, "step": 0, "began": began, "ended": ended, **nobody}


def test_what_a_killed_node_left_out_is_there_all_the_same() -> None:
    a = History("run", A, [], [row("out", B, 10.0)], [])
    b = History("run", B, [], [row("in", A, 10.5)], [])
    timeline = timeline_of([b, a])
    given, had = check_trace(timeline.to_json())
    assert [given["name"], had["name"]] == ["batch 1 to b (incarnation 2)", "batch 1 from a"]
    assert (given["ts"], given["dur"], had["ts"], had["dur"]) == (0, 500_000, 500_000, 1)
    assert given["args"]["mass"] == 0.25
    assert (given["args"]["outcome"], had["args"]["outcome"]) == ("", "how long it took is not on record here")
    (alone,) = check_trace(timeline_of([a]).to_json())
    assert (alone["dur"], alone["args"]["outcome"]) == (1, "how long it took is not on record here")
    assert (timeline.exchanges, timeline.trace.began) == (1, 10.0)


def test_pauses_are_waits_but_not_those_in_which_the_node_did_not_run() -> None:
    spans = [span(1, "started", 1, 1), span(2, "train", 2, 3), span(3, "mix", 3.5, 4)]
    spans += [span(4, "started", 90, 90), span(5, "mix", 90.0001, 91)]
    slices = check_trace(timeline_of([History("run", A, [], [], spans)]).to_json())
    waits = [(event["ts"], event["dur"], event["args"]["before"]) for event in slices if event["cat"] == "wait"]
    assert waits == [(0, 1_000_000, "train 0"), (2_000_000, 500_000, "mix 0")]


def test_a_run_of_no_records_is_a_valid_file() -> None:
    assert check_trace(timeline_of([]).to_json()) == []


def test_a_batch_is_noted_once_however_often_it_is_sent() -> None:
    diary = Diary(lambda: 7)
    for _ in range(3):
        diary.sending(B, 1, 4)
        diary.not_sent(B, 1, "nobody is there")
    with diary.taking(B, 2, 5):
        pass
    with diary.taking(B, 2, 5):
        pass
    with pytest.raises(ValueError, match="refused"), diary.taking(B, 3, 5):
        raise ValueError("refused")
    started, taken = diary.taken_out()
    assert (started.kind, taken.kind, taken.sequence, taken.step) == ("started", "take", 2, 5)
    diary.sending(B, 1, 4)
    diary.sent(B, 1)
    diary.sending(A, 1, 6)
    with diary.work("train"):
        pass
    diary.sent(B, 1)  # once by the answer, once by what the peer says of itself
    diary.not_sent(B, 1, "too late to count")
    diary.sending(B, 1, 4)  # begun before that was known
    sent, trained, under_way = diary.taken_out(all_of_it=True)
    assert (sent.kind, sent.step, sent.tries, sent.outcome) == ("send", 4, 4, "")
    assert (trained.kind, trained.step) == ("train", 7)
    assert trained.ended >= trained.began
    assert (under_way.peer, under_way.outcome) == (A, "not acknowledged when this node stopped")
    assert diary.taken_out(all_of_it=True) == []
