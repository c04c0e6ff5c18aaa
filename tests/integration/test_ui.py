"""The page in a real Chromium: a federation as it goes, a coordinator that is killed and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from covey.testing.federation import Federation
from covey.testing.launch.ports import free_addresses
from covey.testing.ui.browser import Looked, chromium, enter, looking, served
from tests.integration.specs import spec

pytest.importorskip("playwright", reason="the browser is driven by playwright")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium here: apt-get install chromium"),
]
WAIT_MS = 90_000
SLOW = spec("slow", task="synthetic", options="train_seconds = 0.2", rounds=100_000, training="local_epochs = 1")

GOSSIP = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 2
learning_rate = 0.1
[gossip]
steps = 4
min_nodes = 2
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("ui"), nodes=2) as made:
        made.start_coordinator()
        made.join()
        for index, address in enumerate(free_addresses(2)):
            made.start_node(index, options=["--peer-listen", address])
        made.wait_connected(2)
        yield made


@pytest.fixture(scope="module")
def looked() -> Iterator[Looked]:
    with looking() as looked:
        looked.page.set_default_timeout(WAIT_MS)
        yield looked


def done(page: Any) -> int:
    """How many rounds the page says are done."""
    text = page.locator("dd progress").get_attribute("aria-label") or ""
    return int(text.split()[0].replace(",", ""))


def wait_done(page: Any, rounds: int) -> None:
    page.wait_for_function(
        "rounds => parseInt((document.querySelector('dd progress')?.getAttribute('aria-label') ?? '0')"
        ".replace(',', '')) >= rounds",
        arg=rounds,
        timeout=WAIT_MS,
    )


def test_it_shows_a_run_as_it_goes_and_goes_on_after_a_kill(federation: Federation, looked: Looked) -> None:
    page = looked.page
    with served("--data-dir", federation.coordinator_dir) as address:
        # A run is started from the page.
        enter(page, address)
        page.get_by_role("link", name="Start a run").click()
        page.get_by_label("Its specification").fill(SLOW.replace("min_nodes = 2", "min_nodes = two"))
        page.get_by_role("button", name="Submit").click()
        page.locator("#confirm-yes").click()
        page.get_by_text("this is no TOML").wait_for()
        page.get_by_label("Its specification").fill(SLOW)
        page.get_by_role("button", name="Submit").click()
        page.locator("#confirm-yes").click()
        page.get_by_role("heading", name="slow").wait_for()
        wait_done(page, 2)
        run = page.url.rpartition("/")[2]
        page.get_by_role("table", name="what the nodes do now").get_by_text("n1").wait_for()
        page.get_by_role("region", name="rounds from").get_by_text("2 accepted").first.wait_for()
        assert page.locator("figure canvas").count() > 0

        # The coordinator is killed: the page says so, shows the record, and goes on by itself.
        federation.kill_coordinator()
        page.locator("#banner").get_by_text("no coordinator is running").wait_for()
        page.get_by_text("interrupted").first.wait_for()
        before = done(page)
        federation.start_coordinator()
        page.locator("#banner").get_by_text("the coordinator answers again").wait_for()
        wait_done(page, before + 2)

        # A round, a node, and the run's end, which is asked for twice.
        page.goto(f"{address.partition('?')[0]}#/run/{run}/round/1")
        answers = page.get_by_role("table", name="answers by node")
        answers.get_by_text("accepted").first.wait_for()
        assert answers.get_by_role("link").all_inner_texts() == ["n0", "n1"]
        page.goto(f"{address.partition('?')[0]}#/nodes")
        page.get_by_role("table", name="nodes").get_by_text("connected").first.wait_for()
        page.goto(f"{address.partition('?')[0]}#/run/{run}")
        page.get_by_role("button", name="Stop the run").click()
        page.get_by_role("button", name="Cancel").click()
        assert federation.show(run)["state"] == "running"
        assert page.evaluate("document.activeElement.textContent") == "Stop the run"  # whoever types goes on there
        page.keyboard.press("Enter")
        page.locator("#confirm-yes").click()
        page.locator("dd .badge").get_by_text("stopped").wait_for()
        assert federation.show(run)["state"] == "stopped"

        # A new run goes on with its model.
        page.get_by_label("rounds more").fill("1")
        page.get_by_role("button", name="Continue").click()
        page.locator("#confirm-yes").click()
        page.locator("dd .badge").get_by_text("completed").wait_for()
        assert page.url.rpartition("/")[2] != run

        # What is signed is checked on demand.
        page.get_by_role("button", name="Check everything").click()
        page.get_by_text("agrees with what was signed").wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") != "BODY"
    page.locator("#banner").get_by_text("start it again with: covey ui").wait_for()
    assert looked.wrong == []
    assert all(url.startswith("http://127.0.0.1:") for url in looked.requests)


def test_a_gossip_run_shows_who_gave_whom_how_much(federation: Federation, looked: Looked) -> None:
    run, page = federation.submit(GOSSIP), looked.page
    federation.wait(run, timeout_s=120)
    with served("--data-dir", federation.coordinator_dir) as address:
        enter(page, address)
        page.goto(f"{address.partition('?')[0]}#/run/{run}")
        page.get_by_text("all accounted for").wait_for()
        page.locator("svg.graph path.edge").nth(1).wait_for()
        page.get_by_role("table", name="nodes of this run").get_by_text("completed").nth(1).wait_for()
        page.get_by_text("edges as a table").click()
        edges = page.get_by_role("table", name="what went along each edge")
        assert edges.locator("tbody tr").count() == page.locator("svg.graph path.edge").count() == 2
        page.locator("figure canvas").first.wait_for()


def test_a_node_is_evicted_once_that_is_confirmed(federation: Federation, looked: Looked) -> None:
    with served("--data-dir", federation.coordinator_dir) as address:
        enter(looked.page, address)
        looked.page.goto(f"{address.partition('?')[0]}#/node/n1")
        memory = looked.page.locator("dl > div").filter(has=looked.page.get_by_text("memory", exact=True))
        memory.locator("dd").get_by_text("GB").wait_for()
        looked.page.get_by_role("button", name="Evict").click()
        looked.page.locator("#confirm-yes").click()
        looked.page.locator("dd .badge").get_by_text("evicted").wait_for()
    assert {node["node"]: node["state"] for node in federation.admin.nodes()} == {"n0": "connected", "n1": "evicted"}
