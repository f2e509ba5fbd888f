import json
import os
import pickle
import random
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from stanch.data import build_index, find_near_duplicates, open_dataset, scan_dataset
from stanch.data import readers as text_readers
from stanch.data.part_scan import PartJob, PartTask
from stanch.data.part_windows import WindowJob
from stanch.data.rows import Range
from stanch.data.scale_ray import PartWorker, Ray
from stanch.data.scanning import ScanPlan
from stanch.data.stage import StageSecrets
from stanch.scan import STANDARD, Layout, Operator, Policy, Scanner
from stanch.scan.policy_bytes import PolicySecrets
from stanch.scan.spans.building import IndexKey

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, many and changing

KEYS = {name: bytes(range(n, n + 32)) for n, name in enumerate(("report", "pseudonym", "dataset", "index"))}


def fetch_keys(folder):
    """Stands for a key service: each worker reads the keys where they lie."""
    report, pseudonym, dataset, index = (Path(folder, name).read_bytes() for name in KEYS)
    return StageSecrets(PolicySecrets(report, pseudonym), dataset, index)


@dataclass(frozen=True)
class Dying:
    """A task whose worker is killed in the middle of its second part, in the first process that gets there."""

    task: PartTask
    mark: str

    def open(self, secrets):
        work, done = self.task.open(secrets), []

        def mortal(part):
            done.append(part)
            if len(done) == 2:
                try:
                    os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return work(part)
                os.kill(os.getpid(), signal.SIGKILL)
            return work(part)

        return mortal


@dataclass(frozen=True)
class DyingJob:
    """A job whose tasks are :class:`Dying`."""

    job: PartJob
    mark: str

    def task(self):
        return Dying(self.job.task(), self.mark)


@dataclass(frozen=True)
class DyingRay:
    """Ray with one worker, which is killed once, and notes which parts come out."""

    ray: Ray
    mark: str
    seen: list

    def run(self, job, parts):
        for number, body in self.ray.run(DyingJob(job, self.mark), parts):
            self.seen.append(number)
            yield number, body


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of this machine that reports to nobody; it ends with this file, since it never idles quite."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parents
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(here[2] / "src"), str(here[0]), os.environ.get("PYTHONPATH", "")])
        )
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray  # noqa: PLC0415 - slow to import

        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
            _node_ip_address="127.0.0.1",
        )  # fmt: skip
        yield ray
        ray.shutdown()


@pytest.fixture
def scanner():
    kinds = frozenset({"email", "github-token"})
    return Scanner(
        Policy(
            kinds=kinds, operators={"*": Operator.PSEUDONYM}, pseudonym_key=KEYS["pseudonym"], report_key=KEYS["report"]
        )
    )


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, key in KEYS.items():
        (folder / name).write_bytes(key)
    return folder


@pytest.fixture
def dataset(tmp_path, monkeypatch, prose):
    # Some texts stand twice, some nearly twice, and some more than five times.
    monkeypatch.setattr(text_readers, "PART_SIZE", 20_000)
    rng = random.Random(3)
    path = tmp_path / "t.jsonl"
    texts = [prose(rng, 40) for _ in range(200)]
    texts += texts[:20] + [text + " more" for text in texts[20:40]] + 7 * [texts[40]]
    rows = [{"text": f"{text} to ana{n % 50}@works.io", "n": n % 90} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + rows[:30]))
    opened = open_dataset(path, key=KEYS["dataset"])
    assert len(list(opened.file.parts())) > 2
    return opened


@pytest.mark.slow
def test_ray_redacts_as_one_process_bit_for_bit_though_a_worker_is_killed(cluster, dataset, scanner, keys, tmp_path):  # noqa: ARG001 - the cluster runs
    alone = scan_dataset(dataset, scanner, out=tmp_path / "alone.jsonl")
    engine = DyingRay(Ray(partial(fetch_keys, str(keys)), workers=1), str(tmp_path / "killed"), [])
    assert scan_dataset(dataset, scanner, plan=ScanPlan(engine), out=tmp_path / "shared.jsonl") == alone
    assert (tmp_path / "killed").exists()
    # Each part came out once, in the pass and in the check of the copy.
    parts = len(list(dataset.file.parts()))
    assert sorted(engine.seen[:parts]) == list(range(parts))
    assert len(set(engine.seen[parts:])) == len(engine.seen[parts:])
    assert len({location.record for location, _ in alone.findings}) == len(dataset)
    for suffix in ("", ".provenance.json"):
        shared, own = tmp_path / f"shared.jsonl{suffix}", tmp_path / f"alone.jsonl{suffix}"
        assert shared.read_bytes() == own.read_bytes()


@pytest.mark.slow
def test_ray_finds_duplicates_and_builds_the_index_as_one_process(cluster, dataset, keys):  # noqa: ARG001 - same
    engine = Ray(partial(fetch_keys, str(keys)))
    report = find_near_duplicates(dataset)
    assert report.exact >= 30
    assert len(report.clusters) > 30
    assert find_near_duplicates(dataset, engine=engine) == report
    layout = Layout.for_chars(10**6, STANDARD)
    params = replace(STANDARD, boilerplate_after=5)
    index = build_index(dataset, key=KEYS["index"], params=params, layout=layout)
    assert index.header.boilerplate.left_out > 0
    assert (
        build_index(dataset, key=KEYS["index"], params=params, layout=layout, engine=engine).to_bytes()
        == index.to_bytes()
    )


def test_a_worker_that_fetches_other_keys_works_on_nothing(dataset, scanner, keys):
    pa = pytest.importorskip("pyarrow")
    indexing = WindowJob(dataset, IndexKey(KEYS["index"], bytes(16), STANDARD))
    batch = pa.table({"number": [0], "start": [0], "stop": [100], "first": [0]})
    for name, job in (("report", PartJob(dataset, scanner, redact=True)), ("dataset", indexing), ("index", indexing)):
        (keys / name).write_bytes(bytes(32))
        (row,) = PartWorker(job.task(), partial(fetch_keys, str(keys)))(batch).to_pylist()
        assert (row["body"], row["error"]) == (b"", "InvalidInput")
        (keys / name).write_bytes(KEYS[name])
    (row,) = PartWorker(indexing.task(), partial(fetch_keys, str(keys)))(batch).to_pylist()
    assert row["body"] == indexing.here()((0, Range(0, 100, 0)))


def test_a_task_holds_no_key(dataset, scanner, keys):
    job = PartJob(dataset, scanner, redact=True)
    shipped = pickle.dumps((job.task(), partial(str, str(keys))))
    shipped += pickle.dumps(WindowJob(dataset, IndexKey(KEYS["index"], bytes(16), STANDARD)).task())
    for key in KEYS.values():
        assert key not in shipped
        assert key.hex().encode() not in shipped
    assert job.secrets() == StageSecrets(PolicySecrets(KEYS["report"], KEYS["pseudonym"]), KEYS["dataset"])
