"""The inventory, as somebody types it: with the model at hand, with a sealed copy, and with neither."""

import shutil

from stanch.errors import StoreError


def test_a_stray_copy_is_found_however_the_weights_are_named(stanch, files, tmp_path):
    place = tmp_path / "home"
    shutil.copytree(files.model, place / "old")
    (place / "note.txt").write_text("nothing of interest")
    weights = files.model / "adapter_model.safetensors"
    (place / "blob").write_bytes(b"PK" * 1000 + weights.read_bytes())
    by_model = stanch("inventory", place, files.model, "--model", files.model)
    assert by_model.code == 1, by_model
    assert f"found      {place}/old/adapter_model.safetensors: all of adapter_model.safetensors" in by_model.out
    assert f"found      {place}/blob: parts of " in by_model.out
    assert "2 hold protected weights" in by_model.out
    saved = stanch("inventory", "--model", files.model, "--save", "prints.json")
    assert (saved.code, (tmp_path / "prints.json").stat().st_mode & 0o777) == (0, 0o600)
    shutil.copy(files.place / "acme.key", tmp_path)
    sealed = ("--bundle", files.sealed, "--trust", files.sign_pub_pem, "--identity", "acme.key")
    for source in (("--fingerprint", "prints.json"), sealed):
        answer = stanch("inventory", place, *source, "--json")
        data = answer.json["data"]
        assert (answer.code, data["unread"]) == (1, [])
        found = {one["place"]: one for one in data["stray"]}
        assert set(found) == {f"{place}/old/adapter_model.safetensors", f"{place}/blob"}
        assert found[f"{place}/old/adapter_model.safetensors"]["file"] == "adapter_model.safetensors"
        assert stanch("inventory", place, *source, "--allow", place / "old", "--allow", place / "blob").code == 0


def test_a_link_that_is_named_is_not_taken_for_searched(stanch, files, tmp_path):
    assert stanch("inventory", "--model", files.model, "--save", "prints.json").code == 0
    (tmp_path / "copy").symlink_to(files.model / "adapter_model.safetensors")
    (tmp_path / "folder").symlink_to(files.model)
    shown = stanch("inventory", "copy", "--fingerprint", "prints.json")
    assert (shown.code, "warning: copy: could not be read" in shown.err) == (5, True), shown
    assert stanch("inventory", "folder", "--fingerprint", "prints.json").code == 1


def test_a_folder_of_links_such_as_the_hubs_cache_holds_is_a_model(stanch, files, tmp_path):
    shutil.copytree(files.model, tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    shown = stanch("inventory", tmp_path / "blobs", "--model", tmp_path / "snapshot")
    assert (shown.code, shown.err) == (0, ""), shown  # its own files are not stray
    assert stanch("inventory", files.model, "--model", tmp_path / "snapshot").code == 1
    left = stanch("inventory", files.model, "--model", files.model, "--base", tmp_path / "snapshot")
    assert (left.code, "every protected tensor is in the base model too" in left.err) == (2, True), left


def test_a_search_that_could_not_read_all_is_inconclusive(stanch, files, tmp_path, monkeypatch):
    assert stanch("inventory", "--model", files.model, "--save", "prints.json").code == 0
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "locked").write_bytes(b"x")

    def refuse(self):
        raise StoreError(f"{self.path}: cannot be read")

    monkeypatch.setattr("stanch.release.places.FileItem.chunks", refuse)
    shown = stanch("inventory", "home", "--fingerprint", "prints.json")
    assert shown.code == 5
    assert "warning: home/locked: could not be read" in shown.err
    assert "none holds protected weights; 1 could not be read" in shown.out
