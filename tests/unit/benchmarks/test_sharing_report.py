from __future__ import annotations

import pytest

from benchmarks import partial_sharing


@pytest.mark.parametrize("arm", partial_sharing.ARMS)
def test_each_arm_is_a_specification_that_can_be_run(arm: str) -> None:
    spec = partial_sharing.spec_of(arm, 3, 5)
    assert [spec.task.with_own(spec.task.nodes.get(f"n{k}", {})).options["map"] for k in range(4)] == list(
        partial_sharing.MAPS
    )
    assert partial_sharing.spec_of("alone", 3, 5, ["west-a"]).task.options == {"map": "west-a"}


def test_a_row_has_the_end_of_each_curve_and_when_it_was_learned() -> None:
    rising = [{"return": 0.1 * k, "solved": 0.2 * k} for k in range(6)]
    flat = [{"return": 0.0, "solved": 0.0}] * 6
    assert partial_sharing.moves_needed(rising) == 500
    assert partial_sharing.moves_needed(flat) is None
    lines = partial_sharing.report({"share-body": [rising, flat], "alone": [flat, flat]}, 6)
    assert lines[4] == "| share-body | 0.20 | 0.00 to 0.40 | 40% | 500 (1 of 2) |"
    assert lines[5] == "| alone | 0.00 | 0.00 to 0.00 | 0% | never (0 of 2) |"
