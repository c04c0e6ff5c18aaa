"""How a worker's end is told: what is known, and no more."""

from __future__ import annotations

import pytest

from covey.worker.client import epitaph as room
from covey.worker.client.epitaph import epitaph, kills_for_memory


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Sets how many processes the kernel has killed for want of memory."""

    def kills(count):
        (tmp_path / "vmstat").write_text(f"nr_free_pages 5\noom_kill {count}\n")

    monkeypatch.setattr(room, "VMSTAT", tmp_path / "vmstat")
    return kills


def test_a_kill_for_want_of_memory_names_memory_the_limit_and_what_to_do(kernel):
    kernel(2)
    before = kills_for_memory()
    assert before == 2
    kernel(3)
    text = epitaph(-9, before, 3 << 30)
    assert "signal 9" in text
    assert "want of memory meanwhile; its limit is 3 GiB: give this machine, or its container, more memory" in text
    assert "no limit is set for it" in epitaph(-9, before, None)


def test_a_kill_by_somebody_is_told_from_one_by_the_kernel(kernel):
    assert "by somebody, or by the system" in epitaph(-9, kills_for_memory(), None)  # the kernel says nothing
    kernel(3)
    assert "by somebody: the system has killed nothing" in epitaph(-9, kills_for_memory(), None)


def test_other_ends():
    assert epitaph(3, None, None) == "ended with exit code 3"
    assert "is a disk full, or failing?" in epitaph(-7, None, None)
    assert epitaph(-15, None, None) == "was killed by signal 15"
