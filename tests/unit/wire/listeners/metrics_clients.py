"""How the tests of the metrics server ask it."""

import ssl
import urllib.error
import urllib.request

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

ANYWHERE = "0.0.0.0:0"


def where(server):
    """Host and port, as this machine reaches them."""
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    return "127.0.0.1", port


def get(server, path="/metrics", context=None, method="GET", **headers):
    """Status, content type and text of an answer."""
    scheme = server.url.partition(":")[0]
    port = where(server)[1]
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}{path}", headers=headers, method=method)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def authority_key(folder):
    """The private key of an authority, as this program makes them."""
    key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def client(identity_folder, *, shows=True):
    """A client's TLS context. The certificate names no address, so the name is checked by hand, as `server_name` is."""
    context = ssl.create_default_context(cafile=identity_folder / "authority.crt")
    context.check_hostname = False
    if shows:
        context.load_cert_chain(identity_folder / "tls.crt", identity_folder / "tls.key")
    return context


def refused(server, context):
    try:
        get(server, context=context)
    except (urllib.error.URLError, ssl.SSLError, ConnectionError, OSError):
        return True
    return False


def values(text):
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
