"""Is one key stream ever used for two plaintexts, so that the XOR of two files shows what they hold?

Whoever holds the bucket compares all he can get: two copies of one model, two seals of one folder, copies before and
after a re-key, the leftovers of an interrupted seal, and what two machines made that were once one snapshot.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scene import done, facts, stanch, team

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]

BLOCK, SEGMENT, SIZE = 16, 1 << 20, 16 << 20


def streams(*folders):
    """Return the encrypted bytes of every stream below the folders."""
    return {path: path.read_bytes() for folder in folders for path in sorted(Path(folder).rglob("*.floe"))}


def assert_no_pad_twice(found):
    """Assert that no block of ciphertext, no stream nonce and no segment nonce stands in two streams."""
    assert len(found) >= 10
    nonces = [data[10:42] for data in found.values()] + [data[74 + 4 : 74 + 16] for data in found.values()]
    assert len(set(nonces)) == 2 * len(found)
    seen = {}
    for path, data in found.items():
        body = data[74 + 16 :]
        for block in {body[at : at + BLOCK] for at in range(0, len(body) - BLOCK, BLOCK)}:
            assert block not in seen, (path, seen[block])
            seen[block] = path


def assert_xor_is_noise(one, other):
    """Assert that two ciphertexts of one plaintext differ in about half their bits, as strangers do."""
    size = min(len(one), len(other)) - 90
    both = int.from_bytes(one[90 : 90 + size], "big") ^ int.from_bytes(other[90 : 90 + size], "big")
    # 8 size bits that are 1 with probability 1/2: five deviations are met once in two million.
    assert abs(both.bit_count() - 4 * size) < 5 * (2 * size) ** 0.5


def assert_strangers(*folders):
    assert_no_pad_twice(streams(*folders))
    for one, other in itertools.combinations(folders, 2):
        big = [max(streams(folder).values(), key=len) for folder in (one, other)]
        assert len(big[0]) == len(big[1]) > 10_000
        assert_xor_is_noise(*big)


def seal(out):
    if not Path("mine.pem").exists():
        done(stanch("key new --kind sign --out mine.pem"))
    to = facts("acme")["to"]
    return done(stanch(f"seal create model --to {to} --sign-key mine.pem --lineage acme/bot --out {out}"))


def test_the_copies_of_two_recipients():
    assert_strangers("acme.sealed", "bolt.sealed")


def test_one_folder_sealed_twice_and_sealed_anew():
    seal("one")
    seal("two")
    words = f"--identity acme.key --to {facts('bolt')['to']} --sign-key mine.pem --trust mine.pub.pem"
    done(stanch(f"seal reseal one {words} --out three"))
    assert_strangers("one", "two", "three")


def test_taking_a_recipient_in_and_out_encrypts_nothing_again():
    seal("one")
    before = streams("one")
    words = f"--trust mine.pub.pem --identity acme.key --add {facts('bolt')['to']}"
    done(stanch(f"seal rekey one {words}"))
    assert streams("one") == before


def test_two_machines_that_were_one_snapshot():
    """The whole state of the publisher is copied, and each copy makes the same release: no key comes from state."""
    to = facts("acme")["to"]
    words = "release propose model --base base --cert leakcert.json --name r2 --lineage acme/bot --number 2"
    done(team("dana", f"{words} --to acme={to}"))
    put = "release create r2 --to acme --approver rita --approver rolf --policy gate.toml --out"
    shutil.copytree("team", "clone")
    done(team("rolf", f"{put} one"))
    done(stanch(f"--workspace clone --as rolf --passphrase-file rolf.txt {put} two"))
    assert_strangers("one", "two")


def kill_while_it_writes(words, partial):
    """Start a seal, kill it once a segment is written, and say whether it was still at it."""
    child = subprocess.Popen([sys.executable, "-m", "stanch", *words.split()], stderr=subprocess.DEVNULL)
    with contextlib.suppress(FileNotFoundError):  # it has ended, and the folder has its name
        while child.poll() is None and not any(path.stat().st_size > SEGMENT for path in partial.glob("body/*")):
            time.sleep(0.002)
    child.kill()
    assert child.wait() in {0, -signal.SIGKILL}
    return partial.exists()


def test_an_interrupted_seal_and_its_repetition(here):
    """Killed while it writes: what lies there and what the same command then makes share no key."""
    done(stanch("key new --kind sign --out mine.pem"))
    big = here / "big"
    big.mkdir()
    (big / "config.json").write_text("{}")
    (big / "weights.bin").write_bytes(b"\0")
    os.truncate(big / "weights.bin", SIZE)
    words = f"seal create big --to {facts('acme')['to']} --sign-key mine.pem --lineage l --out sealed"
    while not kill_while_it_writes(words, here / "sealed.partial"):
        shutil.rmtree(here / "sealed")  # it had ended before it was struck
    left = shutil.move(here / "sealed.partial", here / "left")
    refused = stanch("--json release open left --identity acme.key --trust mine.pub.pem")
    assert (refused.code, refused.slug) == (1, "not-sealed"), refused  # what was not finished opens for nobody
    done(stanch(words))
    first, again = (max(streams(folder).values(), key=len)[:SEGMENT] for folder in (left, here / "sealed"))
    assert first[10:42] != again[10:42]
    assert_xor_is_noise(first, again)
