"""A node's certificate is renewed over its own connection, for the keys that it has."""

import asyncio

import pytest

from covey.node.membership.renewal import renew_when_due
from covey.wire.identities.identity import Identity


@pytest.mark.parametrize("days", [1, 100])
async def test_a_certificate_that_ends_within_months_is_renewed(served, identity, days, tmp_path):
    old = identity("n0", days=days)
    folder = next(tmp_path.glob("node-n0-*"))
    await asyncio.wait_for(renew_when_due(old, folder, served.address), 20)
    new = Identity.load(folder)
    assert new.expires_at > old.expires_at + 200 * 86400
    assert new.key_pem == old.key_pem
    assert new.signing_key.key_id == old.signing_key.key_id
    assert new.explain() == ""


async def test_one_that_lasts_is_left(served, identity, tmp_path):
    old = identity("n0", days=300)
    work = asyncio.create_task(renew_when_due(old, tmp_path, "127.0.0.1:1"))
    await asyncio.sleep(0)
    assert not work.done()
    work.cancel()
