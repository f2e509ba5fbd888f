import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import floe
from stanch.crypto.floe import HEADER_SIZE, SEGMENT_OVERHEAD, Floe, FloeEncryptor
from stanch.errors import DecryptionFailed, InvalidInput

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/vectors/floe/golden.json").read_text())
PUBLISHED = ROOT.parent / "shared" / "vectors" / "floe"
PAIRS = sorted(path.name.removesuffix("_ct.txt") for path in PUBLISHED.glob("*_ct.txt"))
KEY, AAD = bytes(range(32)), b"associated"
SEG, ROOM = 64, 32


def golden(name):
    return bytes.fromhex(GOLDEN[name])


def seal(plaintext, *, seg=SEG, key=KEY, aad=AAD):
    """Return header and segments of a stream, the last one empty only for an empty plaintext."""
    encryptor = Floe.encryptor(key, aad, seg=seg)
    room = seg - SEGMENT_OVERHEAD
    count = max(1, -(-len(plaintext) // room))
    out, segments = memoryview(bytearray(seg)), []
    for n in range(count):
        length = encryptor.segment_into(plaintext[n * room : (n + 1) * room], n, n == count - 1, out)
        segments.append(bytes(out[:length]))
    return encryptor.header, segments


def open_all(decryptor, segments):
    out, plain = memoryview(bytearray(1 << 20)), b""
    for n, segment in enumerate(segments):
        length = decryptor.segment_into(segment, n, n == len(segments) - 1, out)
        plain += bytes(out[:length])
    return plain


def refused(decryptor, segment, position, final):
    """Check that a segment is refused and that its output is all zeros."""
    out = memoryview(bytearray(b"\xaa" * 128))
    with pytest.raises(DecryptionFailed):
        decryptor.segment_into(segment, position, final, out)
    length = max(len(segment) - SEGMENT_OVERHEAD, 0)
    return bytes(out[:length]) == bytes(length)


def test_golden_key_schedule():
    schedule = floe._Schedule(golden("key"), golden("aad"), golden("iv"), 1 << 20)
    assert schedule.header == golden("params") + golden("iv") + golden("header_tag")
    assert schedule._message_key == golden("message_key")
    for position, key in GOLDEN["segment_keys"].items():
        assert schedule.segment_key(int(position)).hex() == key


def test_golden_segment_both_ways():
    schedule = floe._Schedule(golden("key"), golden("aad"), golden("iv"), 1 << 20)
    out = memoryview(bytearray(38))
    assert FloeEncryptor(schedule, bytes).segment_into(golden("plaintext"), 0, True, out) == 38
    assert bytes(out) == golden("segment")
    decryptor = Floe.decryptor(golden("key"), golden("aad"), schedule.header)
    assert open_all(decryptor, [golden("segment")]) == golden("plaintext")


def test_the_usual_segment_length_is_a_mebibyte():
    assert Floe.encryptor(KEY, AAD).header[:10] == golden("params")


def test_a_key_is_derived_once_for_each_rotation():
    schedule = floe._Schedule(KEY, AAD, bytes(32), SEG, rotation_bits=2)
    first = schedule.aead(0)
    assert schedule.aead(3) is first
    assert schedule.aead(4) is not first


def published(name):
    ciphertext = bytes.fromhex((PUBLISHED / f"{name}_ct.txt").read_text().strip())
    plaintext = bytes.fromhex((PUBLISHED / f"{name}_pt.txt").read_text().strip())
    seg = int.from_bytes(ciphertext[2:6], "big")
    body = ciphertext[HEADER_SIZE:]
    segments = [body[i : i + seg] for i in range(0, len(body), seg)]
    return ciphertext[:HEADER_SIZE], segments, seg, plaintext


@pytest.mark.acceptance
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published FLOE vectors are not here (../shared/vectors/floe)")
def test_floe_vectors_are_all_here():
    assert len(PAIRS) == 17


@pytest.mark.acceptance
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published FLOE vectors are not here (../shared/vectors/floe)")
@pytest.mark.parametrize("name", PAIRS)
def test_floe_vectors_open_and_no_other_rotation_does(name):
    header, segments, seg, plaintext = published(name)
    bits = 2 if "rotation" in name else 20
    decryptor = floe._decryptor(bytes(32), b"This is AAD", header, seg, bits)
    assert open_all(decryptor, segments) == plaintext
    if "rotation" in name:
        decryptor = Floe.decryptor(bytes(32), b"This is AAD", header, seg=seg)
        with pytest.raises(DecryptionFailed):
            open_all(decryptor, segments)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=20), st.sampled_from([33, 40, 64, 200]))
