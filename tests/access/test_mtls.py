"""Client certificates of an authority of our own: over real TLS, and each way in which one is refused."""

import hashlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from stanch.access.authenticator import Authenticator, ClientLeaf
from stanch.access.mtls import Certificates
from stanch.crypto.certificate import CertificateAuthority
from stanch.errors import InvalidInput, NotAuthenticated

URI = "spiffe://example.com/bot"
NOW = datetime.now(UTC)
PEM = serialization.Encoding.PEM


class Authority:
    """A certificate authority with a key of its own."""

    def __init__(self, name):
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string(f"CN={name}")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(self.name, self.key.public_key()).add_extension(constraints, critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def _builder(self, name, public, days=(-1, 30)):
        return (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=days[0]))
            .not_valid_after(NOW + timedelta(days=days[1]))
        )  # fmt: skip

    def issue(self, *names, usage=ExtendedKeyUsageOID.CLIENT_AUTH, days=(-1, 30), ca=False):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name.from_rfc4514_string("CN=root"), key.public_key(), days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256()), key

    @property
    def trusted(self):
        return CertificateAuthority.from_pem(self.certificate.public_bytes(PEM), what="ca")


OURS, THEIRS = Authority("ours"), Authority("theirs")
UriName, DnsName = x509.UniformResourceIdentifier, x509.DNSName


def der(certificate):
    return certificate[0].public_bytes(serialization.Encoding.DER)


def identify(leaf):
    return Certificates([THEIRS.trusted, OURS.trusted]).identify(leaf)


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        ([UriName(URI)], URI), ([DnsName("bot.example.com")], "bot.example.com"), ([DnsName("a")], "a"),
        ([UriName(URI), DnsName("bot.example.com")], URI), ([UriName(URI), DnsName("a"), DnsName("b")], URI),
    ],
)  # fmt: skip
def test_the_single_uri_or_else_the_single_dns_name_is_the_subject(names, subject):
    (issuer, found), proof = identify(der(OURS.issue(*names)))
    assert found == subject
    assert issuer == f"mtls:{OURS.trusted.spki_sha256.hex()}"
    assert (proof.kind, proof.mfa) == ("mtls", False)


def test_the_proof_ends_with_the_certificate_and_is_named_by_its_digest():
    leaf = OURS.issue(UriName(URI))
    _, proof = identify(der(leaf))
    assert proof.credential == f"x509:{hashlib.sha256(der(leaf)).hexdigest()[:32]}"
    assert proof.expires_ms == int(leaf[0].not_valid_after_utc.timestamp()) * 1000


def test_the_authorities_can_be_others_from_now_on():
    certificates, leaf = Certificates([OURS.trusted]), der(OURS.issue(UriName(URI)))
    certificates.identify(leaf)
    certificates.trust([THEIRS.trusted])
    with pytest.raises(NotAuthenticated):
        certificates.identify(leaf)


def test_a_name_has_512_characters_at_most():
    longest = "spiffe://example.com/".ljust(512, "b")
    assert identify(der(OURS.issue(UriName(longest))))[0][1] == longest
    for name in (longest + "b", ""):
        with pytest.raises(NotAuthenticated):
            identify(der(OURS.issue(UriName(name))))


REFUSED = {
    "two URIs": OURS.issue(UriName(URI), UriName("spiffe://example.com/root")),
    "two DNS names": OURS.issue(DnsName("a"), DnsName("b")),
    "a common name only": OURS.issue(),
    "a mail address only": OURS.issue(x509.RFC822Name("bot@example.com")),
    "for servers": OURS.issue(UriName(URI), usage=ExtendedKeyUsageOID.SERVER_AUTH),
    "without a usage": OURS.issue(UriName(URI), usage=None),
    "an authority": OURS.issue(UriName(URI), ca=True),
    "expired": OURS.issue(UriName(URI), days=(-3, -1)),
    "not valid yet": OURS.issue(UriName(URI), days=(1, 3)),
    "of a stranger": Authority("strangers").issue(UriName(URI)),
    "of a stranger by the same name": Authority("ours").issue(UriName(URI)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_certificates(name):
    with pytest.raises(NotAuthenticated) as caught:
        identify(der(REFUSED[name]))
    assert str(caught.value) == "not authenticated"


@pytest.mark.parametrize("leaf", [b"", b"\x30", b"x" * 70_000, der(OURS.issue(UriName(URI)))[:-1]])
def test_bytes_that_are_no_certificate(leaf):
    with pytest.raises(NotAuthenticated):
        identify(leaf)


def test_every_flipped_byte_is_refused_or_changes_nothing_that_counts():
    """Outside of what is signed DER leaves some room; what is signed decides who somebody is."""
    good = der(OURS.issue(UriName(URI)))
    name, passed = identify(good)[0], 0
    for index in range(len(good)):
        bad = bytearray(good)
        bad[index] ^= 1
        try:
            found, _ = identify(bytes(bad))
        except NotAuthenticated:
            continue
        assert found == name
        passed += 1
    assert passed <= 3


def test_only_an_authority_is_trusted_to_issue():
    leaf, _ = OURS.issue(UriName(URI))
    for pem in (leaf.public_bytes(PEM), b"", b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(InvalidInput):
            CertificateAuthority.from_pem(pem, what="ca")


def save(folder, name, certificate, key):
    text = certificate.public_bytes(PEM) + key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / name).write_bytes(text)
    return str(folder / name)


def test_a_service_comes_in_over_tls(people, tmp_path):
    server_file = save(tmp_path, "server.pem", *OURS.issue(DnsName("localhost"), usage=ExtendedKeyUsageOID.SERVER_AUTH))
    client_file = save(tmp_path, "client.pem", *OURS.issue(UriName(URI)))
    (tmp_path / "ca.pem").write_bytes(OURS.certificate.public_bytes(PEM))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=tmp_path / "ca.pem")
    server.load_cert_chain(server_file)
    server.load_verify_locations(tmp_path / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client.load_cert_chain(client_file)
    left, right = socket.socketpair()
    seen = []

    def serve():
        with server.wrap_socket(left, server_side=True) as connection:
            seen.append(connection.getpeercert(binary_form=True))
            connection.sendall(b"!")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(right, server_hostname="localhost") as connection:
        assert connection.recv(1) == b"!"
    thread.join()
    people.clock.seconds = NOW.timestamp()
    bot = people.directory.register_subject(
        f"mtls:{OURS.trusted.spki_sha256.hex()}", URI, display="bot", kind="service"
    )
    door = Authenticator(people.directory, certificates=Certificates([OURS.trusted], clock=people.clock))
    session = door.authenticate(ClientLeaf(seen[0]))
    assert (session.principal, session.kind) == (bot.id, "mtls")
    assert people.directory.facts(session).principal.id == bot.id
    with pytest.raises(NotAuthenticated):
        Authenticator(people.directory).authenticate(ClientLeaf(seen[0]))
