"""Nodes that are killed while their records take what they know when they stop: at each point, and real records."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from covey import faults
from covey.client.gossip_nodes import read_node
from covey.gossip.mass import ONE
from covey.node.gossip.folders import newest
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import SpanRow
from tests.unit.node.gossip.nodes import Unit, UnitNode, spec_of

pytestmark = pytest.mark.timeout(120)
POINTS = {
    "gossip-receipts-unrecorded": ([False], [False]),
    "gossip-receipts-recorded": ([True], [False, True]),  # what waits is written in one transaction, or in two
    "gossip-spans-unrecorded": ([False, True], [False]),
    "gossip-spans-recorded": ([True], [True]),
}
"""Point to whether the newest receipt, and the newest span, may be on record then."""
KILL = "import sys; from tests.unit.node.gossip.test_killed_at_the_end import kill_at_each; kill_at_each(sys.argv[1])"
SPEC = spec_of(2, 8)


def kill_at_each(folder: str) -> None:
    """In a process of its own: for each point, copies of it whose nodes stop, and are killed there."""
    for point in POINTS:
        if (child := os.fork()) == 0:
            asyncio.run(_stop_in_mid_run(Path(folder) / point, point))
            os._exit(0)
        print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


async def _stop_in_mid_run(folder: Path, point: str) -> None:
    unit = Unit(folder, SPEC, "ab")
    nodes = [unit.start(name) for name in unit.names]
    for node in nodes:
        node.worker.trainings = 4  # and no further publication takes along what peers have signed
    await unit.until("b", functools.partial(stands_still_with_all_signed, nodes[0]))
    faults._remaining.update(faults._parse(point))
    await unit.stop("b")


def stands_still_with_all_signed(peer: UnitNode, node: UnitNode) -> bool:
    """Whether a node does nothing any more, and its peer signed to have had all that it gave."""
    if not node.worker.stands_still:
        return False
    given = node.actor.executor.ledger.out[peer.me].sequence
    return node.receipts.signed_by(peer.me) == given > 0


def on_record(folder: Path) -> tuple[bool, bool]:
    """Whether a record has the receipt of the newest batch that its node gave, and the span of its sending."""
    node = read_node(folder)
    given = max(edge.sequence for edge in node.ledger.out.values())
    engine = open_record(newest(folder, None))
    sent = [span["sequence"] for span in rows_of(engine, SpanRow) if span["kind"] == "send"]
    engine.dispose()
    return given in [each.receipt.sequence for each in node.receipts if each.way == "out"], given in sent


async def test_a_node_that_is_killed_while_it_stops_loses_at_most_what_it_can_be_shown_again(tmp_path: Path) -> None:
    undisturbed = Unit(tmp_path / "undisturbed", SPEC, "ab")
    models = [undisturbed.start(name) for name in undisturbed.names]
    assert [await undisturbed.tasks[name] for name in undisturbed.names] == ["completed"] * 2
    killing = [sys.executable, "-c", KILL, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, killing, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == [f"{point} -9" for point in POINTS], done.stderr
    for point in POINTS:
        unit = Unit(tmp_path / point, SPEC, "ab")
        has_receipt, has_span = on_record(unit.folder / "b")
        assert has_receipt in POINTS[point][0]
        assert has_span in POINTS[point][1]
        nodes = [unit.start(name) for name in unit.names]
        assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
        assert [node.model for node in nodes] == [node.model for node in models]
        audit = unit.audit()
        assert (audit.is_exact, audit.findings, audit.live, audit.in_flight) == (True, (), 2 * ONE, 0)
