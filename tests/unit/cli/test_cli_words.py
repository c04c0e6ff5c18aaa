"""Small words of commands: what is said of one run, of a wrong round, of a log that a crash cut."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from covey.cli.main import covey
from covey.cli.views.reports import replay_text
from covey.client.event_log import unfinished_lines
from covey.coordinator.modes.contract import ReplayReport


@pytest.mark.parametrize("number", ["x", "0", "-1", "1.5"])
def test_a_round_that_is_no_number_is_said_in_words(tmp_path, number):
    done = CliRunner().invoke(covey, ["round", "show", "digits", "--data-dir", str(tmp_path), "--", number])
    assert done.exit_code == 2
    assert f"{number!r} is not a round; write its number, from 1, or `newest`" in done.output
    assert "range" not in done.output


def test_a_replay_counts_rounds_or_decisions():
    assert "3 rounds of run r" in replay_text(ReplayReport("r", 3, 3, "ab"))
    assert "3 decisions of run r" in replay_text(ReplayReport("r", 3, 3, "ab", (), "decisions"))


def test_a_line_that_a_crash_cut_is_known(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_bytes(b'{"a": 1}\n{"b":')
    assert unfinished_lines(log) == [2]
    log.write_bytes(b'{"a": 1}\n')
    assert unfinished_lines(log) == []
