"""Daemons and workers log without rich, which others may still use; and say why they cannot run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import structlog

from covey.errors import IdentityError
from covey.telemetry import cannot_run

PROGRAM = """
import sys
from covey.telemetry import configure_logging, import_without_rich
import_without_rich()
configure_logging({format!r}, "info")
import structlog
structlog.get_logger(room="test").info("said", number=7)
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("failed")
loaded = "rich" in sys.modules
import rich.console
print(loaded, bool(rich.console.Console), import_without_rich())
"""


@pytest.mark.parametrize("format", ["console", "json"])
def test_lines_and_tracebacks_are_written_without_rich(format):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(format=format)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False True None\n"
    assert "said" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr


@pytest.mark.parametrize("format", ["console", "json"])
def test_what_others_wrote_does_not_steer_the_terminal_of_who_reads_the_log(format):
    program = f"""
from covey.telemetry import configure_logging
import structlog
configure_logging({format!r}, "info")
structlog.get_logger().warning("declined \\x1b[2J", reason="\\x1b]0;owned\\x07", error=ValueError("\\x1b[31m"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stderr
    assert "\x07" not in done.stderr
    assert "owned" in done.stderr


def test_a_log_that_cannot_be_written_costs_the_lines_and_no_more():
    program = """
from covey.telemetry import configure_logging
import structlog
configure_logging()
for _ in range(1000):
    structlog.get_logger().warning("said " * 100)
print("went on")
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True)
    assert done.stdout == "went on\n"


def test_why_a_daemon_cannot_run_is_said_and_is_its_exit_code():
    with structlog.testing.capture_logs() as logs:
        assert cannot_run(structlog.get_logger(), "the node", IdentityError("it has none")) == 1
    assert logs == [{"event": "the node cannot run", "code": "identity", "error": "it has none", "log_level": "error"}]
