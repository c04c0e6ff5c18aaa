"""What the page reads of a record at rest: pages of bounded size, and errors in words."""

from __future__ import annotations

import pytest

from covey.client.audit.verify import AuditReport
from covey.client.connection import Connection
from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.storage.record.contract import EventRecord, RunRecord
from covey.ui import readings

HOSTILE = '<img src=x onerror="document.title=1">'


def test_it_says_that_no_coordinator_runs(client, recorder, secrets):
    status = client.get("/api/status").json()
    assert (status["live"], status["coordinator"], status["action"]) == (False, None, secrets.action)
    assert str(recorder.data_dir) in status["message"]


def test_without_a_record_it_says_so_too(client, recorder):
    recorder.store.close()
    (recorder.data_dir / "covey.db").unlink()
    assert "no coordinator is running" in client.get("/api/status").json()["message"]
    answer = client.get("/api/runs")
    assert (answer.status_code, "covey.db" in answer.json()["error"]) == (404, True)


def test_runs_come_in_pages(client, recorder):
    for number in range(5):
        recorder.run(f"run-{number}", rounds=number)
    page = client.get("/api/runs", params={"limit": 2}).json()
    assert [run["run"] for run in page["runs"]] == ["run-4", "run-3"]
    assert (page["runs"][0]["done"], page["runs"][0]["whole"], page["runs"][0]["unit"]) == (4, 20, "rounds")
    assert "spec" not in page["runs"][0]
    page = client.get("/api/runs", params={"limit": 3, "before": page["next"]}).json()
    assert ([run["run"] for run in page["runs"]], page["next"]) == (["run-2", "run-1", "run-0"], "")


def test_a_run_with_what_its_nodes_did(client, recorder):
    recorder.run("run", rounds=3)
    recorder.store.add_event(EventRecord(5.0, "drill-joined", "run", "bob", detail={"attack": "alie"}))
    page = client.get("/api/runs/run").json()
    assert (page["run"]["state"], page["run"]["spec"]["rounds"]) == ("interrupted", {"count": 20})
    assert (page["coordinated"], page["privacy"]) == (True, None)
    page = client.get("/api/runs/run/nodes").json()
    assert [(item["node"], item["accepted"]) for item in page["contributions"]] == [("ada", 3), ("bob", 3)]
    assert (page["at_work"], page["drills"]) == ([], {"bob": "alie"})
    assert [(node["node"], node["state"]) for node in page["away"]] == [("ada", "away"), ("bob", "away")]
    assert page["verdicts"] == {node: [[n, "accepted"] for n in (1, 2, 3)] for node in ("ada", "bob")}


def test_statistics_that_will_never_come_are_not_announced(client, recorder):
    spec = '{"method":{"name":"statistics","options":{}},"rounds":{"count":3}}'
    recorder.store.add_run(RunRecord("run", "figures", "rounds", spec, 7, "queued", "", 100.0))
    recorder.store.start_run("run", recorder.NODES, 0, "[]", recorder.version("run", 0), 200.0)
    page = client.get("/api/runs/run/outcome").json()
    assert (page["kind"], page["records"], page["ended"]) == ("statistics", None, False)
    assert "its figures come with the last one" in page["why"]
    recorder.store.finish_run("run", "stopped", "by root", 300.0)
    page = client.get("/api/runs/run/outcome").json()
    assert (page["records"], page["ended"]) == (None, True)
    assert "is stopped: it ended before its last round" in page["why"]


def test_the_nodes_of_a_run_are_found_among_all_and_the_rest_is_counted(client, recorder, monkeypatch):
    monkeypatch.setattr(readings, "MOST", 3)
    names = tuple(f"zoe-{number}" for number in range(5))
    recorder.enrol("ada-1", "ada-2", *names)
    recorder.run("run", rounds=1, nodes=names)
    page = client.get("/api/runs/run/nodes").json()
    assert ([node["node"] for node in page["away"]], page["away_count"]) == (["zoe-0", "zoe-1", "zoe-2"], 5)
    assert (page["at_work"], page["at_work_count"]) == ([], 0)


