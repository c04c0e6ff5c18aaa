from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gossip_results
from covey.gossip.protocols.runs import protocol_of
from covey.spec import GossipSpec, parse_toml

OUTCOME = {
    "accuracy": 0.9,
    "nodes": [0.5, 0.8],
    "spread": 0.25,
    "models_a_step": 1.0,
    "simulated_goodput": 0.5,
    "mass_is_exact": True,
    "steps": 100,
}
REAL = {
    "accuracy": 0.91,
    "spread": 0.3,
    "step_s": 0.1,
    "trained_s": 0.05,
    "blocked_s": 0.05,
    "goodput": 0.5,
    "sent_mb": 0.018,
    "steps": 12,
    "load": 0.5,
}


@pytest.mark.parametrize("setting", gossip_results.SETTINGS)
def test_each_row_is_a_specification_that_can_be_run(setting: str) -> None:
    for task in gossip_results.TASKS:
        spec = parse_toml(gossip_results.spec_of(task, setting, 10, 1))
        assert isinstance(spec, GossipSpec)
        assert protocol_of(spec.gossip).policy(spec.gossip, 8).steps >= 10


def test_a_row_has_the_mean_of_its_seeds_and_what_processes_took() -> None:
    outcomes = {"digits/sgp/1": OUTCOME, "digits/sgp/2": {**OUTCOME, "accuracy": 0.7, "nodes": [0.4, 0.7]}}
    lines = gossip_results.report("digits", {**outcomes, "digits/sgp/processes": REAL})
    assert "100 steps" in lines[0]
    assert "12 steps, seconds and MB of each node; load before 0.5 to 0.5" in lines[0]
    simulated = "| sgp | 2 | 0.800 (0.700 to 0.900) | 0.400 to 0.800 | 0.25 | 1.00 | 50% |"
    assert lines[4] == f"{simulated} 0.910 | 0.3 | 0.100 | 0.050 | 50% | 0.02 |"
    assert len({line.count("|") for line in lines[2:-1]}) == 1
    assert gossip_results.report("mnist", outcomes) == []


def test_what_is_known_is_not_measured_again_and_the_page_is_written(tmp_path: Path) -> None:
    known, page = tmp_path / "known.json", tmp_path / "page.md"
    known.write_text(json.dumps({"digits/sgp/1": OUTCOME}))
    page.write_text("before\n<!-- begin gossip -->\nold\n<!-- end gossip -->\nafter\n")
    options = ["digits", "--only", "nothing", "--seeds", "1", "--json", str(known), "--page", str(page)]
    assert gossip_results.main(options) == 0
    text = page.read_text()
    assert "| sgp | 1 | 0.900 |" in text
    assert "| agp |" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")


def test_what_would_begin_too_late_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert gossip_results.main(["digits", "--only", "sgp", "--no-simulation", "--budget", "0"]) == 0
    left_out = [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert left_out == [f"digits/{name}/processes" for name in gossip_results.SETTINGS if name.startswith("sgp")]


@pytest.mark.processes
def test_a_simulated_row_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.json"
    options = ["digits", "--only", "alone", "--seeds", "1", "--steps", "2", "--no-processes", "--json", str(file)]
    assert gossip_results.main(options) == 0
    outcome = json.loads(file.read_text())["digits/alone (its own part only)/1"]
    assert outcome["mass_is_exact"]
    assert 0 < outcome["accuracy"] < 0.6
    assert outcome["simulated_goodput"] == 1.0
