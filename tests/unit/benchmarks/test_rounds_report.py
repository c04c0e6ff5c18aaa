from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks import rounds
from benchmarks.measuring.aims import report
from benchmarks.measuring.federation import Measured, Work, percentile
from benchmarks.measuring.proc import Usage
from benchmarks.measuring.sampler import Sample, cpu_between
from benchmarks.memory import too_large
from benchmarks.startup import first_commit
from covey.spec import parse_toml

RSS = {
    "coordinator_idle": 300.0,
    "coordinator_peak": 450.0,
    "node_peak": 90.0,
    "worker_peak": 400.0,
    "mapped_mb": 250.0,
}


def measured(**changes):
    work = Work(nodes=4, parameters=25_000_000, rounds=5)
    found = Measured(
        work=work,
        times_s=[1.0, 2.0, 3.0, 4.0],
        floor_s=[1.0, 1.5, 2.0],
        startup_s=5.0,
        wall_s=12.0,
        bytes_per_round=8e8,
        cpu_s={"coordinator": 0.5, "node": 1.0},
        rss_mb=RSS,
    )
    return replace(found, **changes)


def test_json_has_the_promised_keys_on_one_line():
    found = json.loads(json.dumps(measured().as_json()))
    promised = {"median_s", "p95_s", "floor_median_s", "startup_s", "bytes_per_round", "cpu_s", "rss_mb"}
    assert promised <= set(found)
    assert set(found["rss_mb"]) == set(RSS)
    assert (found["median_s"], found["floor_median_s"], found["cpu_s"]) == (2.5, 1.5, 1.5)
    assert "failure" not in found


def test_json_without_a_floor_says_null_and_with_a_failure_says_why():
    found = measured(floor_s=[], failure="a node died").as_json()
    assert found["floor_median_s"] is None
    assert found["failure"] == "a node died"


def test_percentile_is_linear_between_ranks():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert percentile([7.0], 0.95) == 7.0


def lines(found):
    return {line.name: line for line in report(found)}


def test_aims_are_judged():
    found = lines(measured())
    assert found["floor, median"].met is True
    assert found["coordinator, peak memory"].met is True
    assert "1.50 models" in found["coordinator, peak memory"].value
    slow = lines(measured(times_s=[9.0, 9.0], rss_mb={**RSS, "coordinator_peak": 700.0}))
    assert slow["floor, median"].met is False
    assert slow["coordinator, peak memory"].met is False


def test_a_small_model_is_judged_by_its_rounds_alone():
    small = Work(nodes=4, parameters=10_000, rounds=5)
    found = lines(measured(work=small, times_s=[0.02, 0.02]))
    assert found["round, median"].met is True
    assert found["floor, median"].met is None
    assert lines(measured(work=small, times_s=[0.2, 0.2]))["round, median"].met is False


def test_digits_are_judged_by_wall_and_accuracy():
    work = Work(nodes=4, rounds=20, task="digits")
    found = lines(measured(work=work, times_s=[0.1] * 19, wall_s=3.0, metrics={"accuracy": 0.92}))
    assert found["20 rounds"].met is True
    assert found["accuracy"].met is True
    assert lines(measured(work=work, times_s=[0.1] * 19, wall_s=5.0))["20 rounds"].met is False


def test_the_table_shows_every_line():
    wide = Console(width=200)
    with wide.capture() as captured:
        wide.print(rounds.table(measured()))
    assert "NVFlare 4.8 s" in captured.get()
    assert "100.00 MB" in captured.get()


@pytest.mark.parametrize("task", ["synthetic", "digits"])
def test_the_specification_is_valid(task):
    spec = parse_toml(Work(nodes=3, parameters=99, tensors=2, rounds=7, task=task).spec_toml)
    assert (spec.task.name, spec.rounds.count, spec.rounds.min_nodes) == (task, 7, 3)


def test_digits_model_has_the_size_of_the_peers_work():
    assert Work(task="digits").model_bytes == 4 * 4810


@pytest.mark.parametrize("wrong", [["--nodes", "0"], ["--rounds", "2"], ["--parameters", "3", "--tensors", "4"]])
def test_impossible_work_is_a_usage_error(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        rounds.parse_arguments(wrong)
    assert caught.value.code == 2
    assert "at least 1 node" in capsys.readouterr().err


def test_the_command_line_becomes_work(tmp_path):
    given = rounds.parse_arguments(["--nodes", "2", "--no-floor", "--root", str(tmp_path), "--keep-going"])
    work = rounds.work_of(given)
    assert (work.nodes, work.floor, work.root, work.keep_going) == (2, False, tmp_path, True)


def test_cpu_is_taken_between_the_nearest_samples():
    samples = [
        Sample(at, Usage(), Usage(), Usage(), {"coordinator": at * 2, "node": at})
        for at in itertools.accumulate([1.0] * 10)
    ]
    assert cpu_between(samples, 2.1, 6.9) == {"coordinator": 10.0, "node": 5.0}
    assert cpu_between([], 0, 1) == {}


def test_what_does_not_fit_is_skipped_with_the_reason():
    assert too_large(4, 100, memory_mb=20_000, disk_mb=50_000) == ""
    assert "of memory" in too_large(16, 100, memory_mb=5_000, disk_mb=50_000)
    assert "are free" in too_large(16, 100, memory_mb=50_000, disk_mb=5_000)


def test_first_commit_of_a_demo():
    assert first_commit([{"round": 1, "committed_at": 5.5}, {"round": 2, "committed_at": 6.0}]) == 5.5
    with pytest.raises(RuntimeError, match="not committed"):
        first_commit([{"round": 1, "committed_at": None}])
