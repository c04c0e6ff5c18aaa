import datetime as dt
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry, Counter

from covey.testing.launch.processes import wait_until
from covey.wire.listeners.metrics_server import MetricsServer
from tests.unit.wire.listeners.metrics_clients import authority_key, client


@pytest.fixture
def certify():
    """Signs any certificate with any authority's key, as an organisation's own tools could."""

    def make(folder, public_key, *, common_name="alpha", unit="node", begins_s=-60, ends_s=3600):
        key = authority_key(folder)
        issuer = x509.load_pem_x509_certificate((folder / "authority.crt").read_bytes())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        names += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(issuer.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(seconds=begins_s))
            .not_valid_after(now + dt.timedelta(seconds=ends_s))
        )
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    return make


@pytest.fixture
def p256():
    return ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Counter("covey_rounds", "Rounds.", registry=registry).inc(3)
    return registry


@pytest.fixture
def serve(registry, identity, tmp_path):
    """Starts servers, as a coordinator: `serve(address)`; closes them, and sees that they leave no thread."""
    identity("coordinator", "coordinator")
    folder = next(tmp_path.glob("coordinator-coordinator-*"))
    started, before = [], set(threading.enumerate())

    def start(address="127.0.0.1:0", **options):
        started.append(MetricsServer(registry, address, folder, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()
    assert wait_until(lambda: set(threading.enumerate()) <= before, 10.0)


@pytest.fixture
def someone(identity, tmp_path, authority):
    """Makes an identity and its client context: `someone(name, role)`."""

    def make(name, role, *, by=authority, **options):
        identity(name, role, by=by, **options)
        return client(tmp_path / f"{role}-{name}-{by.federation[:8]}")

    return make
