from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gossip, peer_streams
from benchmarks.measuring.gossip import PUBLISHED, TRAINED, GossipMeasured, GossipWork, _rounds, _windows


def measured(**values: Any) -> GossipMeasured:
    given: dict[str, Any] = {
        "work": GossipWork(parameters=250_000),
        "exchange_s": [0.02, 0.04, 0.03],
        "batch_s": 0.02,
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
    mean = measured(work=GossipWork(global_every=1), averaged_s=[0.11, 0.12, 0.2])
    assert json.loads(json.dumps(gossip.figures("mean", mean)))["averaged_s"] == pytest.approx(0.12)
    assert gossip.averaged_s(run) is None


def test_the_table_says_what_was_left_out() -> None:
    given = gossip.parse_arguments(["--parameters", "250000"])
    runs = [
        ("push", measured()),
        ("overlap 1", measured(work=GossipWork(overlap=1))),
        ("mean", measured(work=GossipWork(global_every=1, together=TRAINED), averaged_s=[0.12])),
    ]
    lines = gossip.report(given, 0.5, runs, ["pair, 8"])
    assert lines[0] == "Models of 1.00 MB, medians of 5 steps, load average before the first run 0.5:"
    assert (
        lines[4] == "| push, 4 | 0.03 | 0.02 | 1.50 | 0.02 | 133 | 0.50 | 0.30 | 0.10 | 0.10 + 0.20 (0.10) | 60, 200 |"
    )
    assert lines[5].startswith("| overlap 1, 4 | 0.03 | 0.02 |  | ")
    assert "|  |  |  | 0.10 + 0.20" in lines[6]
    assert len({line.count("|") for line in lines[2:7]}) == 1
    assert "two pushes, mixed: 0.12 s" in lines[8]
    assert lines[-1] == "Left out, as the time was over: pair, 8."


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
    assert _windows(spans, GossipWork(), ("take",)) == [2.5]
    assert _windows(spans, GossipWork(), ("take", "mix")) == [3.0]
    assert _windows(spans, GossipWork(global_every=1), ("take",)) == [2.5]  # steps 1, 2, 4, 5, ... do not train
    assert _windows(spans, GossipWork(global_every=3), ("take",)) == []
    mixed = [{"kind": "mix", "step": step, "began": 11.0, "ended": 11.0 + step} for step in (1, 4, 5, 5, 7)]
    sent = {"kind": "send", "step": 4, "began": 10.5, "ended": 12.0}
    assert _rounds([*spans, sent, *mixed], GossipWork(global_every=1)) == [(10.5, 16.0)]


def test_what_is_run_follows_from_the_command_line() -> None:
    given = gossip.parse_arguments(["--nodes", "4", "8"])
    names = ("nodes", "topology", "overlap", "durability", "together")
    runs = [(kind, *(getattr(work, name) for name in names)) for kind, work in gossip.works(given)]
    assert runs == [
        ("push", 4, "exponential", 0, "process", PUBLISHED),
        ("push", 8, "exponential", 0, "process", PUBLISHED),
        ("mean", 4, "exponential", 0, "process", TRAINED),
        ("pair", 4, "matching", 0, "process", PUBLISHED),
        ("pair", 8, "matching", 0, "process", PUBLISHED),
        ("free", 4, "exponential", 0, "process", ""),
        ("overlap 0", 4, "exponential", 0, "process", ""),
        ("overlap 1", 4, "exponential", 1, "process", ""),
        ("power", 4, "exponential", 0, "power", PUBLISHED),
        ("complete", 4, "complete", 0, "process", PUBLISHED),
        ("complete", 8, "complete", 0, "process", PUBLISHED),
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
def test_real_nodes_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- begin exchanges -->\n<!-- end exchanges -->\n")
    options = ["--nodes", "2", "--parameters", "20000", "--steps", "4", "--only", "push", "--json", "--page", str(page)]
    assert gossip.main(options) == 0
    line = json.loads(capsys.readouterr().out)
    assert "| push, 2 | " in page.read_text()
    assert line["is_exact"]
    assert line["models_a_step"] == 2
    assert len(line["exchanges_s"]) == len(line["floors_s"]) == 2
    assert line["ratio"] > 0
    assert line["cpu_s"]["node"] >= 0
    assert line["peak_mb"]["worker"] > 0
