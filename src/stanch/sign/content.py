"""What a file is, judged by its bytes first and by its name second; nothing is ever executed or unpickled."""

import io
import json
import os
import re
import tarfile
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stanch.errors import InvalidSafetensors
from stanch.sign.files import open_regular
from stanch.weights import names_code, read_head

_HEAD = 64 << 10
_MAX_JSON = 64 << 20
_PICKLE = re.compile(rb"\x80[\x02-\x05]", re.DOTALL)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NPY = b"\x93NUMPY"

_CODE = frozenset(
    {".py", ".pyw", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".jar"}
)
_SHARED_OBJECT = re.compile(r"\.so(\.[0-9]+)+$")
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"})
_OTHER_WEIGHTS = {".h5": "HDF5", ".hdf5": "HDF5", ".keras": "Keras", ".nemo": "NeMo"}
_PROGRAMS = {
    b"\x7fELF": "a Linux program or library",
    b"MZ": "a Windows program or library",
    b"\xfe\xed\xfa\xce": "a macOS program or library",
    b"\xfe\xed\xfa\xcf": "a macOS program or library",
    b"\xce\xfa\xed\xfe": "a macOS program or library",
    b"\xcf\xfa\xed\xfe": "a macOS program or library",
    b"\xca\xfe\xba\xbe": "a Java class or macOS program",
    b"\x00asm": "a WebAssembly program",
    b"#!": "a script",
}
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}

_TO_SAFETENSORS = "convert the weights to safetensors, on a machine that may be lost, and remove the file"
_REMOVE = "remove it, and use an architecture that the library has built in"
_UNPACK = "unpack it elsewhere, inspect what it holds, and ship the plain files"


@dataclass(frozen=True, slots=True)
class IntakeFinding:
    """Something unsafe.

    Attributes:
        path: Relative path of the file.
        kind: ``pickle``, ``torch-archive``, ``archive``, ``code``, ``weights``, ``numpy-object``, ``remote-code``,
            ``safetensors``, ``json``, ``link``, ``name`` or ``name-clash``.
        reason: What is wrong, in words that follow the path.
        convert: What to do instead.
    """

    path: str
    kind: str
    reason: str
    convert: str


def find_unsafe(root: Path, name: str) -> Iterator[IntakeFinding]:
    """Yield everything unsafe about the regular file ``name`` below ``root``.

    Raises:
        InvalidInput: It cannot be read.
    """
    suffix = Path(name).suffix.lower()
    with open(open_regular(root, name), "rb") as stream:  # noqa: PTH123 - from a descriptor
        if suffix == ".safetensors":
            # Loaders take such a file for nothing else, and its first bytes are a length: any magic number is chance.
            yield from _check_safetensors(stream, name)
            return
        head = stream.read(_HEAD)
        found = [
            IntakeFinding(name, *item)
            for item in (
                _check_pickle(head), _check_program(head), _check_hdf5(stream), _check_numpy(head),
                _check_archive(stream, head, suffix), _check_json(stream, head, suffix),
            )
            if item is not None
        ]  # fmt: skip
        yield from found
    if not found and (item := _check_suffix(name, suffix)) is not None:
        yield IntakeFinding(name, *item)


_Fault = tuple[str, str, str] | None
"""Kind, reason and hint, or nothing."""


def _check_safetensors(stream: BinaryIO, name: str) -> Iterator[IntakeFinding]:
    try:
        read_head(stream, os.fstat(stream.fileno()).st_size, what=Path(name).name)
    except InvalidSafetensors as error:
        reason = f"breaks a rule of safetensors ({error.what.partition(': ')[2]})"
        yield IntakeFinding(name, "safetensors", reason, "write it again with the safetensors library")


def _check_pickle(head: bytes) -> _Fault:
    if _PICKLE.match(head):
        return "pickle", "is a pickle: loading it runs whatever it says", _TO_SAFETENSORS
    return None


def _check_program(head: bytes) -> _Fault:
    for magic, what in _PROGRAMS.items():
        if head.startswith(magic):
            return "code", f"is {what}", _REMOVE
    return None


