"""What a notebook shows of a federation, a run and its progress: hostile names and reasons do nothing in it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from covey.client.connection import Connection
from covey.client.target import Target
from covey.client.values import Change, Run
from covey.coordinator.config import sqlite_url
from covey.library.federation import Federation
from covey.library.progress import progress_of
from covey.library.run import FederatedRun
from covey.storage.sql.store import open_store
from covey.testing.store.records import run_record

EVIL = '</b><script>alert("1")</script>'
RUN = Run(EVIL, EVIL, "rounds", EVIL, EVIL, rounds_committed=2, rounds=3, metrics={EVIL: 0.5, "accuracy": 0.25})


def test_a_federation_shows_its_newest_runs_without_a_coordinator(tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    store = open_store(sqlite_url(folder))
    for number in range(7):
        store.add_run(run_record(f"{number}aaa", name=f"{EVIL}{number}"))
    store.close()
    with Federation(Connection(Target(folder))) as federation:
        page = federation._repr_html_()
    assert "<script" not in page
    assert "nodes: none yet; no coordinator is running" in page
    assert page.count("<tr>") == 6
    assert "alert(&quot;1&quot;)&lt;/script&gt;6" in page


def test_a_federation_that_is_not_there_says_so(tmp_path: Path) -> None:
    federation = Federation(Connection(Target(tmp_path / EVIL.replace("/", ""))))
    page = federation._repr_html_()
    federation.close()
    assert "<script" not in page
    assert "no coordinator is running on" in page
    assert repr(federation).startswith("<federation at /")


def test_a_run_shows_how_far_it_is() -> None:
    page = FederatedRun(SimpleNamespace(), RUN)._repr_html_()  # type: ignore[arg-type]  # it is asked for nothing
    assert page.startswith('<progress value="2" max="3">')
    assert "<script" not in page
    assert "accuracy 0.25" in page


def test_the_bar_is_one_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)
    display = SimpleNamespace(HTML=str, display=lambda page, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()), display=display)
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    with progress_of(None) as show:
        show(Change(RUN))
        show(Change(RUN))
    assert len(shown) == 2
    assert '<progress value="2" max="3">' in shown[0]
    assert "<script" not in shown[0]
