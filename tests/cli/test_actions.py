"""Every command declares what it asks the policies for; without that it does not start."""

import importlib

import click

from stanch.access import default_policies
from stanch.cli import actions
from stanch.cli.commands import COMMANDS
from stanch.cli.frame import run
from stanch.workspace.kinds import KINDS


def leaves(command, path):
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, f"{path} {name}")
    else:
        yield path


def all_commands():
    return {
        path
        for name, entry in COMMANDS.items()
        for path in leaves(getattr(importlib.import_module(entry.module), name), name)
    }


def test_every_command_is_declared_and_every_declaration_is_a_command():
    assert all_commands() == set(actions.ACTIONS)


def test_a_declaration_names_acts_of_the_policies_or_a_reason():
    policies = default_policies()
    for command, acts in actions.ACTIONS.items():
        assert bool(acts.kinds) != bool(acts.why_none), command
        assert {KINDS[kind].action for kind in acts.kinds} <= policies.actions, command


def test_every_kind_of_act_is_done_by_a_command():
    assert {kind for acts in actions.ACTIONS.values() for kind in acts.kinds} == set(KINDS)


def test_a_command_that_declares_nothing_does_not_start(monkeypatch, capsys, tmp_path):
    monkeypatch.delitem(actions.ACTIONS, "init")
    assert run(["init", str(tmp_path / "w")]) == 70
    assert "does not declare" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
