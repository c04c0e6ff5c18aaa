"""Whether the coordinator's memory stays flat as nodes join: its peak at several numbers of nodes.

    python -m benchmarks.memory --nodes 4 8 16 --parameters 25000000
    python -m benchmarks.memory --nodes 16 --rule krum --f 3
    python -m benchmarks.memory --nodes 4 --parameters 250000000 --server-optimizer adam --rounds 2 --timeout 1800

Every node is a real daemon with its worker, so this machine must hold them all; a size that does not fit is
skipped, with the reason.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.measuring.federation import FLOAT_BYTES, Work, measure
from benchmarks.measuring.proc import available_memory_mb
from benchmarks.rounds import add_exchange, console

NODE_MB = 350
"""A node daemon and its worker before they hold any model."""
MODELS_IN_A_NODE = 3
FILES_A_NODE = 6
"""Model-sized files on the disk for each node: base, update, the coordinator's copy, recycled ones."""
ROUNDS = 3


@dataclass(frozen=True)
class Peak:
    """The coordinator (daemon and worker) at one number of nodes; memory in 1e6 bytes.

    Attributes:
        nodes: How many there were.
        idle_mb: Before the run.
        peak_mb: The highest during it.
        models: Peak over idle, in sizes of the model.
        skipped: Why it was not measured; empty if it was.
    """

    nodes: int
    idle_mb: float = 0.0
    peak_mb: float = 0.0
    models: float = 0.0
    skipped: str = ""


def too_large(nodes: int, model_mb: float, memory_mb: float, disk_mb: float) -> str:
    """Why so many nodes do not fit into this memory and disk (1e6 bytes); empty if they do."""
    memory = (nodes + 1) * (NODE_MB + MODELS_IN_A_NODE * model_mb)
    if memory > memory_mb:
        return f"needs about {memory:,.0f} MB of memory, {memory_mb:,.0f} MB are available"
    disk = (nodes + 1) * FILES_A_NODE * model_mb
    if disk > disk_mb:
        return f"needs about {disk:,.0f} MB in {tempfile.gettempdir()}, {disk_mb:,.0f} MB are free (set TMPDIR)"
    return ""


def measure_peak(work: Work) -> Peak:
    """Run a few rounds of this work."""
    nodes, model_mb = work.nodes, work.model_bytes / 1e6
    free_mb = shutil.disk_usage(tempfile.gettempdir()).free / 1e6
    reason = too_large(nodes, model_mb, available_memory_mb(), free_mb)
    if reason:
        return Peak(nodes, skipped=reason)
    rss_mb = measure(work).rss_mb
    idle, peak = rss_mb["coordinator_idle"], rss_mb["coordinator_peak"]
    return Peak(nodes, idle, peak, round((peak - idle) / model_mb, 3))


def _table(peaks: Sequence[Peak], model_mb: float) -> Table:
    title = f"coordinator daemon and worker, model of {model_mb:,.0f} MB (aim: idle + at most 2 models, flat)"
    table = Table("nodes", "idle MB", "peak MB", "models over idle", "", title=title)
    for peak in peaks:
        if peak.skipped:
            table.add_row(str(peak.nodes), "", "", "", f"skipped: {peak.skipped}")
        else:
            table.add_row(str(peak.nodes), f"{peak.idle_mb:,.0f}", f"{peak.peak_mb:,.0f}", f"{peak.models:.2f}", "")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--parameters", type=int, default=25_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for each run")
    add_exchange(parser)
    parser.add_argument("--json", action="store_true", help="one object with a list `peaks`")
    given = parser.parse_args(arguments)
    kind = {"rule": given.rule, "f": given.f, "codec": given.codec, "server_optimizer": given.server_optimizer}
    size = {"parameters": given.parameters, "rounds": given.rounds, "floor": False, "timeout_s": given.timeout}
    peaks = [measure_peak(Work(nodes=nodes, **size, **kind)) for nodes in given.nodes]
    if given.json:
        print(json.dumps({"parameters": given.parameters, "peaks": [vars(peak) for peak in peaks]}))
    else:
        console().print(_table(peaks, given.parameters * FLOAT_BYTES / 1e6))
    return 0


if __name__ == "__main__":
    sys.exit(main())
