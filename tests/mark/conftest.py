"""Fixtures: one base model, one adapter release and one release of a fully tuned model."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; mark_models is their neighbour

from mark_models import make_adapter, make_model, make_release, weight_names, write_model

from stanch.weights import Tensor, open_model


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("base") / "m", 1)


@pytest.fixture(scope="session")
def lora(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("lora")
    return make_release(folder, make_adapter(folder / "original", 2), base)


@pytest.fixture(scope="session")
def full(tmp_path_factory, base):
    """A fully tuned model: the base and a change of full rank."""
    folder = tmp_path_factory.mktemp("full")
    generator = np.random.default_rng(3)
    tensors = dict(open_model(base))
    for name, shape in weight_names():
        change = 2e-3 * generator.normal(size=shape).astype(np.float32)
        tensors[name] = Tensor.from_float32(name, tensors[name].to_float32() + change, "BF16")
    return make_release(folder, write_model(folder / "original", tensors), base)
