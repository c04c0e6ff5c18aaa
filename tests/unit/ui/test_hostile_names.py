"""Names, metrics and reasons that are markup, in a real Chromium: they are shown as text, and no script runs."""

from __future__ import annotations

import re

import pytest

from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.storage.record.contract import EventRecord, NodeRecord, RunRecord, TokenRecord
from covey.testing.ui.browser import chromium, looking, served
from covey.ui.server import redirect

pytest.importorskip("playwright", reason="the browser is driven by playwright")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium here: apt-get install chromium"),
]
WAIT_MS = 90_000
NARROW = (390, 800)
INHERITED = "constructor"
"""What every object of JavaScript has."""
MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
SHOWN = re.compile("<img src=x")
VIEWS = ("run/one", "run/three", "run/one/round/1", "nodes", "node/eve", "events", "submit", "compare/one/two")


@pytest.fixture
def hostile(recorder):
    """The folder of a record in which whatever can be chosen by somebody else is markup."""
    recorder.store.add_token(TokenRecord("secret", "eve", "node", 1.0, 2.0))
    eve = NodeRecord(
        "eve", "node", "active", 1.0, signing_key=bytes(32), key_id="e" * 32, device=MARKUP, tasks=(MARKUP,)
    )
    recorder.store.redeem_token("secret", "e" * 32, b"", eve)
    recorder.enrol(INHERITED)
    recorder.run("two", rounds=1, nodes=(*recorder.NODES, INHERITED))
    spec = '{"evaluation":{"goal":"max","metric":"accuracy"},"task":{"name":%s},"stop":{"target":0.9}}'
    text = spec % f'"{MARKUP.replace(chr(34), chr(92) + chr(34))}"'
    recorder.store.add_run(RunRecord("one", MARKUP, "rounds", text, 7, "queued", MARKUP, 200.0))
    recorder.store.start_run("one", recorder.NODES, 0, "[]", recorder.version("one", 0), 201.0)
    recorder.open("one", 1)
    recorder.commit("one", 1, metrics={MARKUP: 0.5, "accuracy": 0.25, "x": f"no value: {MARKUP}"}, evaluated=True)
    text = text.replace('"goal":"max"', '"goal":"max","only":true')
    recorder.store.add_run(RunRecord("three", f"of {MARKUP}", "rounds", text, 7, "queued", "", 202.0))
    recorder.store.start_run("three", recorder.NODES, 0, "[]", recorder.version("three", 0), 203.0)
    recorder.open("three", 1)
    measured: dict[str, object] = {"evaluation/accuracy": [3.0, 4.0], "evaluation/alone/accuracy": [1.0, 4.0]}
    measured |= {f"evaluation/{MARKUP}": [1.0, 2.0], "evaluation/auc": f"no value: {MARKUP}"}
    recorder.commit("three", 1, measured=measured, metrics={f"nodes/{MARKUP}": 0.5})
    recorder.store.add_event(EventRecord(5.0, "drill-joined", "one", "eve", detail={"attack": MARKUP, MARKUP: MARKUP}))
    line = {"at": 1.0, "round": 1, "kind": "output", "text": f"site says {MARKUP}"}
    SiteLogs(recorder.data_dir / FOLDER).add("one", "ada", "all", [line], 2)
    return recorder.data_dir


def test_hostile_names_and_metrics_are_text(hostile, recorder):
    with looking() as looked, served("--data-dir", hostile) as address:
        page, base = looked.page, address.partition("?")[0]
        page.set_default_timeout(WAIT_MS)
        with redirect(address) as file:  # as a browser is told to
            page.goto(file.as_uri())
            page.wait_for_url(base)
        page.get_by_role("link", name=MARKUP, exact=True).wait_for()
        for view in VIEWS:
            page.goto(f"{base}#/{view}")
            page.locator("main h1, main h2").first.wait_for()
            if view != "submit":
                page.get_by_text(SHOWN).first.wait_for()
            for summary in page.locator("summary").all():
                summary.click()
            page.wait_for_load_state("networkidle")
        page.goto(f"{base}#/run/three")
        nodes = page.get_by_role("table", name="what each node measured")
        nodes.get_by_text("+0.5").nth(1).wait_for()
        assert nodes.get_by_text(SHOWN).count() >= 4
        page.goto(f"{base}#/run/two")
        named = page.get_by_role("table", name="what each node contributed").get_by_role("row", name=INHERITED)
        named.wait_for()
        assert named.get_by_text("drill:").count() == 0
        page.goto(f"{base}#/run/two/round/1")
        named = page.get_by_role("table", name="answers by node").get_by_role("row", name=INHERITED)
        named.wait_for()
        assert named.get_by_text("its share is capped").count() == 0
        page.goto(f"{base}#/%E0%A4%A")  # no text in UTF-8: the page begins where it always does
        page.get_by_role("link", name=MARKUP, exact=True).wait_for()
        page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
        page.goto(f"{base}#/run/one")
        page.get_by_role("heading", name="<img").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
        page.get_by_text("stops at: target 0.9, 0.25 at best").wait_for()
        page.get_by_text("Logs of its nodes").click()
        page.get_by_text("site says <img src=x").wait_for()
        page.get_by_label("Logs of its nodes: node").select_option("bob")
        page.get_by_text("bob has said nothing of its log").wait_for()
        page.get_by_text("What happened").click()
        happened = page.get_by_role("table", name="what happened")
        happened.get_by_text("drill-joined").wait_for()
        recorder.store.add_event(EventRecord(6.0, "came-later", "one", "eve"))
        happened.get_by_text("came-later").wait_for()  # what is open is read again
        assert page.evaluate("window.hacked === undefined")
        assert page.locator("main img, main script").count() == 0
        assert looked.wrong == []
