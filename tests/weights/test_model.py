import hashlib
import json
import os

import numpy as np
import pytest

from stanch.errors import InvalidInput
from stanch.weights import INDEX_NAME, Tensor, directory_digest, open_model, weight_files, write_safetensors


def tensor(name, value=1.0):
    return Tensor.from_float32(name, np.full((2, 2), value, np.float32))


@pytest.fixture
def shards(tmp_path):
    write_safetensors(tmp_path / "model-1.safetensors", [tensor("a")])
    write_safetensors(tmp_path / "model-2.safetensors", [tensor("b")])
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    return tmp_path


def index(folder, weight_map):
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_read_as_one_model(shards):
    assert sorted(open_model(shards)) == ["a", "b"]


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "model-1.safetensors", "b": "model-1.safetensors"},
        {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"},
        {"a": "model-1.safetensors", "b": "model-3.safetensors"},
        {"a": "model-1.safetensors", "b": "../model-2.safetensors"},
        {"a": "model-1.safetensors", "b": 2},
    ],
)
def test_an_index_that_disagrees_with_the_files_is_refused(shards, weight_map):
    index(shards, weight_map)
    with pytest.raises(InvalidInput):
        open_model(shards)


def test_an_index_that_is_no_object_is_refused(shards):
    (shards / INDEX_NAME).write_text("[]")
    with pytest.raises(InvalidInput, match="JSON object"):
        open_model(shards)


def test_an_index_with_another_content_is_refused(shards):
    (shards / INDEX_NAME).write_text('{"metadata":{}}')
    with pytest.raises(InvalidInput, match="weight_map"):
        open_model(shards)


def test_a_tensor_in_two_files_is_refused(shards):
    (shards / INDEX_NAME).unlink()
    write_safetensors(shards / "model-3.safetensors", [tensor("a", 2.0)])
    with pytest.raises(InvalidInput, match="also in"):
        open_model(shards)


def test_pickled_weights_are_not_found(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InvalidInput, match="safetensors"):
        weight_files(tmp_path)


def test_the_digest_is_that_of_the_sorted_listing(tmp_path):
    contents = {"b.txt": b"two", "a/x.bin": b"", "a.txt": b"one", "é.txt": b"three", "Z": b"four"}
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    listing = [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(contents.items(), key=lambda item: item[0].encode())
    ]
    text = json.dumps(listing, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = directory_digest(tmp_path)
    assert found.root.hex == hashlib.sha256(text.encode()).hexdigest()
    assert [name for name, _, _ in found.files] == ["Z", "a.txt", "a/x.bin", "b.txt", "é.txt"]


def test_every_change_changes_the_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    seen = {directory_digest(tmp_path).root}
    (tmp_path / "a").write_bytes(b"onf")
    seen.add(directory_digest(tmp_path).root)
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(directory_digest(tmp_path).root)
    (tmp_path / "c").write_bytes(b"")
    seen.add(directory_digest(tmp_path).root)
    assert len(seen) == 4


def test_links_and_special_files_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(InvalidInput, match="link"):
        directory_digest(tmp_path)
    (tmp_path / "link").unlink()
    (tmp_path / "folder").symlink_to(tmp_path.parent, target_is_directory=True)
    with pytest.raises(InvalidInput, match="link"):
        directory_digest(tmp_path)
    (tmp_path / "folder").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="special"):
        directory_digest(tmp_path)


def test_an_empty_or_missing_directory_has_no_digest(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidInput, match="expected a directory"):
            directory_digest(path)
