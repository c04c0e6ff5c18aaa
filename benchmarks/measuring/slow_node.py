"""What a node that is slower than the others costs those: real nodes, beside as many of which none is slow.

    python -m benchmarks.measuring.slow_node
    python -m benchmarks.measuring.slow_node --nodes 8 --slower 10 --steps 12 --pace 1 --json

In lock step, overlapped by one step and by three, and asynchronous. Both runs take place at the same time; trainings
take `--pace` seconds without using the processor, so that a busy machine is not what is measured. Prints a table in
Markdown with the distance of both consensus models, or with `--json` a line for each protocol. Exit code 1 if a run
failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.measuring.gossip import LEFT_OUT, step_seconds
from covey.errors import CoveyError
from covey.testing.chaos.gossip.arena import allow_paced
from covey.testing.chaos.gossip.learned import learned
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes
from covey.testing.launch import forks

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
        distance: Of the consensus models of both runs, in the Euclidean norm; 0 where they are the same to the bit.
    """

    setting: str
    others_s: float
    slow_s: float
    undisturbed_s: float
    is_exact: bool
    distance: float

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
        mine, other = (learned([nodes.folder(index) for index in range(work.nodes)]) for nodes in runs)
    return SlowMeasured(setting, fmean(others), slow, fmean(undisturbed), is_exact, mine.distance(other))


def row(measured: SlowMeasured) -> str:
    """A line of the table."""
    seconds = [f"{each:.2f}" for each in (measured.others_s, measured.undisturbed_s)]
    mass = "exact" if measured.is_exact else "NOT EXACT"
    return f"| {' | '.join([measured.setting, *seconds, f'{measured.ratio:.2f}', mass, f'{measured.distance:.2g}'])} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.slow_node",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=4, help="the slow one among them (default 4)")
    parser.add_argument("--steps", type=int, default=12, help="of each node (default 12)")
    parser.add_argument("--pace", type=float, default=1.0, metavar="SECONDS", help="of a training (default 1)")
    parser.add_argument("--slower", type=float, default=10.0, metavar="TIMES", help="of the slow node (default 10)")
    parser.add_argument("--only", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS), metavar="PROTOCOL")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for each run")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.nodes < 2 or given.steps < LEFT_OUT + 2 or given.slower < 1:
        parser.error(f"needs at least 2 nodes, {LEFT_OUT + 2} steps, and a node that is not faster than the others")
    forks.enable()  # what is measured is not how a daemon starts
    if not given.json:
        print(
            "| [gossip] | others: s a step | no slow node | times | mass | distance |\n" + "|---" * 6 + "|", flush=True
        )
    for setting in given.only:
        try:
            work = SlowWork(given.nodes, given.steps, given.pace, given.slower, given.timeout)
            measured = measure_slow(setting, work)
        except (CoveyError, TimeoutError) as error:
            print(f"error: {setting}: {error}", file=sys.stderr)
            return 1
        print(json.dumps(measured.as_json()) if given.json else row(measured), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
