from __future__ import annotations

import pytest

from covey.testing.federation import Federation, FederationError


@pytest.mark.parametrize(("nodes", "first", "last"), [(1, "n0", "n0"), (10, "n0", "n9"), (16, "n00", "n15")])
def test_names_are_in_order_as_text(tmp_path, nodes, first, last):
    names = Federation(tmp_path, nodes).names
    assert (names[0], names[-1]) == (first, last)
    assert list(names) == sorted(names)


def test_what_was_not_started_is_said(tmp_path):
    with Federation(tmp_path, 1) as federation:
        with pytest.raises(FederationError, match="coordinator was not started"):
            federation.kill_coordinator()
        with pytest.raises(FederationError, match="n0 was not started"):
            federation.kill_node(0)
        assert federation.pids == {}
        assert federation.worker_pids == {}


@pytest.mark.processes
@pytest.mark.parametrize("again", [True, False])
def test_a_fault_point_that_was_never_passed_fails_the_test(tmp_path, again):
    def drill():
        with Federation(tmp_path, 0) as federation:
            federation.start_coordinator(env={"COVEY_FAULTS": "invite:2"})
            if again:
                federation.restart_coordinator()

    with pytest.raises(FederationError, match="coordinator was started with the fault point invite:2, never passed"):
        drill()


@pytest.mark.processes
def test_a_coordinator_that_cannot_start_is_reported_with_its_log(tmp_path):
    with (
        pytest.raises(FederationError, match="coordinator ended by itself") as caught,
        Federation(tmp_path, 1, store_url="nonsense://nowhere") as federation,
    ):
        federation.start_coordinator()
    log = (tmp_path / "logs" / "coordinator.log").read_text()
    assert log.strip()
    assert log.splitlines()[-1] in str(caught.value)
