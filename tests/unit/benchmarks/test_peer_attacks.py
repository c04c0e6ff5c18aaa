from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peer_attacks
from benchmarks.peer_attacks import ATTACKS, LYING_MASS, SECTIONS, Cell, Work
from covey.gossip.protocols.runs import require_possible
from covey.spec import GossipSpec, parse_toml


def cell(accuracy: float, *named: str) -> Cell:
    return {"accuracy": accuracy, "spread": 0.25, "named": list(named)}


@pytest.mark.parametrize("protocol", SECTIONS)
@pytest.mark.parametrize("work", [Work(13, 2, 12), Work(7, 1, 40)])
def test_each_row_is_a_specification_that_can_be_run(protocol: str, work: Work) -> None:
    spec = parse_toml(work.specification(protocol))
    assert isinstance(spec, GossipSpec)
    require_possible(spec, [f"n{index}" for index in range(work.nodes)])
    assert spec.gossip.min_nodes == work.nodes  # real nodes begin together, as simulated ones do


def test_who_lies_about_its_mass_is_looked_for_where_mass_counts() -> None:
    work = Work(7, 1, 40)
    assert work.attacks_on("sgp") == list(ATTACKS)
    assert work.attacks_on("trimmed-mean") == [attack for attack in ATTACKS if attack != LYING_MASS]


def test_what_holds_is_bold_and_who_is_named_is_named() -> None:
    cells = {
        "sgp/none": cell(0.9),
        "sgp/alie": cell(0.871),
        "sgp/lying-mass": cell(0.86, "n6"),
        "d-psgd/none": cell(1.0),
    }
    assert peer_attacks.table(cells) == [
        "| protocol | none | alie | lying-mass |",
        "|---|---|---|---|",
        "| `sgp` | **0.900 (0.25)** | **0.871 (0.25)** | 0.860 (0.25), named: n6 |",
        "| `d-psgd` | **1.000 (0.25)** | - | - |",
    ]


def test_what_is_known_is_not_measured_again_and_the_page_is_written(tmp_path: Path) -> None:
    title = "7 nodes (real processes), adversaries: 1, 40 steps."
    known, page = tmp_path / "known.json", tmp_path / "page.md"
    known.write_text(json.dumps({title: {"sgp/none": cell(0.9)}}))
    page.write_text("<!-- begin peer-attacks-processes -->\n<!-- end peer-attacks-processes -->\n")
    options = ["--processes", "--protocols", "sgp", "--attacks", "none", "--json", str(known), "--page", str(page)]
    assert peer_attacks.main(options) == 0
    assert "| `sgp` | **0.900 (0.25)** |" in page.read_text()


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_liar_among_real_processes_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    options = ["--processes", "--nodes", "3", "--steps", "3", "--protocols", "sgp", "--attacks", LYING_MASS]
    assert peer_attacks.main([*options, "--json", str(file)]) == 0
    (cells,) = json.loads(file.read_text()).values()
    assert cells["sgp/lying-mass"]["named"] == ["n2"]
    assert 0 < cells["sgp/lying-mass"]["accuracy"] < 1
