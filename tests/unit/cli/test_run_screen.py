"""The screen of a run at 80 columns without colours, frame by frame (`frames/`); nothing in it can steer a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from covey.cli.views.run_screen import ASCII_BLOCKS, Seen, bar, frame, sparkline
from covey.client.progress.history import History
from covey.client.progress.nodes import RunNodes
from covey.client.reading.gossip_parts import GossipPart, GossipView
from covey.client.values import Contribution, Node, NodeProgress, Round, Run
from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, Ledger
from covey.gossip.mass import ONE

FRAMES = Path(__file__).parent / "frames"
NOW = 1000.0
SPEC = {
    "evaluation": {"metric": "accuracy", "goal": "max"},
    "privacy": {"unit": "example"},
    "stop": {"target": 0.95, "patience": 4, "time_s": 3600, "bytes": 50_000_000, "epsilon": 8.0},
}
INVITED = ("ada", "bob", "cyd", "dan", "eve")


def committed(number):
    metrics = {"accuracy": 0.9 - 0.8 / number, "loss": 2.3 / number}
    reason = "eve rejected: its score is too large for what the others sent, by far"
    counts: dict[str, Any] = {"accepted": 4, "rejected": 1, "bytes_received": 2_000_000, "bytes_sent": 1_000_000}
    return Round(
        number,
        "committed",
        committed_at=500.0,
        seconds=12.5,
        metrics=metrics,
        invited=INVITED,
        last_reason=reason,
        **counts,
    )


def contribution(name, accepted, **values):
    return Contribution(name, asked=7, accepted=accepted, **values)


def strip(*verdicts):
    return list(enumerate(verdicts, start=1))


ROUNDS = [*map(committed, range(1, 8)), Round(8, "collecting", received=1, declined=1, invited=INVITED)]
RUN = Run(
    "3f9a01c2d4e5",
    "digits",
    "rounds",
    "running",
    "waiting for the answers of 3 nodes until 12:30",
    rounds_committed=7,
    rounds=20,
    metrics={"privacy/epsilon": 2.5, "privacy/delta": 1e-5},
    started_at=400.0,
    spec=SPEC,
    roster=INVITED,
    missing={"auroc": "all examples are of one class"},
)
PROGRESS = (
    NodeProgress("ada", "training", 30, 90, 0.4321, since=980.0, bytes_sent=250_000),
    NodeProgress("bob", "uploading", 1, 2, since=999.5, bytes_received=1_000_000, bytes_sent=250_000),
    NodeProgress("cyd", "received", since=990.0),
    NodeProgress("eve", "training", 60, 90, 9.5, since=980.0),
)
NODES = RunNodes(
    away=(Node("dan", "away"),),
    away_count=1,
    contributions=(
        contribution("ada", 7),
        contribution("bob", 6, late=1, last_round=3, last_verdict="late", last_reason="no answer within 600 s"),
        contribution("cyd", 7),
        contribution("dan", 4, lost=3, last_round=7, last_verdict="lost", last_reason="its connection is gone"),
        contribution("eve", 0, rejected=7, last_round=7, last_verdict="rejected", last_reason="its score is too large"),
    ),
    verdicts={
        "ada": strip(*["accepted"] * 7),
        "bob": strip("accepted", "accepted", "late", "accepted", "accepted", "accepted", "accepted"),
        "cyd": strip(*["accepted"] * 7, "received"),
        "dan": strip(*["accepted"] * 4, "lost", "lost", "lost"),
        "eve": strip(*["rejected"] * 7),
    },
    drills={"eve": "sign-flip"},
)


def seen(run=RUN, rounds=(), **values):
    history = History()
    history.add(rounds)
    return Seen(run, history, rounds, **values)


def drawn(shown, height=60, **options):
    output = io.StringIO()
    Console(width=80, file=output, no_color=True).print(Group(*frame(shown, NOW, height, **options)))
    return "".join(line.rstrip() + "\n" for line in output.getvalue().splitlines())


GOSSIP = Run("77aa", "neighbours", "gossip", "running", steps=40, steps_done=12, started_at=400.0)
ADA, BOB = Incarnation("ada", 1), Incarnation("bob", 2)
STATED = GossipView(
    (
        GossipPart("ada", "working", "", "10.0.0.1:7500", "", 1, 12, 0.75, {"loss": 0.5}, trained_s=9.0, blocked_s=1.0),
        GossipPart("bob", "evicted", "its key is known to others", incarnation=2, step=4, weight=1.25),
    ),
    audit({ADA: Ledger(3 * ONE // 4, ONE), BOB: Ledger(5 * ONE // 4, ONE)}),
)
ASYNC = Run("99bb", "stream", "async", "running", updates=500, updates_decided=2, started_at=400.0)
ASSIGNMENTS = [
    Round(1, "decided", accepted=1, invited=("ada",), version=1, arrival=2, metrics={"loss": 2.0}, seconds=3.0),
    Round(2, "decided", rejected=1, invited=("bob",), arrival=1, last_reason="bob: too stale"),
    Round(3, "collecting", invited=("ada",), base_version=1),
]
SHOWN = {
    "queued": seen(
        replace(RUN, state="queued", reason="waiting for 5 nodes, 2 are here", rounds_committed=0, metrics={})
    ),
    "round": seen(rounds=ROUNDS, progress=PROGRESS, progress_count=5, nodes=NODES),
    "ended": seen(replace(RUN, state="completed", reason=""), ROUNDS[:7], nodes=replace(NODES, drills={}, away=())),
    "asynchronous": seen(ASYNC, ASSIGNMENTS, progress=PROGRESS[:2], progress_count=2),
    "gossip": seen(GOSSIP, progress=(*PROGRESS[:1], NodeProgress("bob", "evicted", 4, 40)), progress_count=2),
    "gossip-stated": seen(GOSSIP, progress=PROGRESS[:1], progress_count=1, nodes=RunNodes(gossip=STATED)),
    "away": seen(rounds=ROUNDS[:1], trouble=["waiting for the coordinator: it does not answer"]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_frame_is_as_it_was(name):
    text = drawn(SHOWN[name])
    assert max(map(len, text.splitlines())) <= 80
    assert text == (FRAMES / f"{name}.txt").read_text(encoding="utf-8")


HOSTILE = "\x1b[2J\x07\n\x9b31m[bold]"


def test_nothing_that_others_choose_can_steer_the_terminal():
    run = replace(RUN, name=HOSTILE, reason=HOSTILE, missing={HOSTILE: HOSTILE}, spec={})
    rounds = [replace(committed(number), metrics={HOSTILE: 0.5 * number}, last_reason=HOSTILE) for number in (1, 2)]
    nodes = RunNodes(
        away=(Node("ada", HOSTILE),),
        away_count=1,
        contributions=(Contribution("ada", 3, last_round=1, last_verdict=HOSTILE, last_reason=HOSTILE),),
        verdicts={"ada": [(1, HOSTILE)]},
        drills={"ada": HOSTILE},
    )
    opened = Round(3, "collecting", invited=("ada",))
    progress = (NodeProgress("ada", HOSTILE, 1, 2),)
    text = drawn(seen(run, [*rounds, opened], progress=progress, progress_count=1, nodes=nodes, trouble=[HOSTILE]))
    assert [char for char in text if not (char.isprintable() or char == "\n")] == []
    assert text.count("[bold]") > 8


def test_of_many_nodes_and_rounds_it_shows_what_fits():
    names = [f"node-{number:03}" for number in range(150)]
    progress = tuple(NodeProgress(name, "training", 1, 2, since=990.0) for name in names[:100])
    nodes = RunNodes(contributions=tuple(map(Contribution, names)))
    shown = seen(
        replace(RUN, spec={}), list(map(committed, range(1, 900))), progress=progress, progress_count=150, nodes=nodes
    )
    small, large = drawn(shown, 24), drawn(shown, 60)
    assert len(small.splitlines()) <= 24 < len(large.splitlines()) <= 60
    reasons = tuple(
        Contribution(name, 9, last_round=9, last_verdict="lost", last_reason="gone " * 40) for name in names
    )
    crowded = replace(shown, nodes=RunNodes(contributions=reasons), trouble=["nobody answers"])
    assert len(drawn(crowded, 24).splitlines()) <= 24
    assert drawn(crowded, 24).splitlines()[1] == "nobody answers"
    assert "and 140 more nodes" not in small
    for text in (small, large):
        assert " 899  committed" in text
        assert f"and {150 - text.count(' node-') - text.count(chr(10) + 'node-')} more nodes" in text


@pytest.mark.parametrize(("values", "line"), [([1.0], "*"), ([2.0, 2.0], "=="), ([0, 1, 2, 7], "_.:#")])
def test_a_curve_goes_from_the_lowest_to_the_highest(values, line):
    assert sparkline(values, ASCII_BLOCKS).replace("*", "=") == line.replace("*", "=")


def test_of_few_among_many_something_is_seen_in_a_bar():
    assert bar([("accepted", 990), ("rejected", 1), ("late", 0)], 1000).plain == (
        "[+++++++++++++++x]  + 990 accepted  x 1 rejected of 1000"
    )
    assert bar([("accepted", 1), ("held", 1)], 4).plain == "[++++hhhh........]  + 1 accepted  h 1 held of 4"
    assert not bar([("accepted", 0)], 10)
