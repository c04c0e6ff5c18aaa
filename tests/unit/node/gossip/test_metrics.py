"""What a gossip node shows to Prometheus is what its machine has."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.metrics import GossipMetrics, figures_of
from tests.unit.node.gossip.nodes import Unit, spec_of


def samples(metrics: GossipMetrics) -> dict[tuple[str, ...], float]:
    text = generate_latest(metrics.registry).decode()
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_a_node_shows_where_it_is(tmp_path: Path) -> None:
    metrics = GossipMetrics()
    assert not [key for key in samples(metrics) if key[0].startswith("covey_gossip")]
    unit = Unit(tmp_path, spec_of(2, 4), "ab")
    nodes = [unit.start(name) for name in unit.names]
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    assert nodes[0].actor.has_begun
    assert nodes[0].actor.is_done
    links = {"b": LinkQuality(2e6, 0.25)}
    metrics.show(figures_of(nodes[0].actor.executor, 1, links, nodes[0].actor.measured))
    shown = samples(metrics)
    expected = {
        ("covey_gossip_step",): 4.0,
        ("covey_gossip_mass",): 1.0,
        ("covey_gossip_batches_in_flight",): 0.0,
        ("covey_gossip_connections",): 1.0,
        ("covey_gossip_sent_batches_total",): 4.0,
        ("covey_gossip_received_batches_total",): 4.0,
        ("covey_gossip_sent_bytes_total",): 4.0 * 32,
        ("covey_gossip_received_bytes_total",): 4.0 * 32,
        ("covey_gossip_peer_round_trip_seconds", "b"): 0.25,
        ("covey_gossip_peer_bytes_per_second", "b"): 2e6,
        ("covey_gossip_metric", "loss"): 0.5,
    }
    assert {key: shown[key] for key in expected} == expected
    states = {key[1]: value for key, value in shown.items() if key[0] == "covey_gossip_peers"}
    assert sum(states.values()) == 1.0
    assert states["finished"] + states["away"] == 1.0
    assert shown["covey_gossip_training_seconds_total",] >= 0.0
