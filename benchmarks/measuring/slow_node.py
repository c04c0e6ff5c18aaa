"""What a node that is slower than the others costs those: real nodes, beside as many of which none is slow."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.measuring.gossip import step_seconds
from covey.testing.chaos.gossip.arena import allow_paced
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes

SETTINGS = {
    "sgp, lock step": "",
    "sgp, overlap 1": "overlap = 1",
    "sgp, overlap 3": "overlap = 3\nmax_in_flight = 4",
    "agp": 'protocol = "agp"\nrate_correction = "none"\ntopology = { name = "random", options = { peers = 1 } }',
}
"""[gossip] of each row."""
SPEC = """
name = "slow"
mode = "gossip"
[task]
name = "{path}"
options = {{ seconds = {pace_s} }}
[gossip]
steps = {steps}
min_nodes = {nodes}
{setting}
"""


@dataclass(frozen=True)
class SlowWork:
    """What is measured.

    Attributes:
        nodes: How many, the slow one among them.
        steps: Of each node.
        pace_s: How long a training takes at least, without using the processor.
        slower: How many times as long it takes on the slow node.
        timeout_s: For each run.
    """

    nodes: int = 4
    steps: int = 12
    pace_s: float = 1.0
    slower: float = 10.0
    timeout_s: float = 600.0


@dataclass(frozen=True)
class SlowMeasured:
    """Mean seconds from one publication to the next, over steps and nodes; both runs took place at the same time.

    Attributes:
        setting: A key of `SETTINGS`.
        others_s: Of the nodes beside the slow one.
        slow_s: Of that.
        undisturbed_s: Of the same nodes as `others_s` in the run in which none is slow.
        is_exact: Whether all mass was there at the end.
    """

    setting: str
    others_s: float
    slow_s: float
    undisturbed_s: float
    is_exact: bool

    @property
    def ratio(self) -> float:
        """How many times as long a step of the others takes."""
        return self.others_s / self.undisturbed_s

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "ratio": self.ratio}


def measure_slow(setting: str, work: SlowWork) -> SlowMeasured:
    """Run both.

    Raises:
        CoveyError: A node failed; the message has the end of its log.
    """
    sizes = {"steps": work.steps, "pace_s": work.pace_s, "nodes": work.nodes}
    spec = SPEC.format(path=PACED, setting=SETTINGS[setting], **sizes)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="covey-slow-")))
        runs = [stack.enter_context(GossipNodes(root / name, spec, work.nodes)) for name in ("slow", "undisturbed")]
        for nodes in runs:
            allow_paced(nodes)
        with (runs[0].folder(work.nodes - 1) / "node.toml").open("a") as file:
            file.write(f"[data.options]\nslower = {work.slower}\n")
        for nodes in runs:
            nodes.start_all()
        for nodes in runs:
            nodes.wait(work.timeout_s)
        *others, slow = (step_seconds(runs[0].folder(index)) for index in range(work.nodes))
        undisturbed = [step_seconds(runs[1].folder(index)) for index in range(work.nodes - 1)]
        is_exact = bool(runs[0].audit()["exact"])
    return SlowMeasured(setting, fmean(others), slow, fmean(undisturbed), is_exact)