def test_an_audit_is_made_anew_each_time(client, recorder, monkeypatch):
    recorder.run("run", rounds=1)
    reports = [AuditReport("run", 1, 2, 0, ("wrong",)), AuditReport("run", 1, 2, 0)]
    monkeypatch.setattr(Connection, "audit", lambda self, run: reports.pop())
    assert [client.get("/api/runs/run/audit").json()["ok"] for _ in range(2)] == [True, False]


def test_rounds_come_in_pages_the_newest_first(client, recorder):
    recorder.run("run", rounds=7)

    def page(**query):
        answer = client.get("/api/runs/run/rounds", params={"limit": 3, **query}).json()
        return [item["round"] for item in answer["rounds"]], answer["next"]

    assert page() == ([7, 6, 5], 5)
    assert page(before=5) == ([4, 3, 2], 2)
    assert page(before=2) == ([1], 0)
    assert page(before=1) == ([], 0)
    assert page(limit=0) == ([7], 7)


def test_a_round_with_its_numbers_among_the_others(client, recorder):
    recorder.run("run", rounds=2)
    page = client.get("/api/runs/run/rounds/2").json()
    assert [(update["node"], update["verdict"]) for update in page["updates"]] == [
        ("ada", "accepted"),
        ("bob", "accepted"),
    ]
    assert (page["next"], page["version"]["version"]) == ("", 2)
    assert [update["node"] for update in client.get("/api/runs/run/rounds/2?after=ada").json()["updates"]] == ["bob"]


def test_curves_are_thinned(client, recorder, monkeypatch):
    monkeypatch.setattr(readings, "POINTS", 10)
    recorder.run("run")
    for number in range(1, 31):
        recorder.open("run", number)
        recorder.commit("run", number, metrics={"accuracy": number / 30, "loss": 1 / number})
    page = client.get("/api/runs/run/curves").json()
    assert (page["names"], page["is_whole"], page["unit"]) == (["accuracy", "loss", "bytes"], True, "rounds")
    accuracy = page["charts"][0]["series"][0]
    assert (accuracy["x"][0], accuracy["x"][-1], 2 < len(accuracy["x"]) <= 10) == (1.0, 30.0, True)
    assert [chart["name"] for chart in client.get("/api/runs/run/curves?metric=loss").json()["charts"]] == ["loss"]
    assert client.get("/api/runs/run/curves?over=hours").status_code == 400


def test_nodes_events_and_logs(client, recorder):
    recorder.run("run", rounds=1)
    recorder.store.add_event(EventRecord(5.0, "drill-joined", "run", "bob", detail={"attack": HOSTILE}))
    first = client.get("/api/nodes", params={"limit": 1}).json()
    assert ([node["node"] for node in first["nodes"]], first["next"]) == (["ada"], "ada")
    second = client.get("/api/nodes", params={"after": "ada"}).json()
    assert ([(node["node"], node["drill"]) for node in second["nodes"]], second["next"]) == ([("bob", HOSTILE)], "")
    assert client.get("/api/node", params={"name": "bob"}).json()["events"][0]["detail"] == {"attack": HOSTILE}
    assert [event["kind"] for event in client.get("/api/events?limit=1").json()["events"]] == ["drill-joined"]
    assert {line["what"] for line in client.get("/api/runs/run/log").json()["lines"]} == {
        "drill-joined",
        "opened",
        "committed",
    }


def test_what_a_site_shares_of_its_log_comes_in_pages_from_the_newest_back(client, recorder):
    recorder.run("run", rounds=1)
    lines = [{"at": 1.0, "round": 1, "kind": "output", "text": f"{HOSTILE} {number}"} for number in range(300)]
    SiteLogs(recorder.data_dir / FOLDER).add("run", "ada", "failures", lines, 2)

    def page(node="ada", **query):
        answer = client.get("/api/runs/run/site-log", params={"node": node, **query}).json()
        return [line["text"].removeprefix(f"{HOSTILE} ") for line in answer["lines"]], answer["next"]

    newest, following = page(limit=2)
    assert newest == ["298", "299"]
    assert page(limit=2, before=following)[0] == ["296", "297"]
    assert len(page(limit=10_000)[0]) == readings.MOST
    texts, following = page(limit=200, before=page(limit=200)[1])
    assert (texts[0], texts[-1], following) == ("0", "99", 0)
    assert "nothing else" in client.get("/api/runs/run/site-log?node=ada").json()["explanation"]


