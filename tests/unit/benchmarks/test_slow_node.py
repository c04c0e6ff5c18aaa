"""What a slow node costs the others is measured on real nodes."""

from __future__ import annotations

import json

import pytest

from benchmarks.measuring import slow_node


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_slow_node_and_the_others_are_measured_beside_nodes_of_which_none_is_slow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        slow_node.main(["--only", "agp", "--nodes", "2", "--steps", "5", "--pace", "0.2", "--slower", "3", "--json"])
        == 0
    )
    line = json.loads(capsys.readouterr().out)
    assert (line["setting"], line["is_exact"]) == ("agp", True)
    assert line["slow_s"] >= 3 * 0.2
    assert line["undisturbed_s"] >= 0.2
    assert line["ratio"] == line["others_s"] / line["undisturbed_s"]
    assert 0 < line["distance"] < 5
    row = slow_node.row(slow_node.SlowMeasured("agp", 1.5, 15.0, 1.2, True, 0.123))
    assert row == "| agp | 1.50 | 1.20 | 1.25 | exact | 0.12 |"


def test_a_node_that_is_faster_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        slow_node.main(["--slower", "0.5"])
    assert "a node that is not faster" in capsys.readouterr().err
