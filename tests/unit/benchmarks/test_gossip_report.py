from __future__ import annotations

import json
import math
from typing import Any

import pytest

from benchmarks import gossip, peer_streams
from benchmarks.measuring.gossip import GossipMeasured, GossipWork, _windows


def measured(**values: Any) -> GossipMeasured:
    given: dict[str, Any] = {
        "work": GossipWork(parameters=250_000),
        "exchange_s": [0.02, 0.04, 0.03],
        "mixed_s": [0.05, 0.06, 0.07],
        "step_s": 0.5,
        "trained_s": 0.3,
        "blocked_s": 0.1,
        "floor_s": [0.02, 0.03, 0.01],
        "floor_cpu_s": 0.1,
        "models": 4.0,
        "cpu_s": {"node": 0.1, "node_worker": 0.2},
        "peak_mb": {"daemon": 60.0, "worker": 200.0},
        "whole_s": 3.0,
        "is_exact": True,
    }
    return GossipMeasured(**{**given, **values})


def test_rates_follow_from_what_was_measured() -> None:
    run = measured()
    assert run.median_s == 0.03
    assert run.ratio == pytest.approx(1.5)
    assert run.rate == pytest.approx(4 * 1.0 / 0.03)
    assert run.goodput == pytest.approx(0.75)
    assert math.isnan(measured(floor_s=[]).ratio)
    assert json.loads(json.dumps(gossip.figures("exact", run)))["averaged_s"] == pytest.approx(0.12)
    assert "averaged_s" not in gossip.figures("push", run)


def test_a_step_lasts_from_its_first_byte_to_its_last_batch_on_record() -> None:
    spans = [
        {"kind": "send", "step": 2, "began": 10.0, "ended": 11.0},
        {"kind": "send", "step": 2, "began": 10.5, "ended": 12.0},
        {"kind": "take", "step": 2, "began": 11.0, "ended": 11.5},
        {"kind": "take", "step": 2, "began": 11.0, "ended": 12.5},
        {"kind": "mix", "step": 2, "began": 12.5, "ended": 13.0},
        {"kind": "send", "step": 0, "began": 1.0, "ended": 9.0},
        {"kind": "train", "step": 2, "began": 5.0, "ended": 9.0},
    ]
    assert _windows(spans, 1, ("take",)) == [2.5]
    assert _windows(spans, 1, ("take", "mix")) == [3.0]


def test_what_is_run_follows_from_the_command_line() -> None:
    given = gossip.parse_arguments(["--nodes", "4", "8", "--only", "pair", "exact", "overlap", "--durability", "power"])
    runs = [(kind, work.nodes, work.topology, work.overlap, work.durability) for kind, work in gossip.works(given)]
    assert runs == [
        ("pair", 4, "matching", 0, "power"),
        ("pair", 8, "matching", 0, "power"),
        ("exact", 4, "exponential", 0, "power"),
        ("overlap 0", 4, "exponential", 0, "power"),
        ("overlap 1", 4, "exponential", 1, "power"),
    ]
    with pytest.raises(SystemExit):
        gossip.parse_arguments(["--nodes", "1"])


@pytest.mark.parametrize(("topology", "models"), [("exponential", 9), ("complete", 18)])
def test_bare_streams_move_a_body_along_each_edge(topology: str, models: int) -> None:
    graphs = peer_streams.graphs_of(topology, 3, 3)
    streams = peer_streams.run_streams(graphs, (1 << 20) + 5, syncs=topology == "complete")
    assert streams.models == models
    assert len(streams.times_s) == 3
    assert all(seconds > 0 for seconds in streams.times_s)
    assert streams.cpu_s > 0


def test_bare_streams_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        peer_streams.run_streams([], 1)


@pytest.mark.processes
def test_real_nodes_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "2", "--parameters", "20000", "--steps", "4", "--only", "push", "--json"]
    assert gossip.main(options) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["is_exact"]
    assert line["models_a_step"] == 2
    assert len(line["exchanges_s"]) == len(line["floors_s"]) == 2
    assert line["ratio"] > 0
    assert line["cpu_s"]["node"] >= 0
    assert line["peak_mb"]["worker"] > 0


@pytest.mark.processes
def test_what_a_slow_node_costs_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip, "SETTINGS", ("agp",))
    options = ["--slow-node", "3", "--nodes", "2", "--steps", "5", "--train-seconds", "0.2", "--json"]
    assert gossip.main(options) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["setting"], line["is_exact"]) == ("agp", True)
    assert line["slow_s"] >= 3 * 0.2
    assert line["undisturbed_s"] >= 0.2
    assert line["ratio"] == line["others_s"] / line["undisturbed_s"]
    with pytest.raises(SystemExit):
        gossip.parse_arguments(["--slow-node", "0.5"])
