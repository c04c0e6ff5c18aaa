"""A federation's authority, and identities that it certified."""

import pytest

from covey.wire.authority import Authority
from covey.wire.identity import Identity, signing_request, tls_key_in

COORDINATOR_KEY = bytes(range(32))


@pytest.fixture
def authority(tmp_path):
    return Authority.open(tmp_path / "authority")


@pytest.fixture
def identity(tmp_path, authority):
    """Makes complete identity folders: `identity(name, role, days=..., by=..., certificate=...)`."""

    def make(name="alpha", role="node", *, days=365, by=authority, certificate=None):
        folder = tmp_path / f"{role}-{name}-{by.federation[:8]}"
        signing_request(folder, name)
        pem = certificate or by.issue(name, role, tls_key_in(folder / "tls.key").public_key(), days).pem
        Identity.write(
            folder,
            name=name,
            role=role,
            federation=by.federation,
            server="127.0.0.1:7400",
            coordinator_key=COORDINATOR_KEY,
            certificate=pem,
            authority=by.pem,
        )
        return Identity.load(folder)

    return make
