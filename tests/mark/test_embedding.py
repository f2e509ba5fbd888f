import io
import json
import os
import shutil
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mark_models import RECIPIENTS, make_release, marked_rows, write_model

from stanch.crypto import sha256
from stanch.errors import InvalidInput
from stanch.mark import CopyKey, LayoutEntry, MarkedSource, MarkParams
from stanch.mark.embedding import RowBlock, row_scales
from stanch.mark.signature import signature_values
from stanch.terms import Digest
from stanch.weights import Tensor, directory_digest, open_model, read_header, walk_files

COPIES = json.loads((Path(__file__).parents[1] / "vectors" / "mark" / "copies.json").read_text())


def rounded(value: Fraction, mantissa_bits: int) -> Fraction:
    """Round to the nearest number with that many mantissa bits, ties to even (no overflow, no subnormals)."""
    if value == 0:
        return value
    exponent = 0
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - mantissa_bits)
    return round(value / unit) * unit  # Fraction rounds ties to even


def exact(values):
    return [Fraction(float(value)) for value in np.asarray(values, np.float64).ravel()]


@pytest.mark.parametrize(("dtype", "mantissa"), [("BF16", 7), ("F16", 10), ("F32", 23)])
def test_marked_weights_equal_exact_arithmetic_with_the_specified_roundings(tmp_path, dtype, mantissa):
    weights = np.random.default_rng(9).normal(size=(160, 64)).astype(np.float32)
    weights[5, 7] = 0
    folder = write_model(tmp_path / "m", {"w": Tensor.from_float32("w", weights, dtype)})
    release = make_release(tmp_path, folder, None)
    key = release.key("r3")
    marked = open_model(release.copy("r3"))["w"].to_float32()
    stored = open_model(folder)["w"].to_float32()
    alpha = Fraction(float(np.float32(release.plan.alpha)))
    mine, owner = signature_values(key.stream, 0, 640), signature_values(key.release_stream, 0, 640)
    for row in range(10):
        power = sum(value * value for value in exact(stored[row])) / 64
        scale = exact(np.sqrt(np.float64(float(power))))[0]
        strength = rounded(alpha * rounded(rounded(scale, 23), 7), 23)
        for column in range(64):
            x, y = (exact(values[64 * row + column])[0] for values in (mine, owner))
            change = rounded(strength * rounded(x + y / 4, 23), 23)
            expected = rounded(rounded(exact(stored[row, column])[0] + change, 23), mantissa)
            if stored[row, column] == 0:
                expected = Fraction(0)
            assert exact(marked[row, column])[0] == expected


def test_a_copy_differs_only_where_it_is_marked(full):
    original, copy = open_model(full.original), open_model(full.copy("r3"))
    assert (
        read_header(full.original / "model.safetensors").head == read_header(full.copy("r3") / "model.safetensors").head
    )
    for name, tensor in original.items():
        same = np.array_equal(tensor.raw, copy[name].raw)
        assert same == (name not in full.plan.layout.by_name)
    assert (full.copy("r3") / "model.safetensors").stat().st_size == (
        full.original / "model.safetensors"
    ).stat().st_size


def test_other_files_pass_through(lora):
    for name, path in walk_files(lora.original):
        same = path.read_bytes() == (lora.copy("r3") / name).read_bytes()
        assert same == (name != "adapter_model.safetensors")


def test_tied_weights_stay_tied_and_zeros_stay_zero(full):
    copy = open_model(full.copy("r3"))
    assert np.array_equal(copy["lm_head.weight"].raw, copy["model.embed_tokens.weight"].raw)
    for name, tensor in open_model(full.original).items():
        zeros = tensor.raw == 0
        assert not copy[name].to_float32()[zeros].any()
    assert not copy["lm_head.weight"].raw[7].any()


@pytest.mark.parametrize("threads", [2, 5])
def test_the_bytes_do_not_depend_on_threads(lora, full, tmp_path, threads):
    for release in (lora, full):
        one = directory_digest(release.copy("r3"))
        many = release.embed("r3", tmp_path / release.plan.kind, threads=threads)
        assert many.digest == one
        assert (many.recipient, many.coordinates) == ("r3", release.plan.layout.coordinates)


def test_the_bytes_do_not_depend_on_blocks(full):
    entry = full.plan.layout.by_name["model.layers.2.mlp.up_proj.weight"]
    tensor = open_model(full.original)[entry.name]
    key, alpha = full.key("r3"), full.plan.alpha

    def marked(step):
        blocks = [RowBlock(entry, first, min(step, entry.rows - first)) for first in range(0, entry.rows, step)]
        return np.concatenate([marked_rows(block.of(tensor), block, alpha, key) for block in blocks])

    whole = marked(entry.rows)
    assert all(np.array_equal(marked(step), whole) for step in (1, 7, 100))
    assert np.array_equal(whole, open_model(full.copy("r3"))[entry.name].raw)


def test_row_scales_do_not_depend_on_the_order_of_summation():
    generator = np.random.default_rng(4)
    weights = generator.standard_t(3, size=(500, 333)).astype(np.float32)
    assert np.array_equal(row_scales(weights), row_scales(weights[:, generator.permutation(333)]))


