"""Shared scanners: compiling one takes a while."""

import sys
from pathlib import Path

import pytest

from stanch.scan import Operator, Policy, Scanner

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; hostile_text is their neighbour

LITERALS = ("Project Nightjar 77", "the canary sings 4417-0093", "élan vital 9")


@pytest.fixture(scope="session")
def scanner():
    return Scanner(Policy(report_key=bytes(32)))


@pytest.fixture(scope="session")
def full_scanner():
    """Literals, and every operator somewhere."""
    operators = {
        "email": Operator.MASK,
        "phone": Operator.DROP,
        "person": Operator.PSEUDONYM,
        "jwt": Operator.PSEUDONYM,
    }
    policy = Policy(literals=LITERALS, operators=operators, pseudonym_key=bytes(range(32)), report_key=bytes(32))
    return Scanner(policy)
