from __future__ import annotations

import pytest

from covey.cli.views.tables import node_details, node_table
from covey.client.values import Node, NodeDetail
from covey.coordinator.nodes.adversaries import drill_event, drills_on_record
from covey.storage.record.contract import EventRecord


def event(kind, node, attack, at):
    return EventRecord(at, kind, node=node, detail={"attack": attack})


@pytest.mark.parametrize(
    ("before", "now", "kind", "attack"),
    [("", "alie", "drill-joined", "alie"), ("ipm", "alie", "drill-joined", "alie"), ("ipm", "", "drill-left", "ipm")],
)
def test_coming_and_going_is_put_on_record(before, now, kind, attack):
    assert drill_event("a", before, now, 5.0) == event(kind, "a", attack, 5.0)


def test_an_honest_node_leaves_no_trace():
    assert drill_event("a", "", "", 5.0) is None


def test_the_newest_event_of_a_node_counts():
    newest_first = [
        event("drill-left", "a", "ipm", 9.0),
        event("node-enrolled", "b", "", 8.0),
        event("drill-joined", "b", "alie", 7.0),
        event("drill-joined", "a", "ipm", 6.0),
        event("drill-joined", "b", "ipm", 5.0),
    ]
    assert drills_on_record(newest_first) == {"b": "alie"}


def columns(*nodes):
    return [column.header for column in node_table(nodes)[0].columns]


def test_the_table_shows_a_column_for_drills_where_there_are_any():
    honest, drill = Node("a", "away"), Node("b", "connected", drill="alie")
    assert "DRILL" not in columns(honest)
    assert "DRILL" in columns(honest, drill)
    facts = node_details(NodeDetail(drill))[0]
    assert "alie" in facts.plain
    assert "drill" not in node_details(NodeDetail(honest))[0].plain