def test_the_source_gives_the_files_that_embed_writes(lora):
    source = MarkedSource(lora.original, lora.plan, lora.key("r3"))
    files = source.files()
    assert [file.path for file in files] == [name for name, _ in walk_files(lora.original)]
    for file in files:
        written = (lora.copy("r3") / file.path).read_bytes()
        assert file.size == len(written)
        for size in (1 << 20, 1000, 7919):
            with closing(file.open()) as reader:
                assert b"".join(iter(lambda reader=reader, size=size: reader.read(size), b"")) == written


@pytest.mark.parametrize("threads", [1, 3])
def test_weights_at_odd_places_of_a_file_are_marked_alike(tmp_path, threads):
    tensors = [Tensor.from_float32("a", np.ones(1, np.float32), "F16")]
    tensors += [Tensor.from_float32("w", np.random.default_rng(1).normal(size=(300, 257)).astype(np.float32), "BF16")]
    head = json.dumps({
        "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "w": {"dtype": "BF16", "shape": [300, 257], "data_offsets": [2, 2 + tensors[1].raw.nbytes]},
    }).encode()  # fmt: skip
    head += b" " * (1 - len(head) % 2)
    (tmp_path / "m").mkdir()
    body = b"".join(tensor.raw.tobytes() for tensor in tensors)
    (tmp_path / "m" / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)
    release = make_release(tmp_path, tmp_path / "m", None)
    source, (entry,) = (
        MarkedSource(release.original, release.plan, release.key("r3"), threads),
        release.plan.layout.entries,
    )
    with closing(source.files()[0].open()) as reader:
        found = reader.read()
    whole = marked_rows(tensors[1].raw, RowBlock(entry, 0, 300), release.plan.alpha, release.key("r3"))
    assert found[-whole.nbytes :] == whole.tobytes()
    assert found[: -whole.nbytes] == len(head).to_bytes(8, "little") + head + tensors[0].raw.tobytes()


def test_an_original_that_is_cut_while_it_is_read_is_refused(full, tmp_path):
    shutil.copytree(full.original, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    file = next(f for f in MarkedSource(tmp_path / "m", full.plan, full.key("r3")).files() if f.path == path.name)
    with closing(file.open()) as reader:
        reader.read(1)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(InvalidInput, match="shorter"):
            reader.read()


def test_a_reader_can_be_left_early(lora):
    before = set(lora.folder.iterdir())
    file = next(f for f in MarkedSource(lora.original, lora.plan, lora.key("r3")).files() if f.path.endswith("tensors"))
    reader = file.open()
    assert len(reader.read(100)) == 100
    reader.close()
    with pytest.raises((ValueError, io.UnsupportedOperation)):
        reader.read(1)
    assert set(lora.folder.iterdir()) == before


@pytest.mark.parametrize("dtype", COPIES["sha256"])
def test_marked_weights_are_the_specified_ones(dtype):
    # Weights by integer arithmetic, so that no library's generator enters the vector.
    numbers = np.arange(160 * 64, dtype=np.int64) * 40_503 % 65_536 - 32_768
    weights = Tensor.from_float32("w", (numbers / 2**20).astype(np.float32).reshape(160, 64), dtype)
    entry = LayoutEntry("w", dtype, (160, 64), COPIES["offset"])
    stream, release = (bytes.fromhex(COPIES[name]) for name in ("stream", "release_stream"))
    key = CopyKey("acme", 1, 0, COPIES["alpha"], Digest.sha256(b""), bytes(32), stream, release)
    block = RowBlock(entry, 0, 160)
    marked = marked_rows(block.of(weights), block, COPIES["alpha"], key)
    assert sha256(marked.tobytes()).hex() == COPIES["sha256"][dtype]


def test_every_recipient_gets_other_bytes(lora):
    assert len({str(directory_digest(lora.copy(name)).root) for name in RECIPIENTS[:4]}) == 4


def test_a_key_of_another_plan_is_refused(lora, full):
    with pytest.raises(InvalidInput, match="another original"):
        MarkedSource(lora.original, lora.plan, full.key("r3"))
    with pytest.raises(InvalidInput, match="another original"):
        MarkedSource(lora.original, replace(lora.plan, alpha=0.01), lora.key("r3"))


def test_an_original_that_changed_is_refused(lora, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(lora.original, other)
    write_model(other, {"x": Tensor.from_float32("x", np.zeros((2, 2), np.float32))})
    (other / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="has changed"):
        MarkedSource(other, lora.plan, lora.key("r3")).files()


def test_an_existing_directory_is_not_replaced(lora, tmp_path):
    with pytest.raises(InvalidInput, match="exists already"):
        lora.embed("r3", tmp_path)


def test_float16_overflow_is_refused_and_leaves_nothing_behind(tmp_path):
    weights = np.full((128, 128), 65_500, np.float32)
    folder = write_model(tmp_path / "m", {"w": Tensor.from_float32("w", weights, "F16")})
    release = make_release(tmp_path, folder, None, MarkParams())
    with pytest.raises(InvalidInput, match="float16"):
        release.embed("r3", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