def _check_hdf5(stream: BinaryIO) -> _Fault:
    # The signature may stand behind a user block of 0, 512, 1024, 2048 … bytes (HDF5 format, section II.A).
    offset, size = 0, os.fstat(stream.fileno()).st_size
    while offset < size:
        stream.seek(offset)
        if stream.read(len(_HDF5)) == _HDF5:
            return "weights", "is HDF5, which Keras loads with code inside", _TO_SAFETENSORS
        offset = max(512, offset * 2)
    return None


def _check_numpy(head: bytes) -> _Fault:
    if not head.startswith(_NPY):
        return None
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header that has to be repaired first is a damaged one
            unsafe = version not in {(1, 0), (2, 0)} or read(stream)[2].hasobject
    except (UserWarning, ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        unsafe = True
    if unsafe:
        return "numpy-object", "is a NumPy file of objects (a pickle) or a damaged one", "save an array of numbers"
    return None


def _check_archive(stream: BinaryIO, head: bytes, suffix: str) -> _Fault:
    """Refuse archives unopened: unpacking them is what an attacker would want."""
    # A zip is found by its end: it may stand behind any other file.
    if head.startswith(b"PK\x03\x04") or zipfile.is_zipfile(stream):
        if b"data.pkl" in head:
            return "torch-archive", "is a torch archive: loading it unpickles data.pkl", _TO_SAFETENSORS
        what: str | None = "zip"
    elif head[257:262] == b"ustar" or _is_old_tar(head):
        what = "tar"
    else:
        what = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), None)
    if what is None:
        return None
    hint = _TO_SAFETENSORS if suffix in _PICKLED or suffix in _OTHER_WEIGHTS else _UNPACK
    return "archive", f"is a {what} archive: what it holds was not inspected", hint


def _is_old_tar(head: bytes) -> bool:
    """Tell whether the first block's checksum is that of a tar header; old writers left no magic number."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_json(stream: BinaryIO, head: bytes, suffix: str) -> _Fault:
    """Look for keys that make a library fetch or import code, at any depth, however they are spelled."""
    if suffix not in {".json", ".jsonl"} and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in {b"{", b"["}:
        return None
    stream.seek(0)
    data = stream.read(min(_MAX_JSON, os.fstat(stream.fileno()).st_size) + 1)  # a read reserves what it asks for
    found: set[str] = set()

    def note(pairs: list[tuple[str, Any]]) -> bool:
        found.update(key for key, value in pairs if names_code(key, value))
        return bool(pairs)  # all that is asked of an object that is a value

    try:
        documents = data.splitlines() if suffix == ".jsonl" else [data]
        for document in documents if len(data) <= _MAX_JSON else []:
            if document.strip():
                json.loads(document, object_pairs_hook=note)
    except (ValueError, RecursionError):
        # Text that only begins like JSON is no JSON; a file that calls itself so must be.
        if suffix in {".json", ".jsonl"}:
            return "json", "is not valid JSON: readers may disagree on what it says", "write it again as JSON"
    if len(data) > _MAX_JSON:
        return "json", f"is JSON of more than {_MAX_JSON >> 20} MiB, too large to inspect", "split it"
    if found:
        return "remote-code", f"names code that comes with the model ({', '.join(sorted(found))})", _REMOVE
    return None


def _check_suffix(name: str, suffix: str) -> _Fault:
    """Judge by the name alone: a loader would take the file for what its name says."""
    if suffix in _CODE or _SHARED_OBJECT.search(name.lower()):
        return "code", f"is code by its name ({suffix})", _REMOVE
    if suffix in _PICKLED:
        return "pickle", f"is a pickle by its name ({suffix}): loading it runs whatever it says", _TO_SAFETENSORS
    if (what := _OTHER_WEIGHTS.get(suffix)) is not None:
        return "weights", f"is {what} by its name ({suffix}): loading it can run code", _TO_SAFETENSORS
    return None
