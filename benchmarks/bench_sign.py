"""Verification of a signed directory beside model-signing 1.1.1 with its default hash (SHA-256), interleaved.

Writes benchmarks/results/sign.json: medians and ranges of all rounds in seconds of wall clock, and the ratios to the
peer of the same round. Needs model-signing and pyopenssl. The files lie in the page cache, so that hashing is
measured and no disk. A directory of several files lets the peer use all cores too.

Usage: bench_sign.py [MEGABYTES] [ROUNDS]
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from model_signing import hashing, signing, verifying

from stanch.crypto import SigningKey
from stanch.sign import Bundle, TrustedKeys, sign_directory, verify_directory
from stanch.weights import Tensor, write_safetensors

OUT = Path(__file__).parent / "results" / "sign.json"
MEGABYTES, ROUNDS = 400, 12
FILES = 4


def make_model(folder: Path, megabytes: int) -> None:
    """Write safetensors of random numbers, and a small configuration."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    rows = megabytes * 1_000_000 // FILES // 4096
    for number in range(FILES):
        values = rng.standard_normal((rows, 1024), dtype=np.float32)
        name = f"model-{number + 1:05}-of-{FILES:05}.safetensors"
        write_safetensors(folder / name, [Tensor.from_float32("weight", values, "F32")])
    (folder / "config.json").write_text("{}")


def cases(place: Path, model: Path) -> dict[str, Callable[[], object]]:
    """Return what is measured; each verifies the whole directory."""
    key = SigningKey.generate("p256")
    key.save(place / "key.pem")
    (place / "key.pub.pem").write_bytes(key.public.to_pem())
    theirs = place / "theirs.sig"
    signing.Config().use_elliptic_key_signer(private_key=place / "key.pem").set_hashing_config(hashing.Config()).sign(
        model, theirs
    )
    trusted = TrustedKeys((key.public,))
    made: dict[str, Callable[[], object]] = {"model_signing_sha256": lambda: verify_theirs(place, model, theirs)}
    for name in ("blake3", "sha256"):
        made[f"stanch_{name}"] = verify_ours(model, sign_directory(model, key, hash=name), trusted)
    return made


def verify_theirs(place: Path, model: Path, signature: Path) -> None:
    """Verify with the peer, as its own command does."""
    verifying.Config().use_elliptic_key_verifier(public_key=place / "key.pub.pem").verify(model, signature)


def verify_ours(model: Path, bundle: Bundle, trusted: TrustedKeys) -> Callable[[], object]:
    """Return a verification by stanch, from the bytes of the signature on."""
    data = bundle.to_bytes()
    return lambda: verify_directory(model, Bundle.parse(data), trusted)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    """Measure and write."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name) / "model", megabytes)
        measured = cases(Path(name), Path(name) / "model")
        for call in measured.values():
            call()
        found: dict[str, list[float]] = {label: [] for label in measured}
        for _ in range(rounds):
            for label, call in measured.items():
                found[label].append(seconds(call))
    peer = found["model_signing_sha256"]
    ratios = {
        f"{label}_over_model_signing": [a / b for a, b in zip(found[label], peer, strict=True)]
        for label in ("stanch_blake3", "stanch_sha256")
    }
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "megabytes": megabytes,
        "files": FILES,
        "rounds": rounds,
        "seconds": {label: summary(values) for label, values in found.items()},
        "ratios": {label: summary(values) for label, values in ratios.items()},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for part in ("seconds", "ratios"):
        for label, value in result[part].items():
            print(f"{label:<40} {value['median']:8.3g} [{value['low']:.3g}, {value['high']:.3g}]")


if __name__ == "__main__":
    main()
