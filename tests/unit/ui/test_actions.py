"""Changes that take long: others are answered meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from covey.client.connection import Connection
from covey.ui.app import make_app
from covey.ui.guard import ACTION

WAIT_S = 60.0


@pytest.mark.parametrize(
    ("method", "call", "path"), [("POST", "stop", "stop"), ("GET", "run_log", "log")], ids=["a change", "a log"]
)
def test_what_takes_long_holds_nobody_up(client, source, secrets, recorder, monkeypatch, method, call, path):
    recorder.run("run", rounds=1)
    others = TestClient(make_app(source, 7480, secrets), base_url=client.base_url, cookies=client.cookies)
    began, answered, read = threading.Event(), threading.Event(), Connection.run

    def slow(self, run, **_):
        began.set()
        assert answered.wait(2 * WAIT_S)
        return [] if call == "run_log" else read(self, run)

    monkeypatch.setattr(Connection, call, slow)
    headers = {"origin": "http://127.0.0.1:7480", ACTION: secrets.action}
    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(client.request, method, f"/api/runs/run/{path}", headers=headers)
        assert began.wait(WAIT_S)
        reading = pool.submit(others.get, "/api/runs")
        try:
            assert reading.result(WAIT_S).status_code == 200
        finally:
            answered.set()
        assert change.result(WAIT_S).status_code == 200
