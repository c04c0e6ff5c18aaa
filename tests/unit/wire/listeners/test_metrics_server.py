"""The metrics server against real clients, friendly and strange."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import threading
import urllib.error
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from structlog.testing import capture_logs

from covey.errors import CoveyError, IdentityError
from covey.testing.launch.processes import wait_until
from covey.wire.identities.authority import COORDINATOR_NAME, Authority, private_pem
from covey.wire.identities.identity import tls_key_in
from covey.wire.listeners.metrics_server import MetricsServer, scrapable
from tests.unit.wire.listeners.metrics_clients import ANYWHERE, authority_key, client, get, refused, values, where

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


# -- loopback


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "127.9.9.9:0"])
def test_plain_on_loopback(serve, address):
    server = serve(address)
    assert server.url.startswith("http://")
    host = server.url.removeprefix("http://").partition(":")[0]
    with urllib.request.urlopen(server.url) as answer:
        text = answer.read().decode()
    assert host.startswith("127.") or host == "[::1]"
    assert values(text) == {"covey_rounds_total": 3.0}


def test_ipv6_loopback(serve):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = serve("[::1]:0")
    assert server.url.startswith("http://[::1]:")
    assert urllib.request.urlopen(server.url).status == 200


def test_the_format_is_negotiated(serve):
    server = serve()
    assert get(server)[1].startswith("text/plain")
    status, content_type, text = get(server, Accept=OPENMETRICS)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    assert [family.name for family in openmetrics(text)] == ["covey_rounds"]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics2", "/../metrics"])
def test_nothing_else_is_served(serve, path):
    assert get(serve(), path)[0] == 404


def test_a_query_is_ignored(serve):
    status, _, text = get(serve(), "/metrics?name[]=x")
    assert (status, values(text)) == (200, {"covey_rounds_total": 3.0})


def test_an_answer_is_plain_and_names_no_version(serve):
    request = urllib.request.Request(serve().url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.headers["Server"], answer.headers["Content-Encoding"]) == ("covey", None)
        assert int(answer.headers["Content-Length"]) == len(answer.read())


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE"])
def test_only_get(serve, method):
    assert get(serve(), method=method)[0] == 404


# -- over the network


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_operators_may_scrape(serve, someone, role):
    server = serve(ANYWHERE)
    assert server.url.startswith("https://")
    status, _, text = get(server, context=someone("watcher", role))
    assert (status, values(text)) == (200, {"covey_rounds_total": 3.0})


def test_the_certificate_is_the_daemons(serve, someone):
    server, context = serve(ANYWHERE), someone("watcher", "auditor")
    context.check_hostname = True
    with (
        socket.create_connection(where(server)) as raw,
        context.wrap_socket(raw, server_hostname=COORDINATOR_NAME) as secured,
    ):
        secured.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert secured.recv(15) == b"HTTP/1.0 200 OK"


@pytest.mark.parametrize("path", ["/metrics", "/other"])
@pytest.mark.parametrize("role", ["node", "coordinator"])
def test_other_roles_learn_nothing(serve, someone, role, path):
    status, _, text = get(serve(ANYWHERE), path, context=someone("alpha", role))
    assert status == 403
    assert "covey_rounds" not in text


def test_an_evicted_auditor_is_shut_out_at_once(serve, someone):
    evicted = set()

    def admit(peer):
        if peer.name in evicted:
            raise IdentityError("evicted")

    server, context = serve(ANYWHERE, admit=admit), someone("watcher", "auditor")
    assert get(server, context=context)[0] == 200
    evicted.add("watcher")
    assert get(server, context=context)[0] == 403


def test_without_a_certificate_the_handshake_fails(serve, someone, tmp_path):
    server = serve(ANYWHERE)
    someone("watcher", "admin")
    folder = next(tmp_path.glob("admin-watcher-*"))
    assert refused(server, client(folder, shows=False))
    assert not refused(server, client(folder))


def test_plain_http_gets_nothing_from_a_secure_listener(serve):
    with socket.create_connection(where(serve(ANYWHERE)), timeout=20) as raw:
        raw.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"covey_rounds" not in raw.recv(65536)


def test_another_federations_admin_is_refused(serve, someone, tmp_path):
    foreign = Authority.open(tmp_path / "foreign")
    context = someone("watcher", "admin", by=foreign)
    context.load_verify_locations(tmp_path / "authority" / "authority.crt")
    assert refused(serve(ANYWHERE), context)


@pytest.mark.parametrize("shown", [{"common_name": "Printer 5"}, {"unit": "printer"}, {"unit": None}])
def test_what_an_organisation_certified_for_other_ends_may_not(serve, identity, certify, tmp_path, shown):
    identity("watcher", "admin")
    folder = next(tmp_path.glob("admin-watcher-*"))
    public = tls_key_in(folder / "tls.key").public_key()
    (folder / "tls.crt").write_bytes(certify(tmp_path / "authority", public, **{"unit": "admin", **shown}))
    assert get(serve(ANYWHERE), context=client(folder))[0] == 403


def test_an_organisations_intermediate_authority_is_enough(registry, identity, tmp_path):
    """`authority.crt` is not self-signed, and the root that signed it is not here."""
    root = Authority.open(tmp_path / "root")
    intermediate = intermediate_of(tmp_path / "root", root, tmp_path / "intermediate")
    identity("coordinator", "coordinator", by=intermediate)
    identity("watcher", "auditor", by=intermediate)
    server = MetricsServer(registry, ANYWHERE, next(tmp_path.glob("coordinator-coordinator-*")))
    context = client(next(tmp_path.glob("auditor-watcher-*")))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        assert get(server, context=context)[0] == 200
    finally:
        server.close()


def intermediate_of(root_folder, root, folder):
    """An authority that a root certified, in a folder of its own."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key(root_folder), hashes.SHA256())
    )
    (folder / "authority.key").write_bytes(private_pem(key))
    (folder / "authority.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority.open(folder)


def test_an_expired_certificate_is_refused(serve, someone, certify, identity, tmp_path):
    identity("watcher", "admin")
    folder = next(tmp_path.glob("admin-watcher-*"))
    public = tls_key_in(folder / "tls.key").public_key()
    server = serve(ANYWHERE)
    for ends_s, expected in ((3600, False), (-30, True)):
        (folder / "tls.crt").write_bytes(
            certify(tmp_path / "authority", public, common_name="watcher", unit="admin", ends_s=ends_s)
        )
        assert refused(server, client(folder)) is expected


def test_a_renewed_certificate_counts_at_once(serve, someone, authority, tmp_path):
    server, context = serve(ANYWHERE), someone("watcher", "auditor")
    folder = next(tmp_path.glob("coordinator-coordinator-*"))

    def serial():
        with (
            socket.create_connection(where(server)) as raw,
            context.wrap_socket(raw, server_hostname=COORDINATOR_NAME) as secured,
        ):
            return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True)).serial_number

    before = serial()
    public = tls_key_in(folder / "tls.key").public_key()
    (folder / "tls.crt").write_bytes(authority.issue("coordinator", "coordinator", public).pem)
    assert serial() != before


