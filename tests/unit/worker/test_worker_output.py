"""What a worker prints: bounded in the log, whole where it is little, and never a reason to stop or to grow."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from covey.worker.client import output as module
from covey.worker.client.output import Output


class Stopped:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    made = Stopped()
    monkeypatch.setattr(module, "time", made)
    return made


def test_little_is_logged_as_it_is(tmp_path: Path, clock: Stopped) -> None:
    output = Output(tmp_path / "log")
    for text in (b"step 1\n", b"half of ", b"a line\n"):
        output.data_received(text)
    output.connection_lost(None)
    assert (tmp_path / "log").read_bytes() == b"step 1\nhalf of a line\n"


def test_a_flood_is_cut_with_a_word_and_its_end_is_kept(tmp_path: Path, clock: Stopped) -> None:
    output, chunk = Output(tmp_path / "log"), b"x" * 65535 + b"\n"
    for _ in range(1000):
        output.data_received(chunk)
    output.data_received(b"Traceback: the last words\n")
    output.connection_lost(None)
    written = (tmp_path / "log").read_bytes()
    assert len(written) <= module.AT_ONCE_BYTES + module.TAIL_BYTES + 100
    left_out = 1000 * len(chunk) - module.AT_ONCE_BYTES + 26 - module.TAIL_BYTES
    assert f"\n[{left_out} bytes of output are left out here]\n".encode() in written
    assert written.endswith(b"Traceback: the last words\n")


def test_when_it_is_quiet_again_there_is_room_again(tmp_path: Path, clock: Stopped) -> None:
    output = Output(tmp_path / "log")
    output.data_received(b"y" * module.AT_ONCE_BYTES)
    output.data_received(b"left out\n")
    for clock.now in range(1, 9):  # a line here and there would be no use
        output.data_received(b"left out\n")
    clock.now = 60.0
    output.data_received(b"once more\n")
    output.data_received(b"and more\n")
    written = (tmp_path / "log").read_bytes()
    assert written.endswith(b"y" + b"left out\n" * 9 + b"once more\nand more\n")


def test_a_file_is_changed_before_it_is_too_large(
    tmp_path: Path, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    output, log = Output(tmp_path / "log"), tmp_path / "log"
    for number in range(10):
        output.data_received(b"%d" % number * 39 + b"\n")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log", "log.1"]
    assert log.read_bytes() == b"8" * 39 + b"\n" + b"9" * 39 + b"\n"
    assert (tmp_path / "log.1").read_bytes() == b"6" * 39 + b"\n" + b"7" * 39 + b"\n"


@pytest.mark.parametrize("target", ["/dev/full", "/proc/none/log"])
def test_a_log_that_cannot_be_written_stops_nobody(
    target: str, clock: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(Path(target))
    for _ in range(3):
        output.data_received(b"lost\n")
    output.connection_lost(None)


async def test_a_pipe_that_somebody_holds_open_is_given_up(tmp_path: Path) -> None:
    output = Output(tmp_path / "log")
    theirs = await output.open()
    os.write(theirs, b"seen\n")
    await output.close(0.2)
    await asyncio.sleep(0)  # closed at the loop's next turn
    with pytest.raises(BrokenPipeError):
        os.write(theirs, b"not seen\n")
    os.close(theirs)
    assert (tmp_path / "log").read_bytes() == b"seen\n"
