"""Sealed bundles against their limits and peers, interleaved: load, seal, open one tensor, re-key.

Every loader runs in each round, from files in the page cache, and ends with all tensors in memory of their own; giving
that memory back is not timed. `safetensors.load_file` alone is a lazy mapping, so each of its tensors is copied. The C
library is told not to keep freed memory: a program loads a model once, into memory that it did not have before. The
floor reads the plaintext file into huge pages, also unmeasured before each loader, so that none pays for memory that a
virtual machine's host has to find first; the order changes from round to round. Of pyrage and tink the
decryption of the same bytes is timed, beside ours on one thread. One tensor is read warm, from an open bundle whose
header is known, and first, when the bundle is opened for it. Sealing is timed as the command line does it, which signs
the manifest and, with SHA-256 of them, the plain files. AES and BLAKE3 of this machine stand beside the
figures: without vectorised AES the cipher, and not the page faults, is the limit.
Writes benchmarks/results/seal.json: for each figure the median, the range and all rounds; for the ratios of loading
also the ratio of the best rounds, which is what the code can do where the host of a virtual machine takes time away,
and the ratio of the least CPU times.
"""

import base64
import io
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from unittest import mock

import cryptotensors
import cryptotensors.torch as cryptotensors_torch
import pyrage
import tensorizer
import tink
import torch
from safetensors.torch import load_file, save_file
from tink import cleartext_keyset_handle, streaming_aead

from stanch.crypto import SigningKey, VerifyKey, hash_bytes
from stanch.crypto.floe import Floe
from stanch.crypto.identity import Identity, generate_identity
from stanch.release.plain_signature import plain_signer
from stanch.seal import OpenBundle, OpenParams, SealParams, VolatileReleases, open_bundle, rekey, seal
from stanch.seal.arena import Arena
from stanch.seal.segments import SignedStreams, Verify
from stanch.sign import Bundle, TrustedKeys, sign_manifest, verify_manifest
from stanch.terms import VerifiedDigest

OUT = Path(__file__).parent / "results" / "seal.json"
ROUNDS, TENSORS, SHAPE, SMALL = 12, 48, (1024, 4096), "small"
NAME = "model.safetensors"
MEBIBYTE = 1 << 20
BLOCK = os.urandom(MEBIBYTE)
KEEP_NOTHING, THRESHOLD = "MALLOC_MMAP_THRESHOLD_", "131072"
PROCESS = multiprocessing.get_context("spawn")
Figures = defaultdict[str, list[float]]


@dataclass(frozen=True)
class Sealed:
    """One bundle, and what opens it."""

    path: Path
    publisher: VerifiedDigest
    identity: Identity

    def open(self, verify: Verify = "publisher", threads: int = min(4, os.cpu_count() or 1)) -> OpenBundle:
        """Open it, after the publisher's signature was verified."""
        params = OpenParams(threads=threads)
        return open_bundle(
            self.path, self.publisher, [self.identity], verify=verify, memory=VolatileReleases(), params=params
        )


def weights() -> dict[str, torch.Tensor]:
    """Make random bf16 tensors of 8 MiB each, and a small one."""
    generator = torch.Generator().manual_seed(1)
    made = {
        f"layer.{number}": torch.randint(0, 1 << 15, SHAPE, generator=generator, dtype=torch.int16).view(torch.bfloat16)
        for number in range(TENSORS)
    }
    return made | {SMALL: torch.ones(64, dtype=torch.bfloat16)}


def make_bundle(source: Path, dest: Path, signer: SigningKey, identity: Identity, *, sign: bool = True) -> None:
    """Seal a folder as `stanch seal create` does, plain files signed too; unsigned bundles are for timing alone."""
    sign_files = plain_signer(source, [signer]) if sign else None
    params = SealParams(kind="model", lineage="bench/model", release_number=1, plaintext_sha256=sign_files is not None)

    def finish(manifest: bytes) -> bytes:
        return sign_manifest(manifest, signer).to_bytes() if sign else b"{}"

    seal(source, dest, [identity.recipient], params, finish, sign_files)


