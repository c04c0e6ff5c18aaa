"""A node's own log on its own machine: written beside the work, bounded, read and followed by its operator."""

import contextlib
import json
import threading

import pytest
import structlog
from click.testing import CliRunner

from covey.cli.commands.node import node as group
from covey.errors import NotFound
from covey.node.site_log.local_log import FOLDER, NEWEST, LocalLog
from covey.node.site_log.reading import LocalLogs, chosen
from covey.node.site_log.works import LINE_BYTES, Work
from covey.telemetry import heard_by


@pytest.fixture
def filled(tmp_path):
    """Two runs of one name, and one of another."""
    with LocalLog(tmp_path, now=lambda: 1_796_076_000.0) as log:
        log.named("aa11", "digits")
        log.began("aa11", 1)
        log.printed(b"epoch 1\n2026-11-30T11:00:00Z [warning  ] odd data room=worker\n")
        log.named("bb22", "digits")
        log.began("bb22", 2)
        log.printed(b'{"event": "worse", "level": "error"}\n\x1b[31mred\nhalf a li')
        log.printed(b"ne\n")
        log.failed("bb22", 2, "training failed: task-failed: KeyError: 'age'", "Traceback\n  in loss")
        with heard_by(log.heard):
            told = structlog.get_logger()
            told.warning("assignment declined", run="bb22", round=2, reason="it \x1b[1mbroke")
            thread = threading.Thread(target=told.info, args=("connected",), kwargs={"server": "example.org"})
            thread.start()
            thread.join()
        log.named("cc33", "others")
    return tmp_path


def texts(folder, run="", level="debug"):
    with LocalLogs(folder) as logs:
        lines = logs.lines()
    return [(line.kind, line.level, line.text) for line in filter(chosen(lines, run, level), lines)]


def test_a_name_means_its_newest_run_and_all_lines_have_their_run_and_level(filled):
    of_newest = [
        ("node", "info", "works for run digits"),
        ("output", "error", '{"event": "worse", "level": "error"}'),
        ("output", "info", "\\x1b[31mred"),
        ("output", "info", "half a line"),
        ("failure", "error", "training failed: task-failed: KeyError: 'age'"),
        ("traceback", "error", "Traceback"),
        ("traceback", "error", "  in loss"),
        ("node", "warning", "assignment declined reason=it \\x1b[1mbroke"),
    ]
    assert texts(filled, "digits") == texts(filled, "bb22") == texts(filled, "bb") == of_newest
    assert texts(filled, "aa", "warning") == [
        ("output", "warning", "2026-11-30T11:00:00Z [warning  ] odd data room=worker")
    ]
    assert ("node", "info", "connected server=example.org") in texts(filled)
    assert (filled / FOLDER / NEWEST).stat().st_mode & 0o077 == 0
    with pytest.raises(NotFound, match="says nothing of run 'nope'"):
        texts(filled, "nope")


def test_files_are_bounded_and_following_loses_no_line_when_one_takes_the_place_of_the_other(tmp_path):
    log = LocalLog(tmp_path, "r", file_bytes=2000)
    numbers = iter(range(1, 41))

    def write(_seconds):
        with contextlib.suppress(StopIteration):
            for _ in range(3):
                log.printed(b"line %d\n" % next(numbers))

    seen = []
    with LocalLogs(tmp_path, sleep=write) as logs:
        for line in logs.followed():
            seen.append(line.text)
            if len(seen) == 40:
                break
    assert seen == [f"line {number}" for number in range(1, 41)]
    assert sum(path.stat().st_size for path in (tmp_path / FOLDER).iterdir()) <= 4000
    assert texts(tmp_path)[-1] == ("output", "info", "line 40")


def test_a_run_is_found_by_its_name_after_the_files_have_taken_each_other_s_place(tmp_path):
    with LocalLog(tmp_path, file_bytes=1000) as log:
        log.named("aa11", "digits")
        log.began("aa11", 1)
        for number in range(40):
            log.printed(b"line %d\n" % number)
        found = [text for _, _, text in texts(tmp_path, "digits")]
        assert "works for run digits" not in found
        assert found[-1] == "line 39"
        log.named("bb22", "digits")
        log.printed(b"the end of what was before\n")
    assert texts(tmp_path, "digits") == [("node", "info", "works for run digits")]  # the newest run of that name


def test_a_damaged_line_is_passed_over_and_a_disk_that_takes_nothing_costs_the_lines(filled, tmp_path):
    with (filled / FOLDER / NEWEST).open("ab") as file:
        file.write(b'\xff\n{"at": 1}\n[]\n{"at": 1.0, "level": "info", "ru')
    assert len(texts(filled, "digits")) == 8
    (tmp_path / "file").write_text("")
    LocalLog(tmp_path / "file").printed(b"to nowhere\n")
    with pytest.raises(NotFound, match="no node has run on this data directory"):
        LocalLogs(tmp_path / "nowhere").lines()


def test_a_line_without_an_end_takes_no_more_memory_than_one():
    work = Work("r", 1)
    for _ in range(100):
        assert work.lines(b"x" * 1000) == []
    assert len(work.unfinished) == LINE_BYTES
    assert work.lines(b"\n")[0] == "x" * LINE_BYTES


def test_the_command_shows_the_newest_lines_for_people_and_programs(filled):
    def logs(*arguments):
        done = CliRunner().invoke(group, ["logs", "--data-dir", str(filled), *arguments])
        assert done.exit_code == 0, done.output
        return done

    shown = logs("--run", "digits", "--limit", "3")
    assert [line.split("  ")[-1] for line in shown.stdout.splitlines()] == [
        "Traceback",
        "in loss",
        "assignment declined reason=it \\x1b[1mbroke",
    ]
    assert "the newest 3 of 8 lines; see all of them with --all" in shown.stderr
    assert "run bb22  round 2  failure  training failed" in logs().stdout
    last = json.loads(logs("--level", "warning", "--json").stdout)[-1]
    assert (last["run"], last["round"], last["kind"], last["level"]) == ("bb22", 2, "node", "warning")
    assert logs("--csv").stdout.startswith("at,level,run,round,kind,text\n")
    assert CliRunner().invoke(group, ["logs", "--data-dir", str(filled), "--follow", "--csv"]).exit_code == 2
