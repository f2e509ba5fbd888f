"""Leak certificates that lists count: each file is verified once, and again when it or the trusted keys change."""

import threading
from pathlib import Path
from typing import NamedTuple

from stanch.audit.certificate_file import read_certificate
from stanch.audit.leakcert import ROOT_SUBJECT, LeakCert
from stanch.errors import InvalidInput, StanchError, VerificationError
from stanch.sign import TrustedKeys
from stanch.terms import Digest


class _Kept(NamedTuple):
    """What became of a certificate: the state of its file and the keys, and the certificate or why it is none."""

    state: tuple[object, ...]
    certificate: LeakCert | str


class Certificates:
    """The certificates that were looked at, by file and model."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, Digest], _Kept] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, model: Digest, trusted: TrustedKeys) -> LeakCert:
        """Return a certificate of a model whose signature and figures hold.

        Raises:
            InvalidInput: There is no such file.
            VerificationError: No trusted key signed it, its figures contradict each other, or it is another model's.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
        keys = frozenset(key.to_pem() for key in trusted.keys)
        state = (found.st_ino, found.st_size, found.st_mtime_ns, keys)
        with self._lock:
            kept = self._kept.get((path, model))
        if kept is None or kept.state != state:
            kept = _Kept(state, _verify(path, model, trusted))
            with self._lock:
                self._kept[path, model] = kept
        if isinstance(kept.certificate, str):
            raise VerificationError(kept.certificate)
        return kept.certificate


def _verify(path: Path, model: Digest, trusted: TrustedKeys) -> LeakCert | str:
    """Return the certificate, or why it does not hold."""
    try:
        statement = read_certificate(path, trusted).statement
        cert = LeakCert.parse(statement.predicate)
    except StanchError as error:
        return error.what
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if {one.digest for one in statement.subjects if one.name == ROOT_SUBJECT} != {model}:
        return f"{path}: it is about another model"
    return cert