def open_prepared(folder: Path) -> Sealed:
    """Return what :func:`prepare` sealed, with its signature verified."""
    bundle, public = folder / "m.sealed", VerifyKey.from_pem((folder / "publisher.pem").read_bytes(), what="publisher")
    signature = Bundle.parse((bundle / "manifest.sigstore.json").read_bytes(), what="signature")
    verified = verify_manifest((bundle / "manifest.json").read_bytes(), signature, TrustedKeys((public,)))
    return Sealed(bundle, verified, Identity.load(folder / "identity.json"))


def load_sealed(folder: Path, verify: Verify = "publisher", threads: int = min(4, os.cpu_count() or 1)) -> object:
    """Verify the signature, open, check, decrypt and give out every tensor."""
    with open_prepared(folder).open(verify, threads) as bundle:
        return bundle.tensors(NAME)


def load_plain(folder: Path) -> object:
    """Map with safetensors and copy every tensor."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model" / NAME).items()}


def read_floor(folder: Path) -> object:
    """Read the file into huge pages: the least that any loader must do."""
    path = folder / "model" / NAME
    size = path.stat().st_size
    memory = Arena(size).memory
    with path.open("rb", buffering=0) as file:
        done = 0
        while done < size:
            done += os.preadv(file.fileno(), [memory[done : done + 16 * MEBIBYTE]], done)
    return memory


def load_cryptotensors(folder: Path) -> object:
    """Verify and decrypt with cryptotensors."""
    cryptotensors.register_direct_key_provider(files=[str(folder / "cryptotensors.keys")])
    return cryptotensors_torch.load_file(folder / "m.cryptotensors")


def load_tensorizer(folder: Path) -> object:
    """Decrypt with tensorizer."""
    key = tensorizer.DecryptionParams.from_key((folder / "tensorizer.key").read_bytes())
    reader = tensorizer.TensorDeserializer(str(folder / "m.tensors"), device="cpu", encryption=key)
    loaded = dict(reader.items())
    reader.close()
    return loaded


def decrypt_pyrage(folder: Path) -> object:
    """Decrypt with age."""
    identity = pyrage.x25519.Identity.from_str((folder / "age.key").read_text())
    return pyrage.decrypt((folder / "m.age").read_bytes(), [identity])


def decrypt_tink(folder: Path) -> object:
    """Decrypt with tink's AES-256-GCM-HKDF in segments of 1 MiB."""
    primitive = tink_primitive((folder / "tink.key").read_text())
    with primitive.new_decrypting_stream((folder / "m.tink").open("rb"), b"") as stream:
        return stream.read()


LOADERS: dict[str, Callable[[Path], object]] = {
    "publisher": load_sealed,
    "aead": lambda folder: load_sealed(folder, "aead_only_unsafe"),
    "aead_one_thread": lambda folder: load_sealed(folder, "aead_only_unsafe", 1),
    "safetensors": load_plain,
    "floor": read_floor,
    "cryptotensors": load_cryptotensors,
    "tensorizer": load_tensorizer,
    "pyrage": decrypt_pyrage,
    "tink": decrypt_tink,
}


def tink_primitive(keyset: str) -> streaming_aead.StreamingAead:
    """Return tink's streaming cipher of a keyset in JSON."""
    streaming_aead.register()
    handle = cleartext_keyset_handle.read(tink.JsonKeysetReader(keyset))
    return handle.primitive(streaming_aead.StreamingAead)


