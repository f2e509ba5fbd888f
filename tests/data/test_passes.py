import json
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.crypto import canonical_json
from stanch.data import open_dataset, scan_dataset
from stanch.data import readers as text_readers
from stanch.data.dataset import canonical_row
from stanch.data.engines import Local
from stanch.data.part_scan import PartScanner
from stanch.data.pass_file import PassFile
from stanch.data.scanning import ScanPlan
from stanch.errors import InvalidInput
from stanch.scan import Dictionary, Policy, Scanner
from stanch.scan.policy_bytes import PolicySecrets, policy_from_bytes, policy_to_bytes

KEY = bytes(range(32))
KINDS = frozenset({"email", "github-token"})
ROWS = 20_000

RUN = """
import sys
from pathlib import Path
from stanch.data import open_dataset, readers, scan_dataset
from stanch.data.engines import Local
from stanch.data.scanning import ScanPlan
from stanch.scan import Dictionary, Policy, Scanner
if __name__ == "__main__":
    readers.PART_SIZE = 40_000
    source, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    policy = Policy(kinds=frozenset({"email", "github-token"}), report_key=bytes(range(32)))
    print("begun", flush=True)
    scan_dataset(open_dataset(source), Scanner(policy), out=out, plan=ScanPlan(Local(processes)))
    print("done", flush=True)
"""


def policy(**changes):
    return Policy(kinds=KINDS, report_key=KEY, **changes)


def lines(count, every=7):
    return "".join(
        json.dumps({"text": f"row {n}" + (f" to ana{n}@works.io" if n % every == 0 else "")}) + "\n"
        for n in range(count)
    )


def test_a_pass_killed_at_random_points_goes_on_and_loses_and_repeats_nothing(tmp_path):
    source, out = tmp_path / "t.jsonl", tmp_path / "clean.jsonl"
    source.write_text(lines(ROWS))
    script = tmp_path / "run.py"
    script.write_text(RUN)
    rng = random.Random(17)
    kept, size = tmp_path / ".clean.jsonl.pass", 0
    # Killed once the file has grown past a random point, so that each run does some work.
    for target in sorted(rng.randrange(50_000, 600_000) for _ in range(2)):
        process = subprocess.Popen([sys.executable, str(script), str(source), str(out), "1"], stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if kept.exists() and kept.stat().st_size > target:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if out.exists():
            break
        assert kept.stat().st_size >= size
        size = kept.stat().st_size
    assert size > 50_000
    subprocess.run([sys.executable, str(script), str(source), str(out), "1"], check=True, capture_output=True)
    rows = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert rows == [f"row {n}" + (" to <EMAIL>" if n % 7 == 0 else "") for n in range(ROWS)]
    assert not kept.exists()
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} <= {
        path.name for path in tmp_path.glob(".*.clean.jsonl")
    }


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch, key):
    monkeypatch.setattr(text_readers, "PART_SIZE", 4_000)
    path = tmp_path / "t.jsonl"
    path.write_text(lines(500) + lines(500))
    dataset = open_dataset(path, key=key)
    scanner = Scanner(policy())
    one = scan_dataset(dataset, scanner, out=tmp_path / "one.jsonl")
    two = scan_dataset(dataset, scanner, out=tmp_path / "two.jsonl", plan=ScanPlan(Local(2)))
    assert two == one
    assert len({location.record for location, _ in one.findings}) == 2 * 72
    assert sum(location.record.endswith("-2") for location, _ in one.findings) == 72
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_the_parts_decide_nothing(tmp_path, monkeypatch, key):
    path = tmp_path / "t.jsonl"
    path.write_text(lines(300) + lines(300, every=5))
    reports = []
    for size in (300, 5_000, 1 << 22):
        monkeypatch.setattr(text_readers, "PART_SIZE", size)
        reports.append(scan_dataset(open_dataset(path, key=key), Scanner(policy())))
    assert reports[0] == reports[1] == reports[2]


def test_finished_parts_are_not_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(text_readers, "PART_SIZE", 2_000)
    path = tmp_path / "t.jsonl"
    path.write_text(lines(400))
    plan = ScanPlan(resume=tmp_path / "p")
    expected = scan_dataset(open_dataset(path), Scanner(policy()))
    seen = []

    class Stopping:
        def run(self, job, parts):
            scan = Local().run(job, parts)
            for number, body in scan:
                seen.append(number)
                yield number, body
                if len(seen) == 3:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_dataset(open_dataset(path), Scanner(policy()), plan=ScanPlan(Stopping(), plan.resume))
    with pytest.raises(InvalidInput, match="holds another pass"):
        scan_dataset(open_dataset(path), Scanner(policy(min_score=0.6)), plan=plan)
    with pytest.raises(InvalidInput, match="holds another pass"):
        scan_dataset(open_dataset(path), Scanner(Policy(kinds=KINDS)), plan=plan)
    assert scan_dataset(open_dataset(path), Scanner(policy()), plan=ScanPlan(Stopping(), plan.resume)) == expected
    assert len(seen) == len(set(seen)) == len(list(open_dataset(path).file.parts()))
    assert not plan.resume.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=40), max_size=5), cut=st.integers(0, 200), flip=st.none() | st.integers(0, 400)
)
def test_a_torn_or_changed_file_keeps_whole_frames_only(tmp_path, bodies, cut, flip):
    path = tmp_path / "p"
    path.unlink(missing_ok=True)
    with PassFile.open(path, {"a": 1}, key=KEY) as file:
        for number, body in enumerate(bodies):
            file.add(number, body)
    data = bytearray(path.read_bytes())
    del data[max(len(data) - cut, 0) :]
    if flip is not None and flip < len(data):
        data[flip] ^= 1
    path.write_bytes(data)
    try:
        with PassFile.open(path, {"a": 1}, key=KEY) as file:
            kept = [number for number in range(len(bodies)) if number in file]
            assert [file.read(number) for number in kept] == [bodies[number] for number in kept]
            assert kept == list(range(len(kept)))
            file.add(len(kept), b"next")
            assert file.read(len(kept)) == b"next"
    except InvalidInput as error:
        assert "another pass" in str(error)  # noqa: PT017 - only where the header was hit
        assert flip is not None
        assert flip < 47


