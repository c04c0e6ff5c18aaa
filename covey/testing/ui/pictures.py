"""The pictures of the documentation, of a real federation with a drill in it.

python -m covey.testing.ui.pictures docs
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from covey.testing.federation import Federation
from covey.testing.ui.browser import looking, served

SPEC = """
name = "digits"
seed = 7
[task]
name = "digits"
[data]
partition = "dirichlet"
[training]
learning_rate = 0.05
batch_size = 32
[aggregation]
name = "multi-krum"
[aggregation.options]
f = 1
[rounds]
count = 60
min_nodes = 5
"""
NODES = 5
ROUNDS = 40
"""So many are done when the pictures are taken: the run goes on."""
SIZE = (1180, 1000)
WAIT_MS = 120_000


def take(folder: Path) -> list[Path]:
    """Write `ui-run.png`, `ui-round.png` and `ui-dark.png` into a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="covey-pictures-") as name,
        Federation(Path(name), NODES, fork=False) as made,
    ):
        made.start_coordinator()
        made.join()
        for index in range(NODES):
            made.start_node(index, options=["--attack", "sign-flip"] if index == NODES - 1 else [])
        made.wait_connected(NODES)
        run = made.submit(SPEC)
        made.wait_round(run, ROUNDS, 600)
        views = {
            "ui-run": (f"run/{run}", False),
            "ui-round": (f"run/{run}/round/{ROUNDS}", False),
            "ui-dark": ("nodes", True),
        }
        with served("--data-dir", made.coordinator_dir) as address:
            return [_picture(folder / f"{file}.png", address, *view) for file, view in views.items()]


def _picture(path: Path, address: str, view: str, dark: bool) -> Path:
    with looking(SIZE, dark=dark) as looked:
        page = looked.page
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.goto(f"{address.partition('?')[0]}#/{view}")
        page.locator("main table tbody tr").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=path)
    return path


if __name__ == "__main__":
    for picture in take(Path(sys.argv[1])):
        print(f"{picture}: {picture.stat().st_size} bytes")
