"""Writes what documents repeat of the code: commands, errors, settings, entries, roles, threats, the gateway's API.

A test compares what this writes with the files, so that the documents cannot drift. Run it after a change:

    python tools/make_reference.py
"""

import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import msgspec

import stanch
from stanch.access.policy import default_policies, default_text
from stanch.access.roles import ROLES, check_separation
from stanch.cli.actions import ACTIONS
from stanch.cli.commands import COMMANDS
from stanch.cli.frame import Leaf, Root
from stanch.cli.threat_table import NOT_DEFENDED, RAND_LEVEL, THREATS
from stanch.config import Config
from stanch.errors import SeparationOfDuties, StanchError
from stanch.gateway.app import ENDPOINTS
from stanch.gateway.openapi import describe_endpoints
from stanch.ledger.ocsf import class_of
from stanch.tune import arguments as trainer
from stanch.watch.frameworks import FRAMEWORKS
from stanch.workspace.kinds import KINDS, NOTES, PAYLOADS

SOURCES = Path(stanch.__file__).parent
OUT = Path(__file__).parents[1] / "docs"
HEAD = "<!-- Written by tools/make_reference.py; a test compares. -->\n\n"


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is not a group, by its words."""

    def walk(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from walk(child, f"{words} {name}")
        else:
            yield words, command

    for name, entry in COMMANDS.items():
        yield from walk(getattr(importlib.import_module(entry.module), name), name)


def commands() -> str:
    """Return the page of commands."""
    shared = {flag for parameter in Leaf("x").params for flag in parameter.opts}
    lines = ["# Commands\n", "Flags of every command:\n", *_flags(Root().params), ""]
    for words, command in sorted(leaves()):
        context = click.Context(command, info_name=f"stanch {words}")
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        lines += [f"## stanch {words}\n", f"`{usage}`\n", f"{_plain(command.help)}\n"]
        own = [p for p in command.params if isinstance(p, click.Option) and not set(p.opts) <= shared]
        if own:
            lines += [*_flags(own), ""]
        acts = ACTIONS[words]
        kinds = ", ".join(f"`{kind}`" for kind in acts.kinds)
        lines.append(f"Acts: {kinds or 'none; ' + acts.why_none}.\n")
    return HEAD + "\n".join(lines)


def _flags(parameters: list[click.Parameter]) -> list[str]:
    rows = [p for p in parameters if isinstance(p, click.Option)]
    return [f"- `{', '.join(p.opts)}`: {_plain(p.help)}{_default(p)}" for p in rows]


def _default(option: click.Option) -> str:
    shown = option.default
    if option.is_flag or option.required or not isinstance(shown, str | int | float) or shown in {"", None}:
        return " (required)" if option.required else ""
    return f" (default {shown})"


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


@cache
def error_classes() -> list[type[StanchError]]:
    """Return every error class of the project, also those that packages define for themselves."""
    bases, found = {"StanchError"}, {StanchError.__module__: {"StanchError"}}
    headers = {
        ".".join(("stanch", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__"): re.findall(
            r"^class (\w+)\(([^)]*)\):", path.read_text(), re.MULTILINE
        )
        for path in sorted(SOURCES.rglob("*.py"))
    }
    grown = True
    while grown:
        grown = False
        for module, classes in headers.items():
            for name, parents in classes:
                if bases & set(re.findall(r"\w+", parents)) and name not in found.setdefault(module, set()):
                    bases.add(name)
                    found[module].add(name)
                    grown = True
    all_classes = [getattr(importlib.import_module(m), name) for m, names in found.items() for name in names]
    return sorted((c for c in all_classes if not c.__name__.startswith("_")), key=lambda c: c.__name__)


def errors() -> str:
    """Return the page of errors."""
    lines = [
        "# Errors\n",
        "Every error says in one line what happened, in one why, and in one what to do next. Over HTTP it is",
        "an RFC 9457 problem of type `urn:stanch:problem:<slug>`. What nobody raised on purpose is exit 70.\n",
        "| error | slug | exit | HTTP | kind of | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for one in error_classes():
        slug = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", one.__name__).lower()
        meaning = _plain((one.__doc__ or "").partition("\n")[0])
        parent = "" if one is StanchError else one.__mro__[1].__name__
        lines.append(f"| {one.__name__} | `{slug}` | {one.exit_code} | {one.http_status} | {parent} | {meaning} |")
    return HEAD + "\n".join([*lines, ""])


def settings() -> str:
    """Return the page of settings."""
    lines = [
        "# Settings\n",
        "`stanch.toml` of the nearest workspace, over the user's own file, over the defaults; a variable",
        "`STANCH_<SECTION>__<KEY>` wins over files, a flag over all. Lists replace. A secret is never a setting: write",
        "`file:PATH` (mode 0600) or `env:NAME`. `[gate]` belongs to `stanch audit gate`.\n",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in setting_rows(Config)]
    return HEAD + "\n".join([*lines, ""])


def setting_rows(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of every setting, those of tables in lists included."""
    told = "\n".join(base.__doc__ or "" for base in struct.__mro__ if issubclass(base, msgspec.Struct))
    meanings = dict(re.findall(r"^ {8}(\w+): ((?:.|\n {12})+)", told, re.MULTILINE))
    for field in sorted(msgspec.structs.fields(struct), key=lambda one: not one.required):
        name = f"{prefix}{field.name}"
        if isinstance(field.default, msgspec.Struct):
            yield from setting_rows(type(field.default), f"{name}.")
            continue
        if name in {"gate", "origins"}:
            continue
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        needed = default is msgspec.NODEFAULT
        shown = "(required)" if needed else f"`{json.dumps(msgspec.to_builtins(default))}`"
        yield name, shown, _plain(meanings.get(field.name, ""))
        items = getattr(field.type, "__args__", ())
        if items and isinstance(items[0], type) and issubclass(items[0], msgspec.Struct):
            yield from setting_rows(items[0], f"{name}[].")