def prepare(folder: Path, signer: SigningKey, identity: Identity) -> int:
    """Write the model, the sealed bundle and what the peers load; return the size of the plaintext."""
    source, tensors = folder / "model", weights()
    source.mkdir()
    save_file(tensors, source / NAME)
    data = (source / NAME).read_bytes()
    make_bundle(source, folder / "m.sealed", signer, identity)
    identity.save(folder / "identity.json")
    (folder / "publisher.pem").write_bytes(signer.public.to_pem())
    prepare_cryptotensors(folder, tensors)
    key = tensorizer.EncryptionParams.random()
    (folder / "tensorizer.key").write_bytes(key.key)
    writer = tensorizer.TensorSerializer(str(folder / "m.tensors"), encryption=key)
    writer.write_state_dict(tensors)
    writer.close()
    age = pyrage.x25519.Identity.generate()
    (folder / "age.key").write_text(str(age))
    (folder / "m.age").write_bytes(pyrage.encrypt(data, [age.to_public()]))
    streaming_aead.register()
    text = io.StringIO()
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    cleartext_keyset_handle.write(tink.JsonKeysetWriter(text), handle)
    (folder / "tink.key").write_text(text.getvalue())
    with tink_primitive(text.getvalue()).new_encrypting_stream((folder / "m.tink").open("wb"), b"") as stream:
        stream.write(data)
    return len(data)


def prepare_cryptotensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write the file of cryptotensors, encrypted and signed, and its keys."""
    signer = SigningKey.generate("ed25519")
    secret, private, public = (
        base64.b64encode(key).decode() for key in (os.urandom(32), signer.seed, signer.public.raw)
    )
    keys = {
        "enc_key": {"kty": "oct", "alg": "aes256gcm", "kid": "e", "k": secret},
        "sign_key": {"kty": "okp", "alg": "ed25519", "kid": "s", "d": private, "x": public},
    }
    cryptotensors_torch.save_file(tensors, folder / "m.cryptotensors", config=keys)
    (folder / "cryptotensors.keys").write_text(json.dumps({"keys": list(keys.values())}))


def seconds(call: Callable[..., object], *values: object, **options: object) -> float:
    """Time one call; what it returns is dropped after."""
    return times(call, *values, **options)[0]


def times(call: Callable[..., object], *values: object, **options: object) -> tuple[float, float]:
    """Time one call, by the clock and by the CPU; what it returns is dropped after."""
    start, cpu = time.perf_counter(), time.process_time()
    result = call(*values, **options)
    took = time.perf_counter() - start, time.process_time() - cpu
    del result
    return took


def read_first_tensor(sealed: Sealed) -> None:
    """Open a bundle and read one small tensor of it: the index, its file's header, and the tensor."""
    with sealed.open() as bundle:
        bundle.tensor(SMALL)


def count_segments(call: Callable[..., object], *values: object) -> int:
    """Count the segments that are read during a call."""
    read = SignedStreams.read_segments
    with mock.patch.object(SignedStreams, "read_segments", autospec=True, side_effect=read) as spy:
        call(*values)
    return sum(len(call.args[2]) for call in spy.call_args_list)


def peak_above_model(folder: Path) -> float:
    """Return by how many MiB a fresh process that loads the bundle exceeds what it was before and the model itself."""
    results: Queue[float] = PROCESS.Queue()
    process = PROCESS.Process(target=peak_in_process, args=(folder, results))
    process.start()
    found = results.get()
    process.join()
    return found


def peak_in_process(folder: Path, results: "Queue[float]") -> None:
    """Load and report; VmHWM and not ru_maxrss, which a process inherits."""
    before = memory_peak()
    with open_prepared(folder).open() as bundle:
        tensors = bundle.tensors(NAME)
    results.put(memory_peak() - before - sum(tensor.raw.nbytes for tensor in tensors.values()) / MEBIBYTE)


