"""The one table of identifiers: every signal of every detector has a row in it, and rows name identifiers of it."""

import pytest

from stanch.watch import detectors
from stanch.watch.frameworks import FRAMEWORKS, SIGNS, Sign, sign_of


def test_every_signal_of_every_detector_says_what_it_is_a_sign_of():
    assert set(SIGNS) == {(detector.name, signal) for detector in detectors() for signal in detector.signals}


@pytest.mark.parametrize("signal", SIGNS, ids=" ".join)
def test_a_sign_names_identifiers_of_the_table(signal):
    sign = SIGNS[signal]
    assert set(sign.maps) <= set(FRAMEWORKS)
    assert len(set(sign.maps)) == len(sign.maps)
    assert sign.maps or not sign.means


def test_what_is_no_detector_is_a_sign_of_nothing():
    assert sign_of("incident:i_0", "24-hours") == Sign()


def test_the_numbers_of_owasp_are_those_of_its_list_of_2026():
    # The list of 2026 moved them: supply chain was LLM03 and unbounded consumption LLM10 in 2025.
    names = {name: meaning.rpartition(": ")[2] for name, meaning in FRAMEWORKS.items() if name.startswith("LLM")}
    assert names == {
        "LLM02:2026": "Sensitive Information Disclosure",
        "LLM04:2026": "Supply Chain",
        "LLM05:2026": "Data and Model Poisoning",
        "LLM06:2026": "Unbounded Consumption",
    }
