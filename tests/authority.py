"""A time-stamping authority (RFC 3161) for the tests: openssl answers behind a server on this machine."""

import contextlib
import http.server
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stanch.crypto.timestamp import TimestampQuery, TimestampRoots

NOW = datetime.now(UTC)
CONFIG = """
[tsa]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def certificate(name, key, issuer, issuer_key, *extensions, days=(-1, 30), serial=7):
    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A root, and a time-stamping authority below it whose answers openssl makes."""

    def __init__(self, folder, *, days=(-1, 30)):
        self.folder = folder
        folder.mkdir()
        self.days = days
        self.root_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        constraints = (x509.BasicConstraints(ca=True, path_length=None), True)
        self.root = certificate("root", self.root_key, "root", self.root_key, constraints, days=(-400, 30), serial=1)
        (folder / "tsa.pem").write_bytes(self.leaf(ExtendedKeyUsageOID.TIME_STAMPING))
        (folder / "tsa.key").write_bytes(private_pem(self.key))
        (folder / "serial").write_text("01")
        (folder / "tsa.conf").write_text(CONFIG.format(folder=folder))

    def leaf(self, usage):
        return certificate(
            "tsa", self.key, "root", self.root_key, (x509.ExtendedKeyUsage([usage]), True), days=self.days
        )  # fmt: skip

    @property
    def roots(self):
        return TimestampRoots.from_pem(self.root, what="roots.pem")

    def answer(self, query):
        (self.folder / "query").write_bytes(query)
        command = ["openssl", "ts", "-reply", "-config", "tsa.conf", "-section", "tsa", "-queryfile", "query", "-out",
                   "reply"]  # fmt: skip
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return (self.folder / "reply").read_bytes()

    def stamp(self, bundle):
        """Return the bundle with this authority's word on its first signature, unchecked."""
        return replace(bundle, timestamps=(self.answer(TimestampQuery.about(bundle.signature).data),))


@contextlib.contextmanager
def served(answer, *, status=200):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            query = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.headers["Content-Type"] == "application/timestamp-query"
            body = answer(query) if right else b""
            self.send_response(status if right else 415)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/tsa"
        server.shutdown()