def test_round_trip(plaintext, aad, seg):
    header, segments = seal(plaintext, seg=seg, aad=aad)
    decryptor = Floe.decryptor(KEY, aad, header, seg=seg)
    assert open_all(decryptor, segments) == plaintext
    assert sum(map(len, segments)) == len(plaintext) + SEGMENT_OVERHEAD * len(segments)


@pytest.mark.parametrize("size", [0, 1, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 3 * ROOM])
def test_edge_sizes(size):
    plaintext = bytes(range(size))
    header, segments = seal(plaintext)
    assert open_all(Floe.decryptor(KEY, AAD, header, seg=SEG), segments) == plaintext


def test_an_empty_last_segment_after_full_ones_is_read():
    encryptor = Floe.encryptor(KEY, AAD, seg=SEG)
    out = memoryview(bytearray(2 * SEG))
    first = encryptor.segment_into(bytes(ROOM), 0, False, out)
    last = encryptor.segment_into(b"", 1, True, out[first:])
    assert (first, last) == (SEG, SEGMENT_OVERHEAD)
    decryptor = Floe.decryptor(KEY, AAD, encryptor.header, seg=SEG)
    assert open_all(decryptor, [bytes(out[:SEG]), bytes(out[SEG : SEG + last])]) == bytes(ROOM)