def entries() -> str:
    """Return the page of kinds of entries."""
    lines = [
        "# Kinds of entries\n",
        "Each act leaves one `denied` entry, or an `intent` and an `outcome` (`done`, `failed`,",
        "`cancelled`, `abandoned`). The format is specified in [the log](../spec/ledger.md).\n",
        "| kind | asks for | on | OCSF class | activity |",
        "|---|---|---|---|---|",
    ]
    for name, kind in sorted(KINDS.items()):
        class_uid, activity = class_of(name)
        lines.append(f"| `{name}` | `{kind.action}` | {kind.on} | {class_uid} | {activity} |")
    lines += [
        "\nWhat happens at once leaves one entry of phase `note`:\n",
        "| kind | what it says, and the fields of its payload |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in sorted(NOTES.items())),
        "\nPayloads that other parts read:\n",
        "| entry | fields of its payload |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in sorted(PAYLOADS.items())),
    ]
    return HEAD + "\n".join([*lines, ""])


def roles() -> str:
    """Return the page of roles, as the policies that stanch comes with have them."""
    policies = default_policies().policies
    permits = {role: policies[f"role-{role}"].actions for role in sorted(ROLES)}
    lines = [
        "# Roles\n",
        "What somebody may do is what their roles permit, less what a condition forbids. `stanch access grant` gives a",
        "role; `stanch access why NAME ACTION` says whether somebody may now, and why. Other policies can be put in",
        "force ([access](../access.md)), never without the conditions of this page that forbid.\n",
        "| role | may | never held together with |",
        "|---|---|---|",
    ]
    for role, actions in permits.items():
        lines.append(f"| `{role}` | {_names(actions)} | {_names(apart(role)) or 'none'} |")
    lines += ["\n## Actions\n", "| action | roles | acts that ask for it |", "|---|---|---|"]
    for action in sorted(default_policies().actions):
        held = frozenset(role for role, actions in permits.items() if action in actions)
        asking = frozenset(name for name, kind in KINDS.items() if kind.action == action)
        lines.append(f"| `{action}` | {_names(held) or 'none'} | {_names(asking) or 'none'} |")
    lines += [
        "\n## Conditions\n",
        "Each holds for every role. `team` is the profile; `involved` is whoever made, audited or requested it.\n",
        "| condition | effect | on | as the policy says it |",
        "|---|---|---|---|",
    ]
    for name, condition in re.findall(r'@id\("([^"]+)"\)[^;]*?\)\s*((?:when|unless) \{[^}]*\});', default_text()):
        everything = policies[name].actions == default_policies().actions
        on = "every action" if everything else _names(policies[name].actions)
        lines.append(f"| `{name}` | {policies[name].effect} | {on} | `{_plain(condition).replace('||', 'or')}` |")
    return HEAD + "\n".join([*lines, ""])


