"""What is measured of the memory of protocols, and what is said of it."""

from __future__ import annotations

import pytest

from benchmarks.measuring.gossip_memory import ALONE, WORKS, Peaks, declared, report
from covey.client.specification import gossip_spec
from covey.gossip.protocols.contract import PROTOCOLS
from covey.gossip.protocols.runs import require_possible
from covey.plugins import installed


@pytest.mark.parametrize("name", WORKS)
def test_every_run_is_one_that_can_be(name: str) -> None:
    work = WORKS[name]
    spec = gossip_spec(work.spec_toml(1000, 4))
    require_possible(spec, [f"n{index}" for index in range(work.nodes)])
    assert name in (ALONE, spec.gossip.protocol.name)


def test_every_protocol_that_declares_its_memory_is_measured() -> None:
    names = [plugin.name for plugin in installed("protocol") if plugin.package == "covey"]
    assert {name for name in names if PROTOCOLS.load(name).extra_models is not None} == set(WORKS) - {ALONE}


def test_the_page_has_what_is_more_than_alone_beside_what_is_declared() -> None:
    peaks = {ALONE: Peaks(0.5, 2.0), "sgp": Peaks(0.75, 2.5), "trimmed-mean": Peaks(1.5, 2.25)}
    assert report(peaks, 25_000_000, 4)[4:] == [
        "| alone | 1 | 0.50 | 2.00 |  |  |",
        "| sgp | 4 | 0.75 | 2.50 | 0.75 | 1 |",
        "| trimmed-mean | 4 | 1.50 | 2.25 | 1.25 | 2 |",
    ]
    assert (declared("sgp", 1000, 4), declared("trimmed-mean", 1000, 4)) == (1.0, 2.0)