def memory_peak() -> float:
    """Return the most memory that this process held, in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def summary(rounds: list[float]) -> dict[str, object]:
    """Median and range of the rounds."""
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}


def compare(took: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, object]]:
    """Return the ratios of all pairs of loaders that a goal is about: by round, of the best, of the least CPU time."""
    pairs = [(ours, peer) for ours in ("publisher", "aead") for peer in ("safetensors", "floor")]
    pairs += [(peer, ours) for ours in ("publisher", "aead") for peer in ("cryptotensors", "tensorizer")]
    pairs += [(peer, "aead_one_thread") for peer in ("pyrage", "tink")]
    found = {}
    for one, other in pairs:
        (clock, cpu), (clock2, cpu2) = (zip(*took[name], strict=True) for name in (one, other))
        ratios = summary([a / b for a, b in zip(clock, clock2, strict=True)])
        best = {"best": min(clock) / min(clock2), "cpu": min(cpu) / min(cpu2)}
        found[f"load_{one}_over_{other}"] = best | ratios
    return found


def measure(folder: Path, figures: Figures) -> dict[str, dict[str, object]]:
    """Run all rounds; return the ratios of the loaders."""
    signer, identity = SigningKey.generate("p256"), generate_identity()
    size = prepare(folder, signer, identity)
    sealed, took = open_prepared(folder), defaultdict[str, list[tuple[float, float]]](list)
    for number in range(ROUNDS):
        os.sync()
        load_all(folder, number, took, figures)
        target, source = folder / "again.sealed", folder / "model"
        plain = seconds(make_bundle, source, target, signer, identity, sign=False)
        shutil.rmtree(target)
        figures["seal_and_sign_files_over_seal"].append(seconds(make_bundle, source, target, signer, identity) / plain)
        shutil.rmtree(target)
        with sealed.open() as bundle:
            bundle.tensor(SMALL)
            figures["one_tensor_ms"].append(1000 * seconds(bundle.tensor, SMALL))
        figures["first_tensor_ms"].append(1000 * seconds(read_first_tensor, sealed))
        other = [generate_identity().recipient]
        figures["rekey_ms"].append(1000 * seconds(rekey, sealed.path, sealed.publisher, identity, other))
    with sealed.open() as bundle:
        bundle.tensor(SMALL)
        figures["segments_of_one_tensor"].append(count_segments(bundle.tensor, SMALL))
    figures["segments_of_first_tensor"].append(count_segments(read_first_tensor, sealed))
    stored = sum(path.stat().st_size for path in sealed.path.rglob("*") if path.is_file())
    figures["size_overhead_percent"].append(100 * (stored / size - 1))
    figures["peak_above_model_mib"] = [peak_above_model(folder) for _ in range(3)]
    for name in ("publisher", "aead", "safetensors"):
        figures[f"load_{name}_gb_per_second"] = [size / clock / 1e9 for clock, _ in took[name]]
    return compare(took)


def load_all(folder: Path, number: int, took: dict[str, list[tuple[float, float]]], figures: Figures) -> None:
    """Run every loader once, and what limits ours on this machine."""
    names = random.Random(number).sample([*LOADERS], len(LOADERS))  # noqa: S311 - a reproducible order
    for name in names:
        read_floor(folder)
        took[name].append(times(LOADERS[name], folder))
    figures["aes_gcm_gb_per_second"].append(aes_rate())
    figures["blake3_gb_per_second"].append(MEBIBYTE / seconds(hash_bytes, "blake3", BLOCK) / 1e9)


def aes_rate() -> float:
    """Return how fast this machine decrypts a segment, in GB/s."""
    key, aad = os.urandom(32), b""
    encryptor = Floe.encryptor(key, aad, seg=MEBIBYTE)
    plain, stored = BLOCK[: MEBIBYTE - 32], memoryview(bytearray(MEBIBYTE))
    encryptor.segment_into(plain, 0, False, stored)
    decryptor, out = Floe.decryptor(key, aad, encryptor.header, seg=MEBIBYTE), memoryview(bytearray(len(plain)))
    decryptor.segment_into(stored, 0, False, out)
    return len(plain) / seconds(decryptor.segment_into, stored, 0, False, out) / 1e9


def main() -> None:
    """Measure and write."""
    if os.environ.get(KEEP_NOTHING) != THRESHOLD:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {KEEP_NOTHING: THRESHOLD})  # noqa: S606
    warnings.simplefilter("ignore")
    load, figures = os.getloadavg()[0], defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory() as name:
        ratios = measure(Path(name), figures)
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": load, "huge_pages": huge.read_text().strip() if huge.exists() else "none"}
    result |= ratios | {label: summary(rounds) for label, rounds in figures.items()}
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for label, figure in result.items():
        if isinstance(figure, dict):
            print(f"{label:<40}", *(f"{name} {figure[name]:.3g}" for name in figure if name != "rounds"))


if __name__ == "__main__":
    main()
