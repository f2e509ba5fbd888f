"""The disk is full, or becomes full: does anything half-done pass for done, or happen without its record?"""

import shutil
from pathlib import Path

import pytest
from scene import done, facts, stanch, team, verify_log

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]

KEY = "team/.stanch/keys/publisher.pem"


@pytest.fixture
def small(make_disk):
    """A disk of two megabytes; ``fill()`` leaves so many kilobytes of it free."""
    disk = make_disk(2)

    class Small:
        folder = disk

        def fill(self, kilobytes=0):
            free = shutil.disk_usage(disk).free - 1024 * kilobytes
            (disk / "filler").write_bytes(b"\0" * free)

        def free(self):
            (disk / "filler").unlink()

    return Small()


def test_a_workspace(small):
    small.fill(kilobytes=64)
    refused = stanch(f"init {small.folder}/w")
    assert (refused.code, "the database failed" in refused.err, "next:" in refused.err) == (4, True, True), refused
    assert sorted(path.name for path in small.folder.iterdir()) == ["filler"]
    small.free()
    done(stanch(f"init {small.folder}/w"))


def test_an_act_whose_intent_cannot_be_recorded_does_not_happen(small):
    shutil.copytree("team", small.folder / "team")
    done(stanch(f"--workspace {small.folder}/team --as ines log show"))
    small.fill()
    refused = stanch(f"--workspace {small.folder}/team --as rita --passphrase-file rita.txt "
                     "release deliver acme.sealed file:elsewhere")  # fmt: skip
    assert (refused.code, "the database failed" in refused.err, "next:" in refused.err) == (4, True, True), refused
    assert not Path("elsewhere").exists()
    small.free()
    shown = stanch(f"--json --workspace {small.folder}/team --as ada log verify")
    assert done(shown).data["intents_open"] == 0
    done(stanch(f"--workspace {small.folder}/team --as ines log show"))


@pytest.mark.parametrize("kilobytes", [0, 20, 100])
def test_a_copy_on_its_way(small, kilobytes):
    small.fill(kilobytes)
    got, sealed, bucket = (small.folder / name for name in ("got", "sealed", "bucket"))
    name = Path(facts("acme")["uri"].removeprefix("file:")).name
    for out, line in (
        (got, f"release fetch file:store/{name} --trust pub.pem --out {got}"),
        (sealed, f"seal create model --to {facts('acme')['to']} --sign-key {KEY} --lineage l --out {sealed}"),
        (bucket / name / "manifest.json", f"release deliver acme.sealed file:{bucket} --trust pub.pem"),
    ):
        refused = stanch(line)
        assert (refused.code, "No space left on device" in refused.err, "next:" in refused.err) == (4, True, True), line
        assert not out.exists()
    assert stanch(f"release fetch file:{bucket}/{name} --trust pub.pem --out late").code != 0
    small.free()
    done(stanch(f"release deliver acme.sealed file:{bucket} --trust pub.pem"))  # goes on where it stopped
    done(stanch(f"release fetch file:{bucket}/{name} --trust pub.pem --out {got}"))


def test_a_release_whose_copy_does_not_fit(small):
    small.fill(kilobytes=50)
    out = small.folder / "copy"
    create = f"release create r1 --to acme --approver rita --approver rolf --policy gate.toml --out {out}"
    refused = team("rolf", create)
    assert (refused.code, "sealing failed and was undone" in refused.err) == (4, True), refused
    assert [path.name for path in small.folder.iterdir()] == ["filler"]
    failed = done(team("ada", "--json log query --kind release.create --phase outcome")).data["entries"][-1]["event"]
    assert failed["unmapped"]["stanch"]["result"] == "failed"
    small.free()
    done(team("rolf", create))
    assert done(verify_log()).data["intents_open"] == 0
