"""The threats name commands that exist, identifiers that are explained, and what nobody is protected against."""

import re

import pytest

from stanch.cli.actions import ACTIONS  # every command stands there: test_commands
from stanch.cli.threat_table import NOT_DEFENDED, RAND_LEVEL, THREATS
from stanch.watch.frameworks import FRAMEWORKS, SIGNS

CONTROLS = [(threat.name, control) for threat in THREATS for control in threat.controls]
SHAPES = (
    r"AML\.T0\d{3}(\.00\d)?", r"LLM(0[1-9]|10):2026", r"NISTAML\.0\d{1,2}",
    r"EDPB 28/2024 55\((i|ii|iii|iv|v)\)", r"GDPR \d+", r"RAND [a-z ]+",
)  # fmt: skip


@pytest.mark.parametrize(("threat", "control"), CONTROLS, ids=lambda value: getattr(value, "what", value))
def test_a_control_is_switched_on_and_proved_by_commands_that_exist(threat, control):
    for command in (control.switch_on, control.prove):
        assert command.removeprefix("stanch ") in ACTIONS, (threat, command)


def test_identifiers_have_the_shape_of_their_list_and_each_is_used():
    used = {name for threat in THREATS for name in threat.maps}
    assert {name for sign in SIGNS.values() for name in sign.maps} <= used
    assert used == set(FRAMEWORKS)
    assert [name for name in FRAMEWORKS if not any(re.fullmatch(shape, name) for shape in SHAPES)] == []


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
