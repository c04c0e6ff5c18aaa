"""The page's process: it ends soon whatever is asked, and gives its token to nobody else."""

from __future__ import annotations

import asyncio
import logging
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from covey.client.connection import Connection
from covey.client.target import Target
from covey.ui import server
from covey.ui.guard import Secrets
from covey.ui.server import PageServer, listen

WAIT_S = 60.0


@pytest.mark.parametrize("aside", [False, True], ids=["ask", "aside"])
def test_it_ends_while_a_question_is_open(source, recorder, monkeypatch, caplog, aside):
    recorder.run("run", rounds=1)
    began = threading.Event()

    async def for_ever():
        began.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(Connection, "run_log" if aside else "events", lambda self, *_, **__: self._loop.run(for_ever()))
    monkeypatch.setattr(server, "STOP_S", 0.2)
    monkeypatch.setitem(server.SETTINGS, "timeout_graceful_shutdown", WAIT_S)
    known, answers = Secrets(), []
    listener = listen(0)
    port = listener.getsockname()[1]
    page = PageServer(source, port, known)

    def ask():
        path = "runs/run/log" if aside else "events"
        cookie = {"cookie": f"covey-ui-{port}={known.session}"}
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", headers=cookie))
        except urllib.error.HTTPError as error:
            answers.append((error.code, "covey ui is ending" in error.read().decode()))

    serving = threading.Thread(target=page.run, kwargs={"sockets": [listener]}, daemon=True)
    asking = threading.Thread(target=ask, daemon=True)
    with caplog.at_level(logging.WARNING):
        serving.start()
        asking.start()
        assert began.wait(WAIT_S)
        page.should_exit = True
        serving.join(WAIT_S)
        assert not serving.is_alive()
        asking.join(WAIT_S)
    assert answers == [(503, True)]
    assert caplog.records == []


def test_the_browser_is_told_a_private_file_and_not_the_token(recorder, monkeypatch):
    told, printed = list[str](), list[str]()
    opened = threading.Event()

    class Opens:
        def open(self, address):
            told.append(address)
            opened.set()

    def run(self, sockets):
        assert opened.wait(WAIT_S)
        file = Path(urlsplit(told[0]).path)
        seen.append((stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode), file.read_text()))

    seen = list[tuple[int, int, str]]()
    monkeypatch.setattr(server, "webbrowser", Opens())
    monkeypatch.setattr(server, "has_screen", lambda: True)
    monkeypatch.setattr(PageServer, "run", run)
    server.serve(Target(recorder.data_dir), 0, printed.append, opens=True)
    (mode, folder_mode, text), token = seen[0], printed[0].partition("token=")[2]
    assert (mode, folder_mode, printed[0] in text) == (0o600, 0o700, True)
    assert (told[0].startswith("file:///"), token in told[0]) == (True, False)
    assert not Path(urlsplit(told[0]).path).parent.exists()