@pytest.mark.parametrize(("sharing", "said"), [("none", "share_logs"), ("", "has said nothing"), ("all", "")])
def test_a_site_that_shares_nothing_is_explained(client, recorder, sharing, said):
    recorder.run("run", rounds=1)
    if sharing:
        SiteLogs(recorder.data_dir / FOLDER).add("run", "bob", sharing, [], 2)
    page = client.get("/api/runs/run/site-log?node=bob").json()
    assert (page["lines"], page["next"]) == ([], 0)
    assert said in page["explanation"] if said else page["explanation"] == ""


def test_the_runs_of_a_node_are_found_among_the_newest(client, recorder, monkeypatch):
    for number in range(3):
        recorder.run(f"run-{number}", nodes=("ada", "bob") if number != 1 else ("bob",))
    answer = client.get("/api/node/runs?name=ada").json()
    assert ([run["run"] for run in answer["runs"]], answer["more"]) == (["run-2", "run-0"], False)
    monkeypatch.setattr(readings, "LOOKED_RUNS", 2)
    answer = client.get("/api/node/runs?name=ada").json()
    assert ([run["run"] for run in answer["runs"]], answer["more"]) == (["run-2"], True)


def test_what_is_wrong_with_a_record_is_what_an_audit_says(client, recorder):
    recorder.run("run", rounds=1)
    (recorder.data_dir / "keys").mkdir()
    answer = client.get("/api/runs/run/audit")
    assert (answer.status_code, "keys" in answer.json()["error"]) == (403, True)


def test_two_runs_differ_in_keys(client, recorder):
    recorder.run("one")
    recorder.run("two")
    page = client.get("/api/differences", params={"first": "one", "second": "two"}).json()
    assert (page["first"]["run"], page["second"]["run"], page["differences"]) == ("one", "two", [])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/nothing", 404),
        ("/api/runs/nothing/curves", 404),
        ("/api/runs/nothing/rounds", 404),
        ("/api/runs/run/rounds/99", 404),
        ("/api/runs/run/rounds/x", 404),
        ("/api/runs/run/rounds?limit=-1", 400),
        ("/api/runs/run/rounds?before=1e9", 400),
        ("/api/runs/run/rounds?before=" + 300 * "9", 400),
        ("/api/runs?before=" + 300 * "x", 400),
        ("/api/node?name=nobody", 404),
        ("/api/runs/run/site-log?node=nobody", 404),
        ("/api/runs/nothing/site-log?node=ada", 404),
        ("/api/nothing", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_what_cannot_be_answered_is_said_in_words(client, recorder, path, status):
    recorder.run("run", rounds=1)
    answer = client.get(path)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty"),
        ("/etc/passwd", "no TOML"),
        ("[task]", "no key has a value"),
        ("a = ", "no TOML"),
        ("name = 3", "name"),
    ],
)
def test_a_specification_is_text_never_a_file_s_name(client, secrets, text, wrong):
    headers = {"origin": "http://127.0.0.1:7480", "x-covey-action": secrets.action}
    answer = client.post("/api/submit", content=text, headers=headers)
    assert (answer.status_code, wrong in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize("rounds", ["", "0", "-1", "1e9", "ten", "9999999999"])
def test_how_many_rounds_more_is_a_number(client, secrets, recorder, rounds):
    recorder.run("run", rounds=1)
    headers = {"origin": "http://127.0.0.1:7480", "x-covey-action": secrets.action}
    answer = client.post("/api/runs/run/continue", content=rounds, headers=headers)
    assert (answer.status_code, "how many rounds" in answer.json()["error"]) == (422, True)


def test_a_body_without_end_is_refused(client, secrets):
    headers = {"origin": "http://127.0.0.1:7480", "x-covey-action": secrets.action}
    answer = client.post("/api/evict", content=b"x" * (1 << 20) + b"x", headers=headers)
    assert answer.status_code == 413
