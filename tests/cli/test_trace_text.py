import json

import numpy as np
import pytest

from stanch.trace import TextRoot
from stanch.trace.text_scores import TABLE_SIZE, sampling_table


@pytest.fixture
def place(stanch, tmp_path):
    """A folder with a root, two tenants, and a text whose tokens were chosen for acme's first keys."""
    assert stanch("trace", "text-root", str(tmp_path / "root")).code == 0
    (tmp_path / "tenants").write_text("acme\nglobex\n")
    table, keys = sampling_table(), TextRoot.load(tmp_path / "root").keys("acme")
    generator, text = np.random.default_rng(1), [1, 2, 3, 4]
    for _ in range(260):
        choice = generator.integers(0, 30_000, 6).tolist()
        value = 1
        for token in text[-4:]:
            value = (value + token) * 6364136223846793005 + 1
        hashes = [((value + token) * 6364136223846793005 + 1) % TABLE_SIZE for token in choice]
        bits = [sum(int(table[((h + key) * 6364136223846793005 + 1) % TABLE_SIZE]) for key in keys) for h in hashes]
        text.append(choice[int(np.argmax(bits))])
    (tmp_path / "text.json").write_text(json.dumps(text))
    (tmp_path / "short.json").write_text(json.dumps(text[:50]))
    (tmp_path / "plain.json").write_text(json.dumps(generator.integers(0, 30_000, 300).tolist()))
    return tmp_path


def test_a_text_is_told_by_its_tenant(stanch, place):
    def run(name):
        return stanch(
            "trace", "text", str(place / name), "--root", str(place / "root"), "--tenants", str(place / "tenants")
        )

    found = run("text.json")
    assert found.code == 1
    assert "named      acme" in found.out
    assert "globex" not in found.out
    assert run("plain.json").code == 0
    assert run("short.json").code == 5