def apart(role: str) -> frozenset[str]:
    """Return the roles that nobody holds together with ``role``."""
    found = set()
    for other in ROLES - {role}:
        try:
            check_separation([other], role)
        except SeparationOfDuties:
            found.add(other)
    return frozenset(found)


def arguments() -> str:
    """Return the page of arguments of other people's trainers."""
    lines = [
        "# Arguments of the private trainers\n",
        "What `PrivateTrainer` and `PrivateSFTTrainer` take of `TrainingArguments` and `SFTConfig`. Everything else",
        "must keep its default: a field that is not named here is unknown to this release, and refused.\n",
        f"Free: {_names(trainer.FREE)}.\n",
        f"With `eval_is_public=True` alone: {_names(trainer.EVALUATION)}.\n",
        "| field | values | because | instead |",
        "|---|---|---|---|",
    ]
    for name, choice in sorted(trainer.CHOICES.items()):
        lines.append(f"| `{name}` | {_names(choice.values)} | {choice.why} | {choice.instead} |")
    for name, rule in sorted(trainer.FORCED.items()):
        value = f"set to `{trainer.SET[name]}`" if name in trainer.SET else "its default"
        lines.append(f"| `{name}` | {value} | {rule.why} | {rule.instead} |")
    lines += [
        "\n## Arguments of the constructor\n",
        f"Free: {_names(trainer.CONSTRUCTOR_FREE)}.\n",
        f"With `eval_is_public=True` alone: {_names(trainer.CONSTRUCTOR_EVALUATION)}.\n",
        "| refused | because | instead |",
        "|---|---|---|",
        *(f"| `{name}` | {rule.why} | {rule.instead} |" for name, rule in sorted(trainer.CONSTRUCTOR_FORCED.items())),
    ]
    return HEAD + "\n".join([*lines, ""])


def threat_model() -> str:
    """Return the page of threats."""
    lines = [
        "# Threat model\n",
        "The **assets** are the training records, the weights of a tuned model (which hold some of those records),",
        "the keys, and the record of who did what. The **boundaries** are the workspace folder (its files and keys",
        "belong to one operating-system user), a sealed bundle (may lie anywhere, also with an enemy), and the answers",
        "of a served model. `stanch threats` prints what stands here; `stanch doctor` says what is on, off or weak.\n",
    ]
    for threat in THREATS:
        lines += [f"## {threat.name}\n", f"{threat.who[0].upper()}{threat.who[1:]} {threat.tries}.\n"]
        lines += ["| what stops or shows it | switched on by | proved by |", "|---|---|---|"]
        lines += [f"| {c.what} | `{c.switch_on}` | `{c.prove}` |" for c in threat.controls]
        lines += [f"\n**Ends:** {threat.ends}.\n", f"**Maps to:** {', '.join(threat.maps)}.\n"]
    lines += ["## Not defended\n", "; ".join(NOT_DEFENDED) + ".\n"]
    lines += ["## The lists that are mapped\n", "| identifier | names |", "|---|---|"]
    lines += [f"| {name} | {meaning} |" for name, meaning in FRAMEWORKS.items()]
    return HEAD + "\n".join([*lines, f"\n{RAND_LEVEL}", ""])


def gateway() -> str:
    """Return the OpenAPI document of the gateway."""
    return json.dumps(describe_endpoints(ENDPOINTS), indent=1, sort_keys=True) + "\n"


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


PAGES = {
    "reference/commands.md": commands,
    "reference/errors.md": errors,
    "reference/settings.md": settings,
    "reference/entries.md": entries,
    "reference/roles.md": roles,
    "reference/arguments.md": arguments,
    "explain/threat-model.md": threat_model,
    "spec/gateway-openapi.json": gateway,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (OUT / name).parent.mkdir(exist_ok=True)
        (OUT / name).write_text(page())
        print(f"wrote {OUT / name}")


if __name__ == "__main__":
    main()
