import datetime as dt
import os
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import IdentityError
from covey.wire.identities.authority import Authority, check_name, key_of_request, write_private

NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


def pem_of(key, password=None):
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def own_authority(folder, key, *, ca=True, days=30, began_days_ago=40):
    """What an organisation might bring along."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital root")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=began_days_ago))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "authority.key").write_bytes(pem_of(key))
    (folder / "authority.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def test_it_is_made_on_first_use_and_found_again(tmp_path):
    first = Authority.open(tmp_path / "keys")
    certificate = first.certificate
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert extension(certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lasts >= dt.timedelta(days=3650)
    certificate.verify_directly_issued_by(certificate)
    again = Authority.open(tmp_path / "keys")
    assert (again.pem, again.federation) == (first.pem, first.federation)
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["authority.crt", "authority.key"]


def test_the_federation_id_is_the_beginning_of_the_certificates_digest(authority):
    digest = authority.certificate.fingerprint(hashes.SHA256())
    assert authority.federation == digest[:16].hex()


def test_the_key_is_private(tmp_path):
    old = os.umask(0)
    try:
        Authority.open(tmp_path / "keys")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "keys" / "authority.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_private_file_replaces_a_readable_one(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    (tmp_path / "secret.tmp").write_bytes(b"left by a crash")
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_while_it_was_made_is_made_good(tmp_path):
    first = Authority.open(tmp_path)
    (tmp_path / "authority.key").rename(tmp_path / "authority.key.new")
    assert Authority.open(tmp_path).federation == first.federation
    assert not (tmp_path / "authority.key.new").exists()


def test_a_crash_before_the_certificate_was_there_begins_again(tmp_path):
    write_private(tmp_path / "authority.key.new", pem_of(ec.generate_private_key(ec.SECP256R1())))
    made = Authority.open(tmp_path)
    assert Authority.open(tmp_path).federation == made.federation


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "rsa"],
)
def test_an_organisations_own_authority_is_taken(tmp_path, p256, make):
    own_authority(tmp_path / "own", make())
    before = (tmp_path / "own" / "authority.key").read_bytes()
    authority = Authority.open(tmp_path / "own")
    assert (tmp_path / "own" / "authority.key").read_bytes() == before
    issued = authority.issue("alpha", "node", p256, days=365)
    x509.load_pem_x509_certificate(issued.pem).verify_directly_issued_by(authority.certificate)
    assert issued.expires_at == authority.certificate.not_valid_after_utc.timestamp()


def test_a_key_without_its_certificate_is_never_replaced(tmp_path):
    write_private(tmp_path / "authority.key", pem_of(ec.generate_private_key(ec.SECP256R1())))
    before = (tmp_path / "authority.key").read_bytes()
    with pytest.raises(IdentityError, match=r"both authority\.key"):
        Authority.open(tmp_path)
    assert (tmp_path / "authority.key").read_bytes() == before


def test_a_certificate_without_its_key_is_refused(tmp_path):
    certificate = Authority.open(tmp_path).pem
    (tmp_path / "authority.key").unlink()
    with pytest.raises(IdentityError, match=r"both authority\.key"):
        Authority.open(tmp_path)
    assert (tmp_path / "authority.crt").read_bytes() == certificate


@pytest.mark.parametrize(("changes", "reason"), [({"ca": False}, "CA:TRUE"), ({"days": -1}, "expired")])
def test_a_certificate_that_cannot_issue_is_refused(tmp_path, changes, reason):
    own_authority(tmp_path, ec.generate_private_key(ec.SECP256R1()), **changes)
    with pytest.raises(IdentityError, match=reason):
        Authority.open(tmp_path)


def test_keys_that_cannot_be_used_are_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    own_authority(tmp_path, key)
    (tmp_path / "authority.key").write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(IdentityError, match="not the key of"):
        Authority.open(tmp_path)
    (tmp_path / "authority.key").write_bytes(pem_of(key, b"password"))
    with pytest.raises(IdentityError, match="without a password"):
        Authority.open(tmp_path)
    own_authority(tmp_path, ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(IdentityError, match="elliptic-curve or RSA"):
        Authority.open(tmp_path)


@pytest.mark.parametrize(
    ("role", "host", "serves"),
    [
        ("node", "alpha.node.covey", True),
        ("admin", "alpha.admin.covey", False),
        ("auditor", "alpha.auditor.covey", False),
        ("coordinator", "coordinator.covey", True),
    ],
)
def test_what_a_certificate_says(authority, p256, role, host, serves):
    issued = authority.issue("alpha", role, p256)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    certificate.verify_directly_issued_by(authority.certificate)
    subject = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert subject == {NameOID.COMMON_NAME: "alpha", NameOID.ORGANIZATIONAL_UNIT_NAME: role}
    assert extension(certificate, x509.BasicConstraints).ca is False
    assert extension(certificate, x509.KeyUsage).key_cert_sign is False
    assert extension(certificate, x509.SubjectAlternativeName).get_values_for_type(x509.DNSName) == [host]
    usages = extension(certificate, x509.ExtendedKeyUsage)
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) == serves
    now = dt.datetime.now(dt.UTC)
    assert now - certificate.not_valid_before_utc >= dt.timedelta(minutes=5)
    assert issued.expires_at == certificate.not_valid_after_utc.timestamp()
    assert int(issued.serial, 16) == certificate.serial_number
    assert issued.serial != authority.issue("alpha", role, p256).serial


@given(st.one_of(st.text(NAME_CHARACTERS, max_size=70), st.text(max_size=10)))
def test_names_are_checked_everywhere_alike(name):
    valid = 0 < len(name) <= 63 and set(name) <= set(NAME_CHARACTERS) and name[0] != "-"
    if valid:
        assert check_name(name) == name
    else:
        with pytest.raises(IdentityError, match="not a valid name"):
            check_name(name)


@pytest.mark.parametrize("name", ["", "Alpha", "a\n", "coordinator.covey", "-a", "a" * 64, "a b", "é"])
def test_no_certificate_has_another_name(authority, p256, name):
    with pytest.raises(IdentityError, match="not a valid name"):
        authority.issue(name, "node", p256)


def test_no_certificate_has_another_role(authority, p256):
    with pytest.raises(IdentityError, match="'root' is unknown"):
        authority.issue("alpha", "root", p256)


def request(key, subject="whatever"):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, digest)
    return made.public_bytes(serialization.Encoding.DER)


def test_a_signing_request_gives_its_key():
    key = ec.generate_private_key(ec.SECP256R1())
    assert key_of_request(request(key, "coordinator")) == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p384", "rsa", "ed25519"],
)
def test_only_p256_keys_are_certified(key):
    with pytest.raises(IdentityError, match="P-256"):
        key_of_request(request(key))


def test_a_signing_request_must_be_signed_by_its_own_key():
    raw = bytearray(request(ec.generate_private_key(ec.SECP256R1())))
    raw[raw.index(b"whatever")] ^= 1
    with pytest.raises(IdentityError):
        key_of_request(bytes(raw))


@given(st.binary(max_size=400))
def test_garbage_is_no_signing_request(raw):
    with pytest.raises(IdentityError):
        key_of_request(raw)
