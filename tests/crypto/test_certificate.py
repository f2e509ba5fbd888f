"""Certificates from outside: what is read of one, and what is refused before anybody relies on it."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from authority import NOW, certificate
from stanch.crypto.certificate import CertificateAuthority, certificate_end
from stanch.errors import InvalidInput, NoTrustedSignature

ROOT, KEY = (ec.derive_private_key(n, ec.SECP256R1()) for n in (7, 8))
UriName, DnsName = x509.UniformResourceIdentifier, x509.DNSName
EC_KEY, ECDSA_SHA256 = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d040302")


def authority(key=ROOT, name="ours", issuer_key=ROOT, *, ca=True):
    return certificate(name, key, name, issuer_key, (x509.BasicConstraints(ca=ca, path_length=None), True))


def leaf(*extensions, issuer="ours", issuer_key=ROOT):
    return der(certificate("bot", KEY, issuer, issuer_key, *((extension, False) for extension in extensions)))


def der(pem):
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


OURS = CertificateAuthority.from_pem(authority(), what="ca")


def named(*names):
    return OURS.open_client(leaf(x509.SubjectAlternativeName(names)))


def test_names_usage_and_rank_are_read():
    found = named(DnsName("b"), UriName("urn:a"), x509.RFC822Name("c@example.com"), UriName("urn:d"))
    assert (found.uris, found.dns_names) == (("urn:a", "urn:d"), ("b",))
    assert (found.for_clients, found.is_authority) == (False, False)
    assert not OURS.open_client(leaf(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))).for_clients
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    found = OURS.open_client(leaf(both, x509.BasicConstraints(ca=True, path_length=None)))
    assert (found.uris, found.dns_names, found.for_clients, found.is_authority) == ((), (), True, True)
    assert not OURS.open_client(leaf(x509.BasicConstraints(ca=False, path_length=None))).is_authority


def test_it_is_valid_from_its_first_second_to_its_last():
    found, second = OURS.open_client(leaf()), timedelta(seconds=1)
    assert found.not_before < NOW < found.not_after
    for now, valid in ((found.not_before, True), (found.not_after, True), (NOW, True)):
        assert found.valid_at(now) == valid
    assert not found.valid_at(found.not_before - second)
    assert not found.valid_at(found.not_after + second)


def test_it_has_64_names_at_most():
    uris, dns = ([kind(f"{head}{n}") for n in range(32)] for kind, head in ((UriName, "urn:"), (DnsName, "n")))
    assert len(named(*uris, *dns).uris) == 32
    with pytest.raises(InvalidInput, match="at most 64 names"):
        named(*uris, *dns, UriName("urn:last"))


def test_it_has_65_536_bytes_at_most():
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))  # whose signatures have one length

    def padded(size):
        filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(size))
        subject = x509.Name.from_rfc4514_string("CN=ours")
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
        return builder.add_extension(filler, critical=False).sign(key, None).public_bytes(Encoding.DER)

    name = CertificateAuthority(x509.load_der_x509_certificate(padded(0)))
    size = 65_536 - len(padded(60_000)) + 60_000
    assert name.open_client(padded(size)).digest
    with pytest.raises(InvalidInput, match="at most 65536 bytes, found 65537"):
        name.open_client(padded(size + 1))


def test_only_an_authority_whose_key_can_be_read_is_one():
    foreign = der(authority()).replace(EC_KEY, EC_KEY[:-1] + b"\x7f")
    pem = x509.load_der_x509_certificate(foreign).public_bytes(Encoding.PEM)
    for wrong, words in (
        (authority(ca=False), "ca: is not an authority's"),
        (certificate("ours", ROOT, "ours", ROOT), "ca: expected the certificate of an authority"),
        (pem, "ca: expected the certificate of an authority"),
    ):
        with pytest.raises(InvalidInput, match=words):
            CertificateAuthority.from_pem(wrong, what="ca")


def test_what_an_authority_did_not_sign_or_cannot_have_signed_is_refused():
    exchange = x25519.X25519PrivateKey.from_private_bytes(bytes(32))  # a key that signs nothing
    silent = CertificateAuthority.from_pem(authority(exchange), what="ca")
    for ca, found in (
        (OURS, leaf(issuer="theirs")),
        (OURS, leaf(issuer_key=KEY)),
        (OURS, leaf().replace(ECDSA_SHA256, ECDSA_SHA256[:-1] + b"\x7f")),
        (silent, leaf()),
    ):
        with pytest.raises(NoTrustedSignature, match="not issued by this authority"):
            ca.open_client(found)


def test_extensions_that_cannot_be_read_are_refused():
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"nonsense")
    with pytest.raises(InvalidInput, match="extensions cannot be read"):
        OURS.open_client(leaf(names))
    with pytest.raises(InvalidInput, match=r"expected X\.509 in DER"):
        OURS.open_client(b"nonsense")


def test_the_end_of_a_files_first_certificate_is_told(tmp_path):
    path = tmp_path / "server.pem"
    path.write_bytes(authority())
    assert certificate_end(path) == (NOW + timedelta(days=30)).replace(microsecond=0)
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidInput, match="expected a certificate in PEM"):
        certificate_end(path)
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        certificate_end(tmp_path / "missing")
    assert caught.value.why == "No such file or directory"
