import json
import os
import pickle
from functools import partial
from pathlib import Path

import pytest

from stanch.data import open_dataset, scan_dataset
from stanch.data import readers as text_readers
from stanch.data.part_scan import PartJob, PartSecrets
from stanch.data.scale_ray import Ray
from stanch.data.scanning import ScanPlan
from stanch.errors import InvalidInput
from stanch.scan import Operator, Policy, Scanner
from stanch.scan.policy_bytes import PolicySecrets

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, many and changing

KEYS = {"report": bytes(range(32)), "dataset": bytes(range(1, 33)), "pseudonym": bytes(range(2, 34))}


def fetch_keys(folder):
    """Stands for a key service: each worker reads the keys where they lie."""
    from pathlib import Path as WorkerPath  # noqa: PLC0415 - runs in another process

    from stanch.data.part_scan import PartSecrets as Secrets  # noqa: PLC0415 - same
    from stanch.scan.policy_bytes import PolicySecrets as OfPolicy  # noqa: PLC0415 - same

    read = {name: WorkerPath(folder, name).read_bytes() for name in ("report", "dataset", "pseudonym")}
    return Secrets(OfPolicy(read["report"], read["pseudonym"]), read["dataset"])


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of this machine that reports to nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
        )
        import ray  # noqa: PLC0415 - slow to import

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
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
def dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(text_readers, "PART_SIZE", 4_000)
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n % 50} to ana{n % 50}@works.io"}) + "\n" for n in range(300)))
    return open_dataset(path, key=KEYS["dataset"])


def test_ray_gives_what_one_process_gives_bit_for_bit(cluster, dataset, scanner, keys, tmp_path):  # noqa: ARG001 - the cluster runs
    assert len(list(dataset.file.parts())) > 2
    alone = scan_dataset(dataset, scanner, out=tmp_path / "alone.jsonl")
    shared = scan_dataset(
        dataset, scanner, plan=ScanPlan(Ray(partial(fetch_keys, str(keys)))), out=tmp_path / "shared.jsonl"
    )
    assert shared == alone
    assert len({location.record for location, _ in shared.findings}) == 300
    assert (tmp_path / "shared.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    # A worker that fetches other keys works on nothing.
    (keys / "report").write_bytes(bytes(32))
    with pytest.raises(InvalidInput, match="not those of the policy that was sent"):
        scan_dataset(dataset, scanner, plan=ScanPlan(Ray(partial(fetch_keys, str(keys)))))


def test_a_task_holds_no_key(dataset, scanner, keys):
    job = PartJob(dataset, scanner, redact=True)
    shipped = pickle.dumps((job.task(), partial(str, str(keys))))
    for key in KEYS.values():
        assert key not in shipped
        assert key.hex().encode() not in shipped
    assert job.secrets() == PartSecrets(PolicySecrets(KEYS["report"], KEYS["pseudonym"]), KEYS["dataset"])
