import json
import threading
from types import SimpleNamespace

import pytest

from stanch.errors import InvalidInput, Rollback, StoreError
from stanch.seal import FileReleases, SeenRelease, VolatileReleases
from stanch.seal.memory import check_release, remember_release
from stanch.terms import VerifiedDigest

A, B = "aa" * 32, "bb" * 32


@pytest.fixture(params=["volatile", "file"])
def memory(request, tmp_path):
    return VolatileReleases() if request.param == "volatile" else FileReleases(tmp_path / "releases.json")


def test_the_highest_release_is_kept_for_each_publisher_and_lineage(memory):
    assert memory.last("p", "l") is None
    memory.remember("p", "l", SeenRelease(3, A))
    memory.remember("p", "l", SeenRelease(2, B))
    memory.remember("p", "l", SeenRelease(3, B))
    memory.remember("p", "m", SeenRelease(1, B))
    memory.remember("q", "l", SeenRelease(7, B))
    assert memory.last("p", "l") == SeenRelease(3, A)
    assert memory.last("p", "m") == SeenRelease(1, B)
    assert memory.last("q", "l") == SeenRelease(7, B)
    assert memory.last("q", "m") is None
    memory.remember("p", "l", SeenRelease(4, B))
    assert memory.last("p", "l") == SeenRelease(4, B)


def test_a_file_is_read_by_the_next_process(tmp_path):
    path = tmp_path / "releases.json"
    FileReleases(path).remember("p", "l", SeenRelease(3, A))
    assert FileReleases(path).last("p", "l") == SeenRelease(3, A)
    assert path.stat().st_mode & 0o777 == path.with_name("releases.json.lock").stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes()) == {
        "format": "stanch/release-memory/v1", "releases": {"p": {"l": [3, A]}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"format":"stanch/release-memory/v2","releases":{}}',
        '{"format":"stanch/release-memory/v1","releases":[]}',
        '{"format":"stanch/release-memory/v1","releases":{"p":[]}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":[1]}}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":["1","x"]}}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":[0,"x"]}}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":null}}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":[1,2]}}}',
        '{"format":"stanch/release-memory/v1","releases":{"p":{"l":[1,"x","y"]}}}',
    ],
)
def test_a_damaged_file_is_refused_never_forgotten(tmp_path, text):
    path = tmp_path / "releases.json"
    path.write_text(text)
    for use in (
        lambda: FileReleases(path).last("p", "l"),
        lambda: FileReleases(path).remember("p", "l", SeenRelease(1, A)),
    ):
        with pytest.raises(InvalidInput):
            use()
    assert path.read_text() == text


def test_a_file_that_could_not_be_written_is_refused_when_it_is_asked(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "no" / "such" / "file", tmp_path / "folder"):
        memory = FileReleases(path)
        for use in (lambda m=memory: m.last("p", "l"), lambda m=memory: m.remember("p", "l", SeenRelease(1, A))):
            with pytest.raises(StoreError, match="cannot be remembered") as caught:
                use()
            assert "--memory FILE" in caught.value.next_step


def test_any_first_release_is_taken_and_an_older_one_only_if_that_is_asked_for(memory):
    publisher = VerifiedDigest(bytes(32), ("k",), None)
    first, second = (SimpleNamespace(lineage="l", release_number=n, release_digest=A) for n in (1, 2))
    for release in (first, first, second):
        remember_release(memory, publisher, "l", check_release(memory, publisher, release))
    with pytest.raises(Rollback, match="older than release 2"):
        check_release(memory, publisher, first)
    assert check_release(memory, publisher, first, allow_older_unsafe=True).number == 1
    assert memory.last("k", "l") == SeenRelease(2, A)
    assert check_release(memory, publisher, second, min_release=2).number == 2
    with pytest.raises(Rollback, match="release 3 or later"):
        check_release(memory, publisher, second, min_release=3)


def test_threads_do_not_lose_each_others_entries(tmp_path):
    path = tmp_path / "releases.json"

    def remember(publisher):
        for number in range(1, 6):
            FileReleases(path).remember(publisher, "l", SeenRelease(number, A))

    threads = [threading.Thread(target=remember, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {FileReleases(path).last(f"p{n}", "l") for n in range(4)} == {SeenRelease(5, A)}


def test_a_bundle_is_checked_against_the_file(make_sealed, tmp_path):
    memory = FileReleases(tmp_path / "releases.json")
    old, new = (make_sealed({"f": b"x"}, name=f"v{n}", release_number=n) for n in (1, 2))
    new.open(memory=memory)
    with pytest.raises(Rollback):
        old.open(memory=FileReleases(tmp_path / "releases.json"))
