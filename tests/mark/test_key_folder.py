import stat

import pytest
from mark_models import RECIPIENTS, make_adapter

from stanch.errors import InvalidInput, Tampered
from stanch.mark import KeyFolder, embed, plan_mark, set_beacon


@pytest.fixture
def made(lora, tmp_path):
    folder = KeyFolder.create(tmp_path / "keys", lora.plan, RECIPIENTS[:3], decoys=20)
    (tmp_path / "checkpoint").write_text("a later checkpoint")
    return folder


def test_keys_are_private_and_read_back_the_same(made, lora, tmp_path):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.folder.iterdir()}
    assert modes == {"root.key": 0o600, "batch.json": 0o600}
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    set_beacon(made.folder, tmp_path / "checkpoint")
    again = KeyFolder.load(made.folder, lora.plan)
    assert again.mark_keys() == made.mark_keys()
    assert again.copy_key("r1") == made.mark_keys().copies[1]
    assert len({key.stream for key in again.mark_keys().copies}) == 3


def test_no_copy_before_the_beacon_and_never_another_beacon(made, tmp_path):
    with pytest.raises(InvalidInput, match="no beacon yet"):
        made.copy_key("r1")
    set_beacon(made.folder, tmp_path / "checkpoint")
    assert set_beacon(made.folder, tmp_path / "checkpoint")
    (tmp_path / "other").write_text("another one")
    with pytest.raises(InvalidInput, match="another beacon"):
        set_beacon(made.folder, tmp_path / "other")
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidInput, match="1 to"):
        set_beacon(made.folder, tmp_path / "empty")


def test_keys_of_another_original_or_changed_keys_are_refused(made, tmp_path):
    other = plan_mark(make_adapter(tmp_path / "other-model", 77))
    with pytest.raises(Tampered):
        KeyFolder.load(made.folder, other)
    batch = made.folder / "batch.json"
    batch.write_text(batch.read_text().replace('"r1"', '"rX"'))
    with pytest.raises(Tampered):
        KeyFolder.load(made.folder, plan_mark(make_adapter(tmp_path / "again", 2)))


def test_keys_that_others_may_read_are_refused(made, lora):
    (made.folder / "batch.json").chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read"):
        KeyFolder.load(made.folder, lora.plan)


def test_embedding_tells_how_far_it_is(lora, tmp_path):
    told = []
    embed(lora.original, tmp_path / "copy", lora.plan, lora.key("r1"), progress=lambda *what: told.append(what))
    assert told[-1][1] == told[-1][2] == sum(path.stat().st_size for path in (tmp_path / "copy").rglob("*.*"))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
