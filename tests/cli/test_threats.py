"""The threats name commands that exist, identifiers that are explained, and what nobody is protected against."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages

from command_lines import find

from stanch.cli.actions import ACTIONS  # every command stands there: test_commands
from stanch.cli.threat_table import NOT_DEFENDED, RAND_LEVEL, THREATS
from stanch.config import Config
from stanch.watch.frameworks import FRAMEWORKS, SIGNS

CONTROLS = [(threat.name, control) for threat in THREATS for control in threat.controls]
# A second table, typed apart from the program's: names as MITRE ATLAS, OWASP (its list of 2026, whole) and NIST AI
# 100-2 E2025 give them; for the EDPB and the GDPR, whose paragraphs have no names, what they are about.
PUBLISHED = {
    "AML.T0010.003": "AI Supply Chain Compromise: Model", "AML.T0018": "Manipulate AI Model",
    "AML.T0024": "Exfiltration via AI Inference API", "AML.T0024.000": "Infer Training Data Membership",
    "AML.T0024.001": "Invert AI Model", "AML.T0024.002": "Extract AI Model",
    "AML.T0025": "Exfiltration via Cyber Means", "AML.T0035": "AI Artifact Collection",
    "AML.T0044": "Full AI Model Access", "AML.T0057": "LLM Data Leakage",
    "LLM01:2026": "Prompt Injection", "LLM02:2026": "Sensitive Information Disclosure",
    "LLM03:2026": "Excessive Agency", "LLM04:2026": "Supply Chain", "LLM05:2026": "Data and Model Poisoning",
    "LLM06:2026": "Unbounded Consumption", "LLM07:2026": "Misinformation", "LLM08:2026": "Hidden Context Exposure",
    "LLM09:2026": "Vector and Embedding Weaknesses", "LLM10:2026": "Improper Output Handling",
    "NISTAML.031": "Model Extraction", "NISTAML.032": "Data Reconstruction", "NISTAML.033": "Membership Inference",
    "NISTAML.034": "Property Inference", "NISTAML.035": "Prompt Extraction", "NISTAML.038": "Data Extraction",
    "EDPB 28/2024 55(i)": "membership inference", "EDPB 28/2024 55(ii)": "exfiltration",
    "EDPB 28/2024 55(iii)": "regurgitation of training data", "EDPB 28/2024 55(iv)": "model inversion",
    "EDPB 28/2024 55(v)": "reconstruction", "GDPR 33": "72 hours",
}  # fmt: skip
OWN_NAMES = {
    name for name in FRAMEWORKS if name.startswith("RAND ")
}  # the report numbers nothing: these words are ours


@pytest.mark.parametrize(("threat", "control"), CONTROLS, ids=lambda value: getattr(value, "what", value))
def test_a_control_is_switched_on_and_proved_by_commands_that_exist(threat, control):
    for words in (control.switch_on, control.prove):
        if words.startswith("["):
            section, name = words.removeprefix("[").split("] ")
            assert hasattr(getattr(Config(), section), name), (threat, words)
            continue
        command, rest = find(words.split()[1:])
        assert command is not None, (threat, words)
        assert words.removeprefix("stanch ").partition(" --")[0] in ACTIONS, (threat, words)
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert set(rest) <= known, (threat, words)


def test_what_switches_a_control_on_does_something_that_lasts_and_its_proof_checks_it():
    """What only plans, asks or looks switches nothing on; and the names that a control speaks of are its commands'."""
    for threat, control in CONTROLS:
        if not control.switch_on.startswith("["):
            acts = ACTIONS[control.switch_on.removeprefix("stanch ").partition(" --")[0]]
            assert acts.kinds or re.match("works on files|nobody is registered before", acts.why_none), (
                threat,
                control,
            )
    on = {control.what: control for _, control in CONTROLS}
    said = {
        "shares of its approvers": ("--approver", "redeem"),
        "lie with others": ("anchors", "log verify"),
        "committed before copies exist": ("release propose", "trace verify"),
        "one row can change": ("tune run", "tune verify"),
    }
    for part, (switch, proof) in said.items():
        (control,) = [one for what, one in on.items() if part in what]
        assert (switch in control.switch_on, proof in control.prove) == (True, True), control


def test_identifiers_name_what_their_lists_name_and_each_is_used():
    used = {name for threat in THREATS for name in threat.maps}
    assert {name for sign in SIGNS.values() for name in sign.maps} <= used
    assert used == set(FRAMEWORKS)
    assert [name for name in used - OWN_NAMES if not FRAMEWORKS[name].endswith(PUBLISHED[name])] == []


def test_every_threat_says_where_its_controls_end():
    assert all(threat.ends and threat.controls and threat.maps for threat in THREATS)
    assert len({threat.name for threat in THREATS}) == len(THREATS)


def test_the_command_shows_all_of_it(stanch):
    shown = stanch("threats")
    assert shown.code == 0
    for text in (*(threat.ends for threat in THREATS), *NOT_DEFENDED, RAND_LEVEL, *(c.prove for _, c in CONTROLS)):
        assert text in shown.out
    data = stanch("--json", "threats").json["data"]
    assert data["level"] == RAND_LEVEL
    assert [threat["name"] for threat in data["threats"]] == [threat.name for threat in THREATS]
    assert data["threats"][0]["maps"]["AML.T0057"] == FRAMEWORKS["AML.T0057"]
