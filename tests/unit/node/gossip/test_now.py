"""What people see of a node: what it waits for and why, while it runs, and the models that it keeps."""

import functools
import json
import os
import time
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from covey.cli.commands.gossip.status import status_of
from covey.cli.main import covey
from covey.client.gossip_nodes import SILENT_S, read_node
from covey.gossip.ledger import InEdge
from covey.gossip.push_sum.exchange import UNANSWERED_S
from covey.node.gossip.record.now import FILE, Teller
from tests.unit.node.gossip.nodes import Unit, UnitNode, has_come_to, spec_of


def told(teller: Teller, node: UnitNode) -> None:
    actor = node.actor
    links, troubles = ["b"], {"b": "the connection broke"}
    teller.tell(teller.seen(actor.executor, actor.under_way, links, troubles, actor.obstacle))


async def test_a_node_says_what_it_waits_for_and_keeps_what_it_published(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 1000), "ab")
    node = unit.start("a")
    await unit.until("a", lambda node: node.actor.has_begun)
    teller = Teller(node.home.folder, 2)
    told(teller, node)
    shown = status_of(read_node(tmp_path / "a"))
    assert (shown["running"], shown["waits_for"]) == (True, "waiting for nodes: 1 of 2 are there")
    assert shown["waits_why"] == ["b shows no sign of life, and cannot be called: the connection broke"]
    b = unit.start("b")
    await unit.until("a", functools.partial(has_come_to, 3))
    assert node.wire is not None
    node.wire.loss = 1.0  # nothing of a comes to b any more: when b ends, a batch is on its way to it for sure

    def goes_out(node: UnitNode) -> bool:
        had = b.actor.executor.ledger.into.get(node.me, InEdge()).sequence
        return any(span.sequence > had for span in node.actor.under_way)

    await unit.until("a", goes_out)
    await unit.stop("b")
    told(teller, node)
    first = read_node(tmp_path / "a")
    assert first.now is not None
    [batch] = first.now.under_way
    assert (batch.peer, batch.tries > 0) == ("b", True)
    assert f"batch {batch.sequence} to b is under way for " in first.why_it_waits[0]
    for age_s, shown_lines in ((UNANSWERED_S - 60, 0), (UNANSWERED_S, 1)):  # it waits for nothing
        works = replace(first.now, waits_for="", under_way=(replace(batch, since=time.time() - age_s),))
        assert len(status_of(replace(first, now=works))["waits_why"]) == shown_lines
    since = status_of(read_node(tmp_path / "a"))["waits_since"]
    told(teller, node)  # nothing has changed: the same file, and it is fresh
    assert status_of(read_node(tmp_path / "a"))["waits_since"] == since
    two = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert CliRunner().invoke(covey, ["gossip", "audit", *two]).exit_code == 0
    differs = CliRunner().invoke(covey, ["gossip", "audit", two[0]])  # of b's account nothing is known
    assert differs.exit_code == 1
    assert f"; still running: {two[0]}: accounts differ by what is on its way" in differs.output
    assert "ask again when the nodes are done, or stopped" in differs.output
    asked = CliRunner().invoke(covey, ["gossip", "leave", "--data-dir", str(tmp_path / "a")]).output
    assert "not before b, which shows no sign of life, has the batch on its way to it" in asked
    assert "covey ca evict b --run unit --incarnation 1" in asked
    await unit.until("a", lambda node: "covey ca evict b" in node.actor.executor.waits_for)
    path = node.home.folder / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "phase": "lingering"}))
    refused = CliRunner().invoke(covey, ["gossip", "leave", "--data-dir", str(tmp_path / "a")])
    assert refused.exit_code == 1
    assert "a has made all its steps, waits only until its peers have made theirs" in refused.output
    os.utime(path, (0.0, time.time() - SILENT_S - 1))
    assert read_node(tmp_path / "a").now is None  # it was killed, or stands still
    path.write_text(json.dumps({"step": "x"}))
    assert read_node(tmp_path / "a").now is None
    teller.drop()
    assert not path.exists()
    await unit.stop("a")
    kept = read_node(tmp_path / "a")
    assert kept.machine.step in kept.published
    file, units = kept.published[kept.machine.step]
    assert file.stat().st_size == 32
    assert units == kept.ledger.live
