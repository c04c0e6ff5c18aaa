"""The federation behind the page: found again when its coordinator comes back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from covey.client.errors import Unreachable
from covey.client.target import Target
from covey.errors import CoveyError
from covey.ui.server import listen
from covey.ui.source import LOOK_AGAIN_S, Source


def test_a_record_at_rest_is_opened_anew_after_a_while(recorder):
    recorder.run("run")
    time_s = [0.0]
    source = Source(Target(Path(recorder.data_dir)), lambda: time_s[0])
    first = source.ask(lambda connection: connection)
    assert source.ask(lambda connection: connection) is first
    assert not source.is_live
    time_s[0] = LOOK_AGAIN_S
    again = source.ask(lambda connection: connection)
    assert again is not first
    assert source.ask(lambda c: [run.run for run in c.runs()]) == ["run"]
    source.close()
    source.close()


def test_after_no_answer_it_is_connected_anew(recorder):
    source = Source(Target(Path(recorder.data_dir)))
    first = source.ask(lambda connection: connection)
    with pytest.raises(Unreachable, match="no coordinator is running"):
        source.ask(lambda connection: connection.status())
    assert source.ask(lambda connection: connection) is not first
    source.close()


def test_threads_take_turns(recorder):
    recorder.run("run", rounds=3)
    source = Source(Target(Path(recorder.data_dir)))
    counts = []

    def read():
        for _ in range(5):
            counts.append(len(source.ask(lambda c: c.rounds("run"))))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == [3] * 20
    source.close()


def test_a_port_that_is_taken_is_said():
    with listen(0) as taken, pytest.raises(CoveyError, match=r"--port 0 takes any free port"):
        listen(taken.getsockname()[1])