def test_one_process_at_a_time_has_the_file_of_a_pass(tmp_path):
    source, out, path = tmp_path / "t.jsonl", tmp_path / "out.jsonl", tmp_path / ".out.jsonl.pass"
    source.write_text(lines(20))
    with PassFile.open(path, {"a": 1}, key=KEY) as file:
        file.add(0, b"part 0")
        for about in ({"a": 1}, {"a": 2}):
            with pytest.raises(InvalidInput, match="another process"), PassFile.open(path, about, key=KEY, anew=True):
                pass
        with pytest.raises(InvalidInput, match="another process"):
            scan_dataset(open_dataset(source), Scanner(policy()), out=out)
        assert path.exists()
        assert file.read(0) == b"part 0"
    scan_dataset(open_dataset(source), Scanner(policy()), out=out)
    assert out.exists()
    assert not path.exists()


def test_a_frame_that_holds_another_part_is_refused(tmp_path):
    path = tmp_path / "p"
    with PassFile.open(path, {}, key=KEY) as file:
        file.add(0, b"part 0")
        file.add(1, b"part 1")
        data = path.read_bytes()
        size = 16 + 32 + 6
        path.write_bytes(data[: -2 * size] + 2 * data[-size:])
        assert file.read(1) == b"part 1"
        with pytest.raises(InvalidInput, match="changed while it was in use"):
            file.read(0)


def test_the_file_of_a_pass_is_private_and_no_link(tmp_path):
    with PassFile.open(tmp_path / "p", {}, key=KEY):
        assert (tmp_path / "p").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="cannot write"), PassFile.open(tmp_path / "link", {}, key=KEY):
        pass


def test_a_policy_survives_the_way_and_a_wrong_key_does_not():
    sent = policy(min_score=0.7, literals=("the nightjar report",))
    secrets = PolicySecrets.of(sent)
    data = policy_to_bytes(sent)
    assert policy_from_bytes(data, secrets) == sent
    assert b"nightjar" not in data
    assert KEY.hex().encode() not in data
    for wrong in (
        PolicySecrets(bytes(32), None, sent.literals),
        PolicySecrets(KEY),
        PolicySecrets(KEY, KEY, sent.literals),
    ):
        with pytest.raises(InvalidInput, match="not those of the policy that was sent"):
            policy_from_bytes(data, wrong)
    with pytest.raises(InvalidInput):
        policy_from_bytes(data.replace(b'"min_score":0.7', b'"min_score":0.9'), secrets)
    for damaged in (b"", b"{}", b"[]", data[:-1]):
        with pytest.raises(InvalidInput):
            policy_from_bytes(damaged, secrets)


PIECE = st.sampled_from(
    ["ana@works.io", "ghp_", "0123456789ABCDEFGHIJabcdefghij4Us3aw", "4539578763621486", "card", "192.0.2.7", "\\", "é",
     "I am Ana Diaz", "+49 30 901820", "password=", "Zx9!kQ27vbTT02mm", "\u200b", "\n", '"', ".", " ", "\x1e", "\t"]
)  # fmt: skip
SAID = st.lists(PIECE, max_size=6).map("".join)
NUMBER = st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False) | st.just(4539578763621486)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": SAID, "n": NUMBER, "more": st.dictionaries(SAID, SAID, max_size=1)}),
        min_size=1,
        max_size=6,
    ),
    tight=st.booleans(),
)
def test_the_quick_look_changes_no_result(tmp_path, full, rows, tight):
    path = tmp_path / "t.jsonl"
    separators = (",", ":") if tight else (", ", ": ")
    path.write_text("".join(json.dumps(row, ensure_ascii=False, separators=separators) + "\n" for row in rows))
    quick = scan_dataset(open_dataset(path), full)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartScanner, "clean", lambda _self, _rows: frozenset())
        assert scan_dataset(open_dataset(path), full) == quick


@pytest.fixture(scope="module")
def full():
    return Scanner(Policy(report_key=KEY))


def test_the_quick_look_spares_most_of_a_clean_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(lines(1000, every=100))
    dataset = open_dataset(path)
    rows = list(dataset.read())

    def clean(policy):
        return PartScanner(dataset, Scanner(policy), redact=False).clean(rows)

    assert clean(policy()) == set(range(1, 1001)) - set(range(1, 1001, 100))
    dictionary = Dictionary.build(["row seven"], key=bytes(32), label="codename")
    assert clean(Policy(kinds=KINDS | {"codename"}, dictionaries=(dictionary,))) == frozenset()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(row=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), JSON, max_size=4))
def test_the_quick_canonical_form_is_the_canonical_form(row):
    assert canonical_row(row) == canonical_json(row)
