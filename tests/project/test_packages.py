"""What the packages offer: names that are loaded when they are asked for."""

import doctest
import importlib
from pathlib import Path

import pytest

import stanch

PACKAGES = sorted(stub.parent.name for stub in Path(stanch.__file__).parent.glob("*/__init__.pyi"))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_offered_name_is_there(name):
    package = importlib.import_module(f"stanch.{name}")
    stub = Path(package.__file__).with_suffix(".pyi").read_text()
    offered = stub.partition("__all__ = [")[2]
    assert package.__all__
    for each in package.__all__:
        assert f'"{each}"' in offered, "a name is imported in the stub and not offered"
        assert getattr(package, each) is not None
    assert offered.count('"') == 2 * len(package.__all__), "a name is offered and not imported in the stub"


@pytest.mark.parametrize("name", [*PACKAGES, "scan.adapters", "scan.spans"])
def test_the_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(f"stanch.{name}")).failed == 0
