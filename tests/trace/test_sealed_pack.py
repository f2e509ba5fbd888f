"""A pack that is sealed to its reader: byte for byte the plain one, and nowhere in plain on the way."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from trace_world import CASE_KEY

from stanch.crypto.identity import generate_identity
from stanch.errors import StanchError
from stanch.release import open_copy
from stanch.seal import VolatileReleases, read_manifest
from stanch.sign import TrustedKeys
from stanch.trace import PackForm, PackInvalid, verify_pack
from stanch.trace.evidence import PACK_NAME

READER, SECOND, STRANGER = (generate_identity() for _ in range(3))
SEALED = PackForm(CASE_KEY, recipients=(READER.recipient, SECOND.recipient))
PLAIN = (b"verifier/verify.py", b'"subkey"', b"report.html", b"From whose copy was this made?")


def unseal(bundle, identity):
    trusted = TrustedKeys((CASE_KEY.public,))
    with open_copy(bundle, trusted, [identity], memory=VolatileReleases()) as opened:
        return {file.path: bytes(opened.read(file.path)) for file in opened.files()}


def test_its_recipients_get_the_very_pack_and_nobody_else_does(world, stolen, evidence, tmp_path):
    made = world.pack(stolen, tmp_path / "pack.sealed", form=SEALED)
    assert made.digest == evidence.digest
    for reader in (READER, SECOND):
        assert unseal(made.path, reader) == {PACK_NAME: evidence.path.read_bytes()}
    with pytest.raises(StanchError):
        unseal(made.path, STRANGER)
    (tmp_path / PACK_NAME).write_bytes(unseal(made.path, READER)[PACK_NAME])
    assert verify_pack(tmp_path / PACK_NAME, key=CASE_KEY.public, vkey=world.log.vkey).accused
    stored = b"".join(path.read_bytes() for path in made.path.rglob("*") if path.is_file())
    assert not [words for words in PLAIN if words in stored]


def test_no_file_is_written_but_the_bundles_own(world, stolen, tmp_path):
    """Features, which hold no key, lie in scratch files without a name; everything else that is written is sealed."""
    written, watching = [], [True]

    def watch(event, details):
        if watching and event == "open":
            path, _, flags = details
            # A folder is opened so for a file without a name.
            if (
                flags & (os.O_WRONLY | os.O_RDWR)
                and isinstance(path, str | bytes)
                and not Path(os.fsdecode(path)).is_dir()
            ):
                written.append(os.fsdecode(path))

    sys.addaudithook(watch)
    out = tmp_path / "pack.sealed"
    try:
        world.pack(stolen, out, form=SEALED)
    finally:
        watching.clear()
    assert written
    assert [path for path in written if not path.startswith(f"{out}.partial/")] == []
    assert list(tmp_path.iterdir()) == [out]


def test_a_pack_has_the_number_that_it_was_given(world, stolen, tmp_path):
    made = world.pack(stolen, tmp_path / "pack.sealed", form=replace(SEALED, number=7))
    found = read_manifest(made.path)
    assert (found.kind, found.lineage, found.release_number) == ("other", f"evidence/{stolen.case.id}", 7)


def test_what_does_not_verify_is_not_sealed(world, stolen, tmp_path):
    other = world.examine(world.copy("acme"))
    with pytest.raises(PackInvalid) as caught:
        world.pack(stolen, tmp_path / "mixed", proofs=other.proofs, form=SEALED)
    assert caught.value.step == "plan"
    assert str(tmp_path / "mixed") in str(caught.value)
    assert list(tmp_path.iterdir()) == []
