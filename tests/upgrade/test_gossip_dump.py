"""A gossip run that an older Covey left in mid-exchange goes on here, to the same models and with all its mass."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from covey.client.gossip_nodes import account_of, audit_accounts, read_node
from covey.gossip.mass import ONE
from covey.testing.gossip import GossipNodes

DATA = Path(__file__).parent / "data"
DUMPS = sorted(DATA.glob("*/gossip/*.tar.gz"))


def unpacked(dump: Path, root: Path) -> dict[str, object]:
    """Put a dump where `GossipNodes` expects it, which certifies the nodes' keys again; what must come of it."""
    with tarfile.open(dump) as archive:
        archive.extractall(root, filter="data")
    facts: dict[str, object] = json.loads(dump.with_name(dump.name.replace(".tar.gz", ".json")).read_text())
    return facts


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: f"{dump.parts[-3]}-{dump.name}")
def test_what_an_older_covey_left_is_read(dump: Path, tmp_path: Path) -> None:
    facts = unpacked(dump, tmp_path)
    states = [read_node(tmp_path / f"n{index}") for index in range(3)]
    assert [state.machine.step for state in states] == facts["steps"]
    accounts = [account_of(state) for state in states]
    assert [sum(1 for edge in account["edges"] if edge["waiting"]) for account in accounts] == facts["waiting"]
    audit = audit_accounts(accounts)
    assert audit.is_exact, audit.findings
    assert audit.live + audit.in_flight == audit.minted == 3 * ONE
    assert audit.in_flight > 0


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: f"{dump.parts[-3]}-{dump.name}")
def test_a_run_goes_on_from_what_an_older_covey_left(dump: Path, tmp_path: Path) -> None:
    facts = unpacked(dump, tmp_path)
    with GossipNodes(tmp_path, str(facts["specification"]), 3) as nodes:
        nodes.start_all()
        nodes.wait(150)
        assert nodes.models() == facts["models"]
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["in_flight"], mass["lost"]) == (True, [], 0, 0)
