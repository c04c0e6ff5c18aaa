"""What each measured work is held against: the project's aims on two cores, and its peers' numbers there.

The peers' numbers were measured once on a machine with two cores and loopback, in their real deployment
modes: Flower 1.41, NVFlare 2.9, hivemind 1.1.12.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measuring.federation import Measured

NO_OP_PARAMETERS = 10_000
LARGE_BYTES = 20_000_000
"""From this size on a model dominates what a coordinator holds."""
MODELS_OVER_IDLE = 2.0


@dataclass(frozen=True)
class Line:
    """One line of the report: what was measured, what is aimed at, and what peers need for it."""

    name: str
    value: str
    aim: str = ""
    peers: str = ""
    met: bool | None = None


def report(measured: Measured) -> list[Line]:
    """The lines of a report, the most telling first."""
    lines = _digits(measured) if measured.work.task == "digits" else [_round(measured)]
    if measured.floor_median_s is not None:
        lines.append(_floor(measured, measured.floor_median_s))
    lines.append(_memory(measured))
    return lines + _plain(measured)


def _round(measured: Measured) -> Line:
    work, median = measured.work, measured.median_s
    value = f"{median:.4f} s (95 %: {measured.p95_s:.4f})"
    if (work.nodes, work.parameters) == (4, NO_OP_PARAMETERS):
        return Line("round, median", value, "<= 0.03 s", "NVFlare 2.5 s, Flower 6.5 s", median <= 0.03)
    if (work.nodes, work.parameters, work.tensors) == (4, 25_000_000, 1):
        return Line("round, median", value, "", "NVFlare 4.8 s, Flower 9.7 s, hivemind 1.8 s")
    if work.nodes == 2 and work.tensors > 1:
        return Line("round, median", value, "as with --tensors 1", "Flower 28 s (45 MB in 122 tensors)")
    return Line("round, median", value)


def _floor(measured: Measured, floor_s: float) -> Line:
    ratio = measured.median_s / floor_s
    large = measured.work.model_bytes >= LARGE_BYTES
    value = f"{floor_s:.4f} s; a round is {ratio:.2f} x that"
    return Line("floor, median", value, "<= 2 x" if large else "", "", ratio <= 2 if large else None)


def _memory(measured: Measured) -> Line:
    idle, peak = measured.rss_mb["coordinator_idle"], measured.rss_mb["coordinator_peak"]
    value = f"{peak:,.0f} MB, {peak - idle:,.0f} over idle"
    if measured.work.model_bytes < LARGE_BYTES:
        return Line("coordinator, peak memory", value)
    models = (peak - idle) / (measured.work.model_bytes / 1e6)
    aim, peers = f"idle + {MODELS_OVER_IDLE:g} models", "at 4 x 100 MB: Flower 2,600 MB, NVFlare 2,800 MB"
    return Line("coordinator, peak memory", f"{value} ({models:.2f} models)", aim, peers, models <= MODELS_OVER_IDLE)


def _digits(measured: Measured) -> list[Line]:
    rounds = len(measured.times_s) + 1
    wall, accuracy = measured.wall_s, measured.metrics.get("accuracy", 0.0)
    as_aimed = (measured.work.nodes, rounds) == (4, 20)
    peers = "NVFlare 58 s, Flower 286 s, one process 1.3 s"
    return [
        Line(f"{rounds} rounds", f"{wall:.2f} s", "20 in 4 s", peers, wall <= 4.0 if as_aimed else None),
        Line("accuracy", f"{accuracy:.3f}", "0.92", "0.914, 0.922", accuracy >= 0.915 if as_aimed else None),
        Line("round, median", f"{measured.median_s:.4f} s (95 %: {measured.p95_s:.4f})"),
    ]


def _plain(measured: Measured) -> list[Line]:
    cpu = ", ".join(f"{role.replace('_', ' ')} {used:.3f}" for role, used in sorted(measured.cpu_s.items()))
    rss, floor_s = measured.rss_mb, measured.floor_cpu_s
    of_floor = (
        f"; {sum(measured.cpu_s.values()) / floor_s:.2f} x that of the floor ({floor_s:.3f} s)" if floor_s else ""
    )
    others = f"node {rss['node_peak']:,.0f} MB, worker {rss['worker_peak']:,.0f} MB"
    return [
        Line("other peaks", others),
        Line("coordinator, mapped files", f"{rss['mapped_mb']:,.0f} MB"),
        Line("start to first commit", f"{measured.startup_s:.2f} s"),
        Line("CPU a round", f"{sum(measured.cpu_s.values()):.3f} s ({cpu}){of_floor}"),
        Line("bytes a round", f"{measured.bytes_per_round / 1e6:,.2f} MB"),
    ]
