"""Memory of gossip nodes by protocol, beside that of a node which trains alone.

    python -m benchmarks.measuring.gossip_memory --page docs/gossip.md
    python -m benchmarks.measuring.gossip_memory --parameters 5000000 --only sgp choco

Real nodes, daemon and worker: the largest private memory of any of them, sampled every 50 ms, as models. What counts is
how much more that is than of the same task on a node that has no peers: it trains, and writes its model, and that is
all. Mapped files are no private memory. The load of the machine changes little of it.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.federation import FLOAT_BYTES
from benchmarks.measuring.gossip import Processes
from benchmarks.measuring.sampler import Sampler
from benchmarks.methods.page import update
from covey.client.specification import gossip_spec
from covey.gossip.protocols.runs import protocol_of
from covey.testing.gossip import GossipNodes

PART = "memory"
ALONE = "alone"
SPEC = """
name = "memory"
mode = "gossip"
seed = 1
[task]
name = "synthetic"
options = {{ parameters = {parameters} }}
{exchange}
[gossip]
steps = {steps}
min_nodes = {nodes}
{gossip}
"""
MH = 'mixing = { name = "metropolis-hastings" }\n'
ALL, RING = 'topology = { name = "complete" }\n', 'topology = { name = "ring" }\n'
SIGNS = '[exchange]\ncodec = "scaled-sign"'


@dataclass(frozen=True)
class MemoryWork:
    """A run whose memory is measured.

    Attributes:
        gossip: Lines of its [gossip].
        nodes: How many.
        exchange: Its [exchange], whole.
    """

    gossip: str
    nodes: int = 4
    exchange: str = ""

    def spec_toml(self, parameters: int, steps: int) -> str:
        """Its specification."""
        return SPEC.format(
            parameters=parameters, steps=steps, nodes=self.nodes, gossip=self.gossip, exchange=self.exchange
        )


WORKS: Mapping[str, MemoryWork] = {
    ALONE: MemoryWork("", nodes=1),
    "sgp": MemoryWork(""),
    "agp": MemoryWork('protocol = "agp"'),
    "ad-psgd": MemoryWork('protocol = "ad-psgd"\ntopology = { name = "random", options = { peers = 1 } }'),
    "d-psgd": MemoryWork('protocol = "d-psgd"\n' + RING + MH),
    "epidemic": MemoryWork('protocol = "epidemic"\ntopology = { name = "random", options = { peers = 2 } }'),
    "gradient-tracking": MemoryWork('protocol = "gradient-tracking"'),
    "noloco": MemoryWork('protocol = "noloco"\ntopology = { name = "matching" }'),
    "choco": MemoryWork('protocol = "choco"\n' + RING + MH, exchange=SIGNS),
    "clipped-gossip": MemoryWork('protocol = "clipped-gossip"\n' + ALL + MH),
    "trimmed-mean": MemoryWork('protocol = "trimmed-mean"\n' + ALL),
    "nearest-neighbour-averaging": MemoryWork('protocol = "nearest-neighbour-averaging"\n' + ALL, nodes=7),
}


@dataclass(frozen=True)
class Peaks:
    """The largest private memory of a daemon and of a worker, in models."""

    daemon: float
    worker: float

    @property
    def whole(self) -> float:
        """Of a node: at most both together."""
        return self.daemon + self.worker


def measure(work: MemoryWork, parameters: int, steps: int, timeout_s: float) -> Peaks:
    """Run it on real nodes.

    Raises:
        CoveyError: A node failed; the message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="covey-memory-") as root:
        spec = work.spec_toml(parameters, steps)
        with GossipNodes(Path(root), spec, nodes=work.nodes) as nodes, Sampler(Processes(nodes)) as sampler:
            nodes.start_all()
            nodes.wait(timeout_s)
    model_mb = FLOAT_BYTES * parameters / 1e6
    daemon = max(sample.node.private_mb for sample in sampler.samples)
    worker = max(sample.worker.private_mb for sample in sampler.samples)
    return Peaks(daemon / model_mb, worker / model_mb)


def declared(name: str, parameters: int, steps: int) -> float:
    """What a protocol declares, in models; NaN: nothing."""
    models = protocol_of(gossip_spec(WORKS[name].spec_toml(parameters, steps)).gossip).extra_models
    return math.nan if models is None else models


def report(peaks: Mapping[str, Peaks], parameters: int, steps: int) -> list[str]:
    """The table as Markdown."""
    alone = peaks[ALONE]
    lines = [f"Models of {FLOAT_BYTES * parameters / 1e6:,.0f} MB, {steps} steps, peaks in models:", ""]
    lines += ["| | nodes | daemon | worker | more than alone | declared |", "|---|---|---|---|---|---|"]
    for name, peak in peaks.items():
        more = (
            ["", ""] if name == ALONE else [f"{peak.whole - alone.whole:.2f}", f"{declared(name, parameters, steps):g}"]
        )
        cells = [name, str(WORKS[name].nodes), f"{peak.daemon:.2f}", f"{peak.worker:.2f}", *more]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 where a protocol takes more than it declares."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.gossip_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parameters", type=int, default=25_000_000, help="float32 values of the model")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=[name for name in WORKS if name != ALONE], metavar="PROTOCOL")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS", help="for each run")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"replace the part {PART} of this page")
    given = parser.parse_args(arguments)
    peaks: dict[str, Peaks] = {}
    for name in [ALONE, *(given.only or [name for name in WORKS if name != ALONE])]:
        peaks[name] = measure(WORKS[name], given.parameters, given.steps, given.timeout)
        print(name, peaks[name], file=sys.stderr, flush=True)
    lines = report(peaks, given.parameters, given.steps)
    print("\n".join(lines))
    if given.page:
        update(given.page, PART, lines)
    more = {name: peak.whole - peaks[ALONE].whole for name, peak in peaks.items() if name != ALONE}
    return int(any(value > declared(name, given.parameters, given.steps) for name, value in more.items()))


if __name__ == "__main__":
    sys.exit(main())