def test_every_bit_of_a_three_segment_stream_counts():
    header, segments = seal(bytes(range(2 * ROOM + 5)))
    decryptor = Floe.decryptor(KEY, AAD, header, seg=SEG)
    for position, segment in enumerate(segments):
        for index in range(8 * len(segment)):
            changed = bytearray(segment)
            changed[index // 8] ^= 1 << index % 8
            assert refused(decryptor, bytes(changed), position, position == 2)


def test_every_bit_of_the_header_counts():
    header, _ = seal(b"x")
    for index in range(8 * HEADER_SIZE):
        changed = bytearray(header)
        changed[index // 8] ^= 1 << index % 8
        with pytest.raises(DecryptionFailed):
            Floe.decryptor(KEY, AAD, bytes(changed), seg=SEG)
    for wrong in (header[:-1], header + b"\x00", b""):
        with pytest.raises(DecryptionFailed):
            Floe.decryptor(KEY, AAD, wrong, seg=SEG)


def test_other_key_aad_or_segment_length_is_refused():
    header, _ = seal(b"x")
    for key, aad, seg in ((bytes(32), AAD, SEG), (KEY, b"other", SEG), (KEY, AAD, SEG + 1)):
        with pytest.raises(DecryptionFailed):
            Floe.decryptor(key, aad, header, seg=seg)


def test_position_finality_and_length_are_authenticated():
    header, segments = seal(bytes(3 * ROOM))
    decryptor = Floe.decryptor(KEY, AAD, header, seg=SEG)
    for position, segment in enumerate(segments):
        for claimed in range(4):
            for final in (False, True):
                if (claimed, final) != (position, position == 2):
                    assert refused(decryptor, segment, claimed, final)
    assert refused(decryptor, segments[0][:-1], 0, False)
    assert refused(decryptor, segments[0] + b"\x00", 0, False)
    assert refused(decryptor, segments[2][:-1], 2, True)
    assert refused(decryptor, b"", 2, True)


def test_segments_of_another_stream_under_the_same_key_are_refused():
    header, _ = seal(bytes(ROOM))
    _, other = seal(bytes(ROOM))
    assert refused(Floe.decryptor(KEY, AAD, header, seg=SEG), other[0], 0, True)


def test_a_failed_segment_leaves_zeros_not_plaintext():
    # AES-GCM is a stream cipher: with a wrong tag alone, the bytes written before the check are the true plaintext.
    header, segments = seal(b"the secret plaintext of a segmen")
    changed = bytearray(segments[0])
    changed[-1] ^= 1
    out = memoryview(bytearray(b"\xaa" * ROOM))
    with pytest.raises(DecryptionFailed):
        Floe.decryptor(KEY, AAD, header, seg=SEG).segment_into(changed, 0, True, out)
    assert bytes(out) == bytes(ROOM)


def whole(plaintext, position=0, *, final):
    """Return header and one segment as a holder of the key could make it, whatever its length."""
    schedule = floe._Schedule(KEY, AAD, bytes(32), SEG)
    nonce, length = bytes(12), len(plaintext) + SEGMENT_OVERHEAD
    box = schedule.aead(position).encrypt(nonce, plaintext, floe._segment_aad(position, final=final))
    return schedule.header, (length.to_bytes(4, "big") if final else b"\xff" * 4) + nonce + box


@pytest.mark.parametrize(("size", "final"), [(ROOM + 1, True), (ROOM + 1, False), (ROOM - 1, False), (0, False)])
def test_a_segment_of_a_wrong_length_is_refused_though_its_tag_is_right(size, final):
    header, segment = whole(bytes(size), final=final)
    assert refused(Floe.decryptor(KEY, AAD, header, seg=SEG), segment, 0, final)


def test_a_segment_too_short_for_its_nonce_is_refused():
    header, _ = seal(b"")
    for length in range(SEGMENT_OVERHEAD):
        stump = length.to_bytes(4, "big") + bytes(max(length - 4, 0))
        assert refused(Floe.decryptor(KEY, AAD, header, seg=SEG), stump[:length], 0, True)


def test_an_output_too_small_is_refused_and_untouched():
    header, segments = seal(bytes(ROOM))
    out = memoryview(bytearray(b"\xaa" * (ROOM - 1)))
    with pytest.raises(InvalidInput, match="output room"):
        Floe.decryptor(KEY, AAD, header, seg=SEG).segment_into(segments[0], 0, True, out)
    assert bytes(out) == b"\xaa" * (ROOM - 1)


def test_positions_end_at_two_to_the_fortieth():
    header, segment = whole(bytes(ROOM), (1 << 40) - 1, final=True)
    decryptor = Floe.decryptor(KEY, AAD, header, seg=SEG)
    out = memoryview(bytearray(SEG))
    assert decryptor.segment_into(segment, (1 << 40) - 1, True, out) == ROOM
    for position in (-1, 1 << 40):
        with pytest.raises(InvalidInput, match="position"):
            decryptor.segment_into(segment, position, True, out)
        with pytest.raises(InvalidInput, match="position"):
            Floe.encryptor(KEY, AAD, seg=SEG).segment_into(bytes(ROOM), position, False, out)


def flip(data, place):
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def test_all_failures_have_one_text():
    header, segments = seal(bytes(ROOM))
    texts = set()
    for wrong in (header[:5], flip(header, -1)):
        with pytest.raises(DecryptionFailed) as caught:
            Floe.decryptor(KEY, AAD, wrong, seg=SEG)
        texts.add(str(caught.value))
    decryptor = Floe.decryptor(KEY, AAD, header, seg=SEG)
    for wrong in (segments[0][:-1], flip(segments[0], -1), flip(segments[0], 0)):
        with pytest.raises(DecryptionFailed) as caught:
            decryptor.segment_into(wrong, 0, True, memoryview(bytearray(SEG)))
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_misuse_of_the_encryptor_is_refused():
    out = memoryview(bytearray(2 * SEG))
    encryptor = Floe.encryptor(KEY, AAD, seg=SEG)
    for plaintext, final in ((bytes(ROOM - 1), False), (bytes(ROOM + 1), False), (bytes(ROOM + 1), True)):
        with pytest.raises(InvalidInput, match="plaintext bytes"):
            encryptor.segment_into(plaintext, 0, final, out)
    out = out[:SEG]
    with pytest.raises(InvalidInput, match="output room"):
        encryptor.segment_into(bytes(ROOM), 0, False, out[:-1])
    encryptor.segment_into(bytes(ROOM), 1, False, out)
    with pytest.raises(InvalidInput, match="before"):
        encryptor.segment_into(bytes(ROOM), 1, False, out)
    with pytest.raises(InvalidInput, match="later"):
        encryptor.segment_into(b"", 0, True, out)
    encryptor.segment_into(b"", 2, True, out)
    for position in (2, 3, -1, 1 << 40):
        with pytest.raises(InvalidInput):
            encryptor.segment_into(bytes(ROOM), position, False, out)
    with pytest.raises(InvalidInput, match="ended"):
        encryptor.segment_into(b"", 0, True, out)
    encryptor.segment_into(bytes(ROOM), 0, False, out)


def test_a_position_is_given_once_even_to_many_threads():
    encryptor = Floe.encryptor(KEY, AAD, seg=SEG)
    won, gate = [], threading.Barrier(8)

    def claim():
        out = memoryview(bytearray(SEG))
        gate.wait()
        for position in range(50):
            try:
                encryptor.segment_into(bytes(ROOM), position, False, out)
            except InvalidInput:
                continue
            won.append(position)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(50))


@pytest.mark.parametrize(("key", "seg"), [(bytes(31), SEG), (bytes(33), SEG), (KEY, 32), (KEY, 0xFFFFFFFF)])
def test_bad_parameters_are_refused(key, seg):
    with pytest.raises(InvalidInput):
        Floe.encryptor(key, AAD, seg=seg)
