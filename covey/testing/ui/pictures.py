"""The pictures of the documentation, of a real federation with a drill in it.

python -m covey.testing.ui.pictures docs
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from covey.testing.federation import Federation
from covey.testing.launch.ports import free_addresses
from covey.testing.ui.browser import enter, looking, served

RUN = """
name = "digits"
seed = 7
[task]
name = "digits"
[data]
partition = "iid"
[training]
learning_rate = 0.05
batch_size = 32
[aggregation]
name = "multi-krum"
[aggregation.options]
f = 1
[rounds]
count = 400
min_nodes = 5
[stop]
target = 0.99
"""
GOSSIP = """
name = "neighbours"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 2
learning_rate = 0.05
[gossip]
steps = 20
min_nodes = 5
"""
NODES = 5
ROUNDS = 40
"""So many are done when the pictures are taken: the run goes on."""
WAIT_MS = 120_000
SIZES = {"run": (1180, 1180), "round": (1180, 560), "gossip": (1180, 1400), "nodes": (1180, 420)}


def take(folder: Path) -> list[Path]:
    """Write `ui-run.png`, `ui-round.png`, `ui-gossip.png` and `ui-nodes.png` (dark) into a folder."""
    with tempfile.TemporaryDirectory() as name, Federation(Path(name), NODES, fork=False) as federation:
        federation.start_coordinator()
        federation.join()
        for index, address in enumerate(free_addresses(NODES)):
            federation.start_node(index, options=["--peer-listen", address])
        federation.wait_connected(NODES)
        gossip = federation.submit(GOSSIP)
        federation.wait(gossip, timeout_s=600)
        federation.stop_node(NODES - 1)
        federation.start_node(NODES - 1, options=["--attack", "sign-flip"])
        federation.wait_connected(NODES)
        run = federation.submit(RUN)
        federation.wait_round(run, ROUNDS, 600)
        views = {"run": f"run/{run}", "round": f"run/{run}/round/{ROUNDS}", "nodes": "nodes", "gossip": f"run/{gossip}"}
        with served("--data-dir", federation.coordinator_dir) as address:
            return [_picture(folder, kind, address, view) for kind, view in views.items()]


def _picture(folder: Path, kind: str, address: str, view: str) -> Path:
    path = folder / f"ui-{kind}.png"
    with looking(SIZES[kind], dark=kind == "nodes") as looked:
        page = looked.page
        page.set_default_timeout(WAIT_MS)
        enter(page, address)
        page.goto(f"{address.partition('?')[0]}#/{view}")
        page.locator("main table tbody tr").first.wait_for()
        page.locator("#coordinator[data-live=true]").wait_for()
        if kind in ("run", "gossip"):
            page.locator("figure canvas").nth(1).wait_for()
        page.screenshot(path=path)
    return path


if __name__ == "__main__":
    for picture in take(Path(sys.argv[1])):
        print(f"{picture}: {picture.stat().st_size} bytes")
