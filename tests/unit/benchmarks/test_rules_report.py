from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from benchmarks import rules
from benchmarks.rules import AIMS, MIXED, Bench, Measured, Work, growth_mb, names, rule_of, too_large


def test_every_installed_rule_is_measured_and_every_aim_is_of_one() -> None:
    assert {"mean", "median", "trimmed-mean", "bulyan", "majority-vote", MIXED} <= set(names())
    assert set(AIMS) <= set(names())


def test_rules_get_the_f_that_they_assume() -> None:
    assert rule_of("krum", 4).min_updates() == 11
    assert rule_of("mean", 4).min_updates() == 1
    assert rule_of(MIXED, 3).min_updates() == 7


@pytest.fixture
def work(tmp_path) -> Work:
    found = Work(n=19, d=5000, f=4, folder=tmp_path)
    rules.write_rows(found)
    return found


def test_rows_are_around_the_last_one(work: Work) -> None:
    rows = torch.from_file(str(work.folder / "rows"), size=20 * 5000).view(20, 5000)
    torch.testing.assert_close((rows[:-1] - rows[-1]).var(), torch.tensor(1.0), rtol=0.05, atol=0)
    torch.testing.assert_close(rows[-1].var(), torch.tensor(1.0), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", names())
def test_every_rule_makes_a_second_round(work: Work, name: str) -> None:
    bench = Bench(work)
    bench.keep(name)
    state = bench.state(name)
    assert set(state) == set(rule_of(name, work.f).state_names)
    bench.walk(name, state)


def test_times_are_multiples_of_the_mean_of_the_same_pair() -> None:
    found = rules._summary("krum", [(1.0, 3.0), (10.0, 40.0), (1.0, 9.0)], 2.5)
    assert found == Measured("krum", times=4.0, median_s=9.0, memory_mb=2.5, aim=6.0)


def test_the_report_judges_and_says_what_was_skipped(work: Work) -> None:
    found = [
        Measured("krum", times=5.0, memory_mb=1.0, aim=6.0),
        Measured("median", times=7.0, memory_mb=1e3, aim=6.0),
        Measured("bulyan", skipped="needs 23 updates"),
    ]
    wide = Console(width=200)
    with wide.capture() as captured:
        wide.print(rules.table(work, found))
    text = captured.get()
    assert text.count("met") == 2
    assert text.count("missed") == 2
    assert "skipped: needs 23 updates" in text


@pytest.mark.processes
def test_a_small_matrix_end_to_end(tmp_path, capsys) -> None:
    options = "--n 8 --d 3000 --f 2 --rule mean --rule bulyan --rule median --repeat 2 --no-memory --json"
    assert rules.main(options.split()) == 0
    found = json.loads(capsys.readouterr().out)
    mean, bulyan, median = found["matrices"][0]["rules"]
    assert mean["times"] > 0
    assert (median["rule"], median["aim"]) == ("median", 6.0)
    assert median["median_s"] > 0
    assert bulyan["skipped"] == "needs 11 updates with f = 2"


@pytest.mark.processes
def test_memory_is_that_of_the_rule(disk_path) -> None:
    work = Work(n=9, d=400_000, f=2, folder=disk_path)
    rules.write_rows(work)
    # A slab of all rows, and far less than the rows themselves (14.4 MB).
    assert 0.5 < growth_mb(work, "median") < 8


@pytest.mark.processes
def test_a_measuring_process_that_fails_is_an_error(tmp_path) -> None:
    work = Work(n=3, d=100, f=4, folder=tmp_path)
    rules.write_rows(work)
    with pytest.raises(RuntimeError, match="no answer"):
        growth_mb(work, "krum")


def test_rules_that_cannot_be_applied_are_all_skipped_with_the_reason(tmp_path) -> None:
    work = Work(n=2, d=100, f=4, folder=tmp_path)
    assert rules._reason("krum", work) == "needs 11 updates with f = 4"
    assert rules._reason("mean", work) == ""


def test_what_does_not_fit_is_said() -> None:
    assert too_large(20, 10**6, memory_mb=1000, disk_mb=1000) == ""
    assert "of memory" in too_large(20, 10**7, memory_mb=1000, disk_mb=10_000)
    assert "set TMPDIR" in too_large(20, 10**7, memory_mb=10_000, disk_mb=1000)


@pytest.mark.parametrize("wrong", [["--n", "0"], ["--rule", "no-such-rule"], ["--repeat", "0"], ["--d", "0"]])
def test_impossible_work_is_a_usage_error(wrong: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        rules.parse_arguments(wrong)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_defaults_are_those_of_the_aims() -> None:
    given = rules.parse_arguments([])
    assert (given.n, given.d, given.f) == (20, [1_000_000, 10_000_000], 4)
