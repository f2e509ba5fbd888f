"""Sealed bundles of several streams, and stores that fail or lie; the kill script needs them without pytest."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import StoreError
from stanch.release import DeliverParams, RemoteBundle
from stanch.release import deliver as deliver_bundle
from stanch.release import revoke as revoke_recipient
from stanch.seal import SealParams, VolatileReleases, read_manifest, seal
from stanch.sign import TrustedKeys, sign_manifest
from stanch.store import FileBlobs

MIB = 1 << 20
SIZES = {"config.json": 20, "empty": 0, "weights.bin": 3 * MIB + 12345}


@dataclass(frozen=True)
class World:
    """A publisher, two recipients, and a bundle for them."""

    publisher: SigningKey
    identities: tuple
    bundle: Path
    sealed: object

    @property
    def trusted(self):
        return TrustedKeys((self.publisher.public,))

    @property
    def bundle_id(self):
        return self.sealed.manifest.bundle_id

    def remote(self, blobs, location="file:here"):
        return RemoteBundle(blobs, location, self.bundle_id)


def make_bundle(folder, publisher, recipients, *, number=1, sizes=None):
    source = folder / "source"
    source.mkdir(parents=True)
    for name, size in (sizes or SIZES).items():
        (source / name).write_bytes(os.urandom(size))
    params = SealParams(kind="model", lineage="acme/bot", release_number=number, workers=2)
    return seal(
        source, folder / "bundle.sealed", recipients, params, lambda data: sign_manifest(data, publisher).to_bytes()
    )


def make_world(folder, **options):
    publisher, identities = SigningKey.generate("p256"), (generate_identity(), generate_identity())
    sealed = make_bundle(folder, publisher, [identity.recipient for identity in identities], **options)
    return World(publisher, identities, sealed.path, sealed)


def deliver(bundle, blobs, trusted, *, memory=None, **params):
    """Deliver to a store of which the publisher knows nothing, unless it remembers."""
    remote = RemoteBundle(blobs, "file:here", read_manifest(bundle).bundle_id)
    return deliver_bundle(bundle, remote, trusted, memory=memory or VolatileReleases(), params=DeliverParams(**params))


def revoke(remote, order, trusted, *, memory=None):
    """Revoke at a store of which the publisher knows nothing, unless it remembers."""
    return revoke_recipient(remote, order, trusted, memory=memory or VolatileReleases())


class Store:
    """A store of which every call first goes to ``before`` and every answer of ``get`` through ``after``."""

    def __init__(self, blobs, *, before=lambda *_: None, after=lambda _key, data: data):
        self.blobs, self.before, self.after, self.calls = blobs, before, after, []

    def _call(self, name, key):
        self.calls.append((name, key))
        self.before(len(self.calls), name, key)

    def put(self, key, data, *, mode):
        self._call("put", key)
        return self.blobs.put(key, data, mode=mode)

    def get(self, key, *, start=0, length=None):
        self._call("get", key)
        return self.after(key, self.blobs.get(key, start=start, length=length))

    def head(self, key):
        self._call("head", key)
        return self.blobs.head(key)

    def list(self, prefix=""):
        return self.blobs.list(prefix)

    def delete(self, key):
        self.blobs.delete(key)


def fails_at(number):
    """Return what makes every call from the given one on fail."""

    def before(count, *_):
        if count >= number:
            raise StoreError("the network is gone")

    return before


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(number):
    """Return what kills this process at the given call, as ``kill -9`` would."""
    return lambda count, *_: die() if count >= number else None


def open_store(folder):
    return FileBlobs(Path(folder))
