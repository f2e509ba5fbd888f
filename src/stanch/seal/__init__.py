"""Sealed bundles: a tuned model or a dataset as ciphertext that only named recipients open.

Anybody can check a bundle against its publisher's signature; it loads straight into memory without plaintext on disk;
its recipients change without touching its body. The format is specified in ``docs/spec/sealed-bundle.md``.

What this package cannot do alone is vouch for a publisher: :func:`open_bundle` demands a
:class:`stanch.terms.VerifiedDigest`, which ``stanch.sign`` makes::

    bundle = seal(Path("model"), Path("acme.sealed"), [parse_recipient(text)], params, finish=sign)

    with open_bundle(Path("acme.sealed"), verified_digest, [identity], memory=FileReleases(path)) as bundle:
        config = bundle.read("config.json")
        weight = bundle.tensor("lm_head.weight").to_float32()      # reads only the segments that hold it

Models load with :mod:`stanch.seal.load_torch`, which needs the extra ``train``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
