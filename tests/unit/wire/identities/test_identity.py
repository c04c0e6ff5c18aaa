import json
import stat
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from covey.errors import IdentityError
from covey.wire.identities.authority import Authority, federation_of, key_of_request
from covey.wire.identities.identity import ENROL_DOMAIN, Identity, signing_key_in, signing_request, tls_key_in
from covey.wire.identities.signing import verify

FILES = ["tls.key", "tls.crt", "authority.crt", "signing.key", "federation.json"]


def folder_of(tmp_path):
    (folder,) = tmp_path.glob("node-alpha-*")
    return folder


def test_what_is_written_is_loaded(tmp_path, identity, authority):
    made = identity()
    assert (made.name, made.role, made.server) == ("alpha", "node", "127.0.0.1:7400")
    assert made.federation == authority.federation
    assert made.coordinator_key == bytes(range(32))
    assert made.explain() == ""
    folder = folder_of(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in FILES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_an_identity_does_not_show_its_keys(identity):
    made = identity()
    assert "PRIVATE" not in repr(made)
    assert "PRIVATE" not in str(made)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_told_and_not_made_up(tmp_path, identity, name):
    identity()
    folder = folder_of(tmp_path)
    (folder / name).unlink()
    with pytest.raises(IdentityError, match="join"):
        Identity.load(folder)
    assert not (folder / name).exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000], ids=repr)
def test_a_broken_file_is_told(tmp_path, identity, name, content):
    identity()
    folder = folder_of(tmp_path)
    (folder / name).write_bytes(content)
    if name == "tls.key":
        assert "tls.key" in Identity.load(folder).explain()
        return
    with pytest.raises(IdentityError):
        Identity.load(folder)


def test_wrong_values_are_told(tmp_path, identity):
    identity()
    path = folder_of(tmp_path) / "federation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "coordinator_key": 5}))
    with pytest.raises(IdentityError, match="broken"):
        Identity.load(path.parent)


def test_asking_again_asks_for_the_same_keys(tmp_path):
    first, second = (signing_request(tmp_path / "me", "alpha") for _ in range(2))
    assert key_of_request(first[0]) == key_of_request(second[0])
    assert first[1] == second[1]
    for csr, signing_key, proof in (first, second):
        verify(signing_key, csr, proof, ENROL_DOMAIN)


def test_no_keys_are_made_for_a_name_that_cannot_be(tmp_path):
    with pytest.raises(IdentityError, match="not a valid name"):
        signing_request(tmp_path / "me", "Alpha")
    assert not (tmp_path / "me").exists()


def test_key_files_of_another_kind_are_refused(tmp_path):
    def write(key):
        path = tmp_path / "key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    with pytest.raises(IdentityError, match="not an Ed25519 key"):
        signing_key_in(write(ec.generate_private_key(ec.SECP256R1())))
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(IdentityError, match="not a P-256 key"):
            tls_key_in(write(key))
    (tmp_path / "key").write_bytes(b"hello")
    with pytest.raises(IdentityError, match="cannot be read"):
        tls_key_in(tmp_path / "key")


# -- why a server would refuse it


def test_an_expired_certificate_is_explained(identity):
    assert "'alpha' expired at" in identity(days=0).explain()


def test_a_certificate_of_the_future_is_explained(tmp_path, identity, certify):
    key = identity().key_pem
    public = serialization.load_pem_private_key(key, None).public_key()
    early = certify(tmp_path / "authority", public, begins_s=3000)
    assert "is this machine's clock right?" in identity(certificate=early).explain()


def test_a_foreign_certificate_is_explained(tmp_path, identity):
    foreign = Authority.open(tmp_path / "foreign")
    mine, theirs = identity(), identity(by=foreign)
    mixed = replace(mine, certificate_pem=theirs.certificate_pem)
    assert "not issued by this federation's authority" in mixed.explain()
    moved = replace(mine, certificate_pem=theirs.certificate_pem, authority_pem=theirs.authority_pem)
    assert f"not the authority of federation {mine.federation}" in moved.explain()


def test_another_ones_key_is_explained(identity):
    mixed = replace(identity(), key_pem=identity("beta").key_pem)
    assert "tls.key is not the key of the certificate of 'alpha'" in mixed.explain()


def test_an_expired_authority_is_explained(tmp_path, identity, authority, certify):
    old = certify(
        tmp_path / "authority",
        authority.certificate.public_key(),
        common_name="Covey federation authority",
        unit=None,
        begins_s=-7200,
        ends_s=-3600,
    )
    federation = federation_of(x509.load_pem_x509_certificate(old))
    made = replace(identity(), authority_pem=old, federation=federation)
    assert "the federation's authority expired at" in made.explain()