def test_an_identity_that_became_unusable_is_put_into_the_log(serve, someone, tmp_path):
    server, context = serve(ANYWHERE), someone("watcher", "auditor")
    (next(tmp_path.glob("coordinator-coordinator-*")) / "tls.crt").unlink()
    with capture_logs() as logs:
        assert refused(server, context)
        assert wait_until(lambda: not any(t.name == "scrape" for t in threading.enumerate()), 10.0)
    assert [(line["log_level"], "cannot be used" in line["error"]) for line in logs] == [("warning", True)]


# -- starting


def test_a_port_in_use_is_said_clearly(serve):
    port = where(serve())[1]
    with pytest.raises(CoveyError, match=rf"127\.0\.0\.1:{port}.*in use.*--metrics"):
        serve(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["no-such-host.invalid:0", "192.0.2.1:0"])
def test_an_address_of_nobody_is_said_clearly(serve, address):
    with pytest.raises(CoveyError, match="cannot be served"):
        serve(address)


def test_an_unusable_identity_is_said_at_the_start(registry, tmp_path):
    with pytest.raises(IdentityError, match="cannot be used"):
        MetricsServer(registry, ANYWHERE, tmp_path)


def test_on_loopback_no_identity_is_needed(registry, tmp_path):
    server = MetricsServer(registry, "127.0.0.1:0", tmp_path)
    assert get(server)[0] == 200
    server.close()


def test_closing_ends_what_hangs(serve):
    server = serve(deadline_s=60.0)
    hanging = socket.create_connection(where(server), timeout=20)
    assert get(server)[0] == 200
    server.close()
    assert hanging.recv(100) == b""
    hanging.close()


async def test_a_daemon_can_be_scraped_inside_the_context_only(registry, tmp_path):
    async with scrapable(registry, None, tmp_path) as url:
        assert url == ""
    async with scrapable(registry, "127.0.0.1:0", tmp_path) as url:
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
        assert b"process_resident_memory_bytes" in text
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(urllib.request.urlopen, url)
