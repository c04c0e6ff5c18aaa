"""The metrics server against real clients: friendly, strange, slow and too many."""

import contextlib
import socket
import ssl
import threading
import urllib.error
import urllib.request

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from covey.errors import CoveyError, IdentityError
from covey.testing.processes import wait_until
from covey.wire.authority import COORDINATOR_NAME, Authority
from covey.wire.identity import tls_key_in
from covey.wire.metrics_server import MAX_CONNECTIONS, MetricsServer

ANYWHERE = "0.0.0.0:0"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


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


def where(server):
    """Host and port, as this machine reaches them."""
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    return "127.0.0.1", port


def get(server, path="/metrics", context=None, method="GET", **headers):
    """Status, content type and text of an answer."""
    scheme = server.url.partition(":")[0]
    port = where(server)[1]
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}{path}", headers=headers, method=method)
    handlers = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def client(identity_folder, *, shows=True):
    """A client's TLS context. The certificate names no address, so the name is checked by hand, as `server_name` is."""
    context = ssl.create_default_context(cafile=identity_folder / "authority.crt")
    context.check_hostname = False
    if shows:
        context.load_cert_chain(identity_folder / "tls.crt", identity_folder / "tls.key")
    return context


@pytest.fixture
def someone(identity, tmp_path, authority):
    """Makes an identity and its client context: `someone(name, role)`."""

    def make(name, role, *, by=authority, **options):
        identity(name, role, by=by, **options)
        return client(tmp_path / f"{role}-{name}-{by.federation[:8]}")

    return make


def values(text):
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


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
    assert get(serve(), "/metrics?name[]=x")[0] == 200


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
    server, context = serve(ANYWHERE, shut_out=evicted), someone("watcher", "auditor")
    assert get(server, context=context)[0] == 200
    evicted.add("watcher")
    assert get(server, context=context)[0] == 403


def refused(server, context):
    try:
        get(server, context=context)
    except (urllib.error.URLError, ssl.SSLError, ConnectionError, OSError):
        return True
    return False


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


# -- hostile clients


def test_slow_clients_are_ended_and_others_are_served(serve):
    server = serve(deadline_s=1.0)
    silent = [socket.create_connection(where(server), timeout=20) for _ in range(3)]
    drip = socket.create_connection(where(server), timeout=20)
    drip.sendall(b"GET /met")
    assert get(server)[0] == 200
    for one in (*silent, drip):
        assert one.recv(100) == b""  # ended by the server
        one.close()


def test_who_sends_a_byte_now_and_then_is_ended_too(serve):
    server = serve(deadline_s=1.0)
    with socket.create_connection(where(server), timeout=20) as drip:

        def ended():
            try:
                drip.sendall(b"G")
            except OSError:
                return True
            return False

        assert wait_until(ended, 20.0)


def test_a_stalled_handshake_is_ended(serve, someone):
    server, context = serve(ANYWHERE, deadline_s=1.0), someone("watcher", "auditor")
    with socket.create_connection(where(server), timeout=20) as stalled:
        assert get(server, context=context)[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert stalled.recv(100) == b""


def test_the_number_of_connections_is_bounded(serve):
    server = serve(deadline_s=60.0)
    held = [socket.create_connection(where(server), timeout=20) for _ in range(MAX_CONNECTIONS)]
    assert wait_until(lambda: sum(t.name == "scrape" for t in threading.enumerate()) == MAX_CONNECTIONS, 10.0)
    with socket.create_connection(where(server), timeout=20) as extra:
        assert extra.recv(100) == b""
    assert sum(thread.name == "scrape" for thread in threading.enumerate()) == MAX_CONNECTIONS
    for one in held:
        one.close()
    assert wait_until(lambda: not any(t.name == "scrape" for t in threading.enumerate()), 10.0)
    assert get(server)[0] == 200


def test_a_request_without_end_is_refused(serve):
    with socket.create_connection(where(serve()), timeout=20) as client:
        client.sendall(b"GET /" + b"x" * 70_000)
        assert b"414" in client.recv(100)


def test_a_broken_collector_costs_one_scrape(serve, registry):
    class Broken:
        def collect(self):
            raise RuntimeError("no such thing")

    broken, server = Broken(), serve()
    registry.register(broken)
    assert refused(server, None)
    registry.unregister(broken)
    assert get(server)[0] == 200


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
