"""Metrics of real daemons: what a scrape shows is what the record says."""

from __future__ import annotations

import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections import Counter
from urllib.parse import urlsplit

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from covey.coordinator.config import CoordinatorConfig
from covey.testing.federation import Federation
from covey.testing.launch.processes import wait_until
from tests.integration.specs import BIG, async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ON = ["--metrics", "127.0.0.1:0"]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scrape:
    """One answer of `/metrics`."""

    def __init__(self, url, context=None):
        with urllib.request.urlopen(url, timeout=20, context=context) as answer:
            self.families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
        self.samples = {
            (s.name, frozenset(s.labels.items())): s.value for f in self.families.values() for s in f.samples
        }

    def get(self, name, /, **labels):
        return self.samples.get((name, frozenset(labels.items())))

    def all(self, name, key):
        return {dict(labels)[key]: value for (found, labels), value in self.samples.items() if found == name}


def coordinator_url(federation):
    return json.loads((federation.coordinator_dir / "coordinator.json").read_text())["metrics"]


def node_url(federation, index):
    """From the node's log, of its newest start."""
    log = federation.root / "logs" / f"{federation.names[index]}.log"
    found = []

    def announced():
        found[:] = re.findall(r"url=(\S+/metrics)", log.read_text())
        return bool(found)

    assert wait_until(announced, 60.0)
    return found[-1]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Two nodes and a coordinator that can be scraped; each test leaves them running."""
    with Federation(tmp_path_factory.mktemp("metrics"), nodes=2) as made:
        made.start_coordinator(options=ON)
        made.join()
        for index in range(2):
            made.start_node(index, options=ON)
        made.wait_connected(2)
        yield made


def verdicts(federation, run):
    """(node, verdict) to how often, as the record has it."""
    return Counter(
        (update["node"], update["verdict"])
        for one in federation.rounds(run)
        for update in json.loads(
            federation.cli("round", "show", run, one["round"], "--data-dir", federation.coordinator_dir, "--json")
        )["updates"]
    )


def labelled(scrape, name, *keys):
    return {
        tuple(dict(labels)[key] for key in keys): value
        for (found, labels), value in scrape.samples.items()
        if found == name
    }


def grown(before, after, name, *keys):
    earlier = labelled(before, name, *keys)
    return {key: v - earlier.get(key, 0.0) for key, v in labelled(after, name, *keys).items() if v != earlier.get(key)}


# -- what is counted


@pytest.mark.parametrize("size", ["digits", "several chunks"])
def test_a_run_is_counted_as_it_is_recorded(federation, size):
    before = Scrape(coordinator_url(federation))
    run = federation.submit(spec("counted", **({} if size == "digits" else BIG)))
    federation.wait(run)
    after, rounds = Scrape(coordinator_url(federation)), federation.rounds(run)
    assert grown(before, after, "covey_rounds_total", "outcome") == {("committed",): 3.0}
    assert grown(before, after, "covey_updates_total", "node", "verdict") == verdicts(federation, run)
    assert grown(before, after, "covey_runs_total", "state") == {("completed",): 1.0}
    received = sum(grown(before, after, "covey_node_received_bytes_total", "node").values())
    sent = sum(grown(before, after, "covey_node_sent_bytes_total", "node").values())
    assert received == sum(one["bytes_received"] for one in rounds) > 0
    assert sent >= sum(one["bytes_sent"] for one in rounds) > 0  # and the last model, for evaluation
    assert grown(before, after, "covey_round_seconds_count") == {(): 3.0}
    seconds = grown(before, after, "covey_round_seconds_sum")[()]
    assert seconds == pytest.approx(sum(one["seconds"] for one in rounds), abs=0.01)
    times = after.get("covey_node_phase_seconds_count", node="n0", phase="invited")
    assert times >= 3
    for phase in ("collecting", "aggregating", "committing"):
        assert grown(before, after, "covey_round_phase_seconds_count", "phase")[phase,] == 3.0


def test_the_state_of_the_last_run_is_shown(federation):
    run = federation.submit(spec("shown"))
    metrics = federation.wait(run)["metrics"]
    labels = {"run": run, "name": "shown"}

    def waiting():
        return Scrape(coordinator_url(federation)).get("covey_run_waiting", **labels)

    federation.until(lambda: waiting() is None, 60, "the run has ended, and is shown as waiting")
    scrape = Scrape(coordinator_url(federation))
    assert scrape.get("covey_run_info", **labels, mode="rounds") == 1.0
    assert (scrape.get("covey_run_round", **labels), scrape.get("covey_run_rounds", **labels)) == (3.0, 3.0)
    known = {key[0]: v for key, v in labelled(scrape, "covey_run_metric", "metric", "run").items() if key[1] == run}
    assert known == pytest.approx(metrics)
    assert scrape.all("covey_node_connected", "node") == {"n0": 1.0, "n1": 1.0}
    assert scrape.get("covey_store_up") == scrape.get("covey_coordinator_state", state="running") == 1.0
    assert scrape.get("covey_files_bytes") > 0
    for name in ("covey_certificate_expiry_timestamp_seconds", "process_resident_memory_bytes"):
        assert scrape.get(name) > 0


def test_nodes_count_the_same(federation):
    urls = [node_url(federation, index) for index in range(2)]
    before, earlier = Scrape(coordinator_url(federation)), [Scrape(url) for url in urls]
    federation.wait(federation.submit(spec("both-sides")))
    after, later = Scrape(coordinator_url(federation)), [Scrape(url) for url in urls]
    sent = grown(before, after, "covey_node_received_bytes_total", "node")
    received = grown(before, after, "covey_node_sent_bytes_total", "node")
    for index, name in enumerate(federation.names):
        one = later[index]
        assert grown(earlier[index], one, "covey_work_updates_total", "outcome") == {("received",): 3.0}
        assert grown(earlier[index], one, "covey_work_sent_bytes_total") == {(): sent[name,]}
        assert grown(earlier[index], one, "covey_work_received_bytes_total")[()] <= received[name,]
        assert grown(earlier[index], one, "covey_work_phase_seconds_count", "phase")["training",] == 3.0
        assert grown(earlier[index], one, "covey_work_steps_total")[()] > 0
        assert one.get("covey_work_connected") == 1.0
        assert 0 < one.get("covey_work_training_loss") < 5
        assert one.get("covey_work_sessions_total") >= 1


def test_an_asynchronous_run_is_counted(federation):
    before = Scrape(coordinator_url(federation))
    run = federation.submit(async_spec("async", updates=20))
    federation.wait(run)
    after = Scrape(coordinator_url(federation))
    counted = grown(before, after, "covey_updates_total", "node", "verdict")
    recorded = verdicts(federation, run)
    assert {key: n for key, n in counted.items() if key[1] == "accepted"} == {
        key: n for key, n in recorded.items() if key[1] == "accepted"
    }
    assert grown(before, after, "covey_rounds_total", "outcome") == {("committed",): 20.0}
    assert grown(before, after, "covey_round_seconds_count") == {(): 20.0}
    labels = {"run": run, "name": "async"}
    assert after.get("covey_run_updates_decided", **labels) == after.get("covey_run_updates", **labels) == 20.0
    assert after.get("covey_run_round", **labels) == federation.show(run)["model_version"]
    assert after.get("covey_run_rounds", **labels) is None
    recorded_bytes = sum(one["bytes_received"] for one in federation.rounds(run))
    received = sum(grown(before, after, "covey_node_received_bytes_total", "node").values())
    assert received >= recorded_bytes > 0  # what came after the last decision has none


def test_the_formats_can_be_parsed(federation):
    for url in (coordinator_url(federation), node_url(federation, 0)):
        request = urllib.request.Request(url, headers={"Accept": OPENMETRICS})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            text = answer.read().decode()
        names = {family.name for family in openmetrics(text)}
        assert "covey_build_info" in names
        assert not re.search(r"_created\b", text)


def test_waiting_queued_and_paused_are_shown(federation):
    operate = ("--data-dir", federation.coordinator_dir)
    federation.cli("coordinator", "pause", *operate)
    # As many as are taken care of at once, and one more.
    runs = [federation.submit(spec(f"waits-{index}")) for index in range(CoordinatorConfig.max_runs + 1)]

    def seen():
        scrape = Scrape(coordinator_url(federation))
        waiting = scrape.get("covey_run_waiting", run=runs[0], name="waits-0")
        return (waiting, scrape.get("covey_runs_queued")) == (1.0, 1.0)

    federation.until(seen, 60.0, "the waiting and the queued run were not shown")
    assert Scrape(coordinator_url(federation)).get("covey_coordinator_state", state="paused") == 1.0
    federation.cli("coordinator", "resume", *operate)
    for run in runs:
        federation.wait(run)
    federation.until(
        lambda: Scrape(coordinator_url(federation)).get("covey_runs_queued") == 0.0, 60.0, "the queue stayed"
    )


# -- who comes and goes


def test_a_killed_node_is_shown_as_away_until_it_is_back(federation):
    url = coordinator_url(federation)
    sessions = Scrape(url).get("covey_node_sessions_total", node="n1")
    federation.kill_node(1)
    federation.until(
        lambda: Scrape(url).get("covey_node_connected", node="n1") == 0.0, 60.0, "the node was not shown as away"
    )
    away = Scrape(url)
    assert away.all("covey_nodes", "state") == {"connected": 1.0, "away": 1.0, "evicted": 0.0}
    assert away.get("covey_node_certificate_expiry_timestamp_seconds", node="n1") is None
    federation.start_node(1, options=ON)
    federation.wait_connected(2)
    back = Scrape(url)
    assert back.get("covey_node_connected", node="n1") == 1.0
    assert back.get("covey_node_sessions_total", node="n1") == sessions + 1


def test_a_killed_worker_is_counted(federation):
    url = coordinator_url(federation)
    before = Scrape(url).get("covey_worker_restarts_total")
    federation.kill_worker("coordinator")
    federation.wait(federation.submit(spec("new-worker", rounds=1)))
    assert Scrape(url).get("covey_worker_restarts_total") == before + 1


def test_after_a_restart_counters_begin_again_and_the_run_is_known(tmp_path):
    slow = {"options": "", "training": "", "rounds": 6}
    with Federation(tmp_path, nodes=2) as federation:
        federation.start_coordinator(options=ON)
        federation.join()
        for index in range(2):
            federation.start_node(index, options=ON)
        federation.wait_connected(2)
        run = federation.submit(spec("restarted", **slow))
        federation.wait_round(run, 2)
        work = Scrape(node_url(federation, 0))
        assert work.get("covey_work_connected") == 1.0
        federation.kill_coordinator()
        federation.until(
            lambda: Scrape(node_url(federation, 0)).get("covey_work_connected") == 0.0, 60.0, "the node saw nothing"
        )
        federation.start_coordinator(options=ON)
        url, before = coordinator_url(federation), federation.show(run)["rounds_committed"]
        federation.wait(run)
        scrape, labels = Scrape(url), {"run": run, "name": "restarted"}
        assert scrape.get("covey_run_round", **labels) == 6.0
        assert scrape.get("covey_run_metric", **labels, metric="accuracy") is not None
        committed = scrape.get("covey_rounds_total", outcome="committed")
        assert 6 - before <= committed < 6
        assert scrape.get("covey_round_seconds_count") == committed
        assert Scrape(node_url(federation, 0)).get("covey_work_sessions_total") == 2.0


def test_an_enrolled_node_is_away_and_an_evicted_one_is_gone(tmp_path):
    with Federation(tmp_path, nodes=1) as federation:
        federation.start_coordinator(options=ON)
        url = coordinator_url(federation)
        federation.join()
        federation.until(
            lambda: Scrape(url).all("covey_node_connected", "node") == {"n0": 0.0}, 60.0, "the node was not shown"
        )
        daemon = federation.start_node(0)
        federation.wait_connected(1)
        daemon.may_die = True
        federation.cli("node", "evict", "--yes", "n0", "--data-dir", federation.coordinator_dir)
        federation.until(lambda: not daemon.alive, 60.0, "the evicted node stayed")
        scrape = Scrape(url)
        assert scrape.all("covey_nodes", "state") == {"connected": 0.0, "away": 0.0, "evicted": 1.0}
        assert not [labels for _, labels in scrape.samples if dict(labels).get("node") == "n0"]


# -- who may look


def test_over_the_network_an_auditor_is_needed(tmp_path):
    with Federation(tmp_path, nodes=1) as federation:
        anywhere = ["--metrics", "0.0.0.0:0"]
        federation.start_coordinator(options=anywhere)
        federation.join()
        federation.start_node(0, options=anywhere)
        federation.wait_connected(1)
        here, auditor = federation.coordinator_dir, tmp_path / "auditor"
        issue = ("coordinator", "admin", "issue", "prometheus", "--role", "auditor", "--to", auditor)
        federation.cli(*issue, "--data-dir", here)
        places = [(coordinator_url(federation), "coordinator.covey"), (node_url(federation, 0), "n0.node.covey")]

        def ask(place, identity):
            """The status, with the name checked that the certificate has, as Prometheus' `server_name` does."""
            url, name = place
            assert url.startswith("https://0.0.0.0:")
            port = urlsplit(url).port
            context = ssl.create_default_context(cafile=identity / "authority.crt")
            context.load_cert_chain(identity / "tls.crt", identity / "tls.key")
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
                context.wrap_socket(raw, server_hostname=name) as secured,
            ):
                secured.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                return secured.recv(12).decode().partition(" ")[2]

        for place in places:
            assert ask(place, auditor) == "200"
            assert ask(place, here / "admin") == "200"
            assert ask(place, federation.node_dir(0) / "identity") == "403"
            stranger = ssl.create_default_context(cafile=auditor / "authority.crt")
            stranger.check_hostname = False
            with pytest.raises((urllib.error.URLError, ssl.SSLError, OSError)):
                Scrape(place[0].replace("0.0.0.0", "127.0.0.1"), stranger)
        federation.cli("node", "evict", "--yes", "prometheus", "--data-dir", here)
        assert ask(places[0], auditor) == "403"


def test_off_by_default(tmp_path):
    with Federation(tmp_path, nodes=0) as federation:
        federation.start_coordinator()
        assert "metrics" not in json.loads((federation.coordinator_dir / "coordinator.json").read_text())


def test_a_port_in_use_stops_the_daemons_with_a_word(federation, tmp_path):
    taken = urlsplit(coordinator_url(federation)).netloc
    federation.stop_node(0)
    other = tmp_path / "other"
    starts = {
        "coordinator": ["--data-dir", other, "--listen", "127.0.0.1:0", "--enrol-listen", "127.0.0.1:0"],
        "node": ["--data-dir", federation.node_dir(0)],
    }
    for role, options in starts.items():
        with pytest.raises(Exception, match=r"exit code 1\n(.|\n)*cannot be served on.*in use.*port 0 takes any"):
            federation.cli(role, "start", *options, "--metrics", taken)
    federation.start_node(0, options=ON)
