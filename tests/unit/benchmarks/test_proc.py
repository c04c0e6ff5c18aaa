from __future__ import annotations

import os
import subprocess

import pytest

from benchmarks.measuring.proc import TICKS_A_SECOND, Usage, available_memory_mb, parse_cpu_s, parse_memory_mb, usage_of

STATUS = """Name:\tpython
VmHWM:\t  900000 kB
VmRSS:\t   61000 kB
RssAnon:\t   40000 kB
RssFile:\t   20000 kB
RssShmem:\t    1000 kB
Threads:\t3
"""
STAT = "4242 (covey (worker) x) S 17 4242 4242 0 -1 4194560 100 0 0 0 250 50 7 9 20 0 3 0 100 1000 200 1 1"


def test_shared_memory_counts_as_private_and_files_apart():
    private, mapped = parse_memory_mb(STATUS)
    assert private == pytest.approx(41_000 * 1024 / 1e6)
    assert mapped == pytest.approx(20_000 * 1024 / 1e6)


def test_an_ending_process_holds_nothing():
    assert parse_memory_mb("Name:\tpython\nState:\tZ (zombie)\n") == (0.0, 0.0)


def test_cpu_time_survives_parentheses_in_the_name():
    assert parse_cpu_s(STAT) == 300 / TICKS_A_SECOND


def test_usage_adds():
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)


def test_memory_of_this_process_is_seen():
    before = usage_of(os.getpid())
    ballast = bytearray(b"x") * 50_000_000
    after = usage_of(os.getpid())
    assert before is not None
    assert after is not None
    assert after.private_mb - before.private_mb > 45
    assert len(ballast) == 50_000_000


def test_a_process_that_is_gone_has_no_usage():
    process = subprocess.Popen(["true"])
    process.wait()
    assert usage_of(process.pid) is None


def test_available_memory_is_plausible():
    assert 0 < available_memory_mb() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
