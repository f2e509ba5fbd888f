"""The command lines that are shown to people, and what of them no command knows.

They stand in documents (fences and code in a line), in the program's own texts (hints, docstrings) and in the console's
templates. ``…`` and what a text fills in later stand for anything.
"""

import ast
import html
import re
import shlex
from functools import cache

import click

from stanch.cli.commands import COMMANDS
from stanch.cli.frame import Leaf, Root

FILLED = "…"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(stanch\s[^`]+?)\1(?!`)")
_LOOSE = re.compile(r"(?<![\w./:\[='-])stanch( [^`;,()|<\n]*)")
_SHELL = {"", "console"}


def fences(text):
    """Yield the language and the text of each fence of a Markdown document."""
    yield from ((language, body.replace("\\\n", " ")) for language, body in _FENCE.findall(text))


def whole_lines(text):
    """Yield the words of each command line in the fences of a Markdown document, without ``stanch``."""
    for language, body in fences(text):
        for line in body.splitlines() if language in _SHELL else ():
            for part in re.split(r"\s(?:\||&&|;)\s", line.removeprefix("$ ")):
                if part.strip().startswith("stanch "):
                    yield shlex.split(part, comments=True)[1:]


def parts(text):
    """Yield the words of each command line, whole or not, that stands as code inside the lines of a text."""
    for _, code in _CODE.findall(_FENCE.sub("", text)):
        yield re.sub(r"[\[\]]", " ", code).split()[1:]


def loose(text):
    """Yield the words after each ``stanch`` of a text that is not marked as code, if the first is a command's."""
    for rest in _LOOSE.findall(re.sub(r"`[^`]*`", "", text)):
        words = rest.split()
        if words and words[0] in COMMANDS:
            yield words


def texts(source):
    """Yield every text of a Python source, with ``…`` for what is filled in, and whether it is no docstring."""
    inside, alone = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr):
            alone.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            inside |= {id(value) for value in node.values}
            yield "".join(v.value if isinstance(v, ast.Constant) else FILLED for v in node.values), True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value, id(node) not in alone


def plain(template):
    """Return the text of an HTML template, with ``…`` for what is filled in."""
    return html.unescape(re.sub(r"<[^>]*>", "\n", re.sub(r"\{[{%#].*?[}%#]\}", FILLED, template, flags=re.DOTALL)))


@cache
def _root():
    return Root()


def find(words):
    """Return the command that words name and the words after its name; None for what is no command yet."""
    command, rest = _root(), list(words)
    taking = {flag for parameter in Leaf("x").params if not parameter.is_flag for flag in parameter.opts}
    while isinstance(command, click.Group):
        while rest and rest[0].startswith("--"):
            del rest[: 2 if rest[0] in taking else 1]
        if not rest or FILLED in rest[0] or rest[0].isupper():
            return None, rest
        for name in rest[0].split("|"):
            inner = command.get_command(click.Context(command), name)
            if inner is None:
                raise LookupError(f"no command {name}")
        command, rest = inner, rest[1:]
    return command, rest


def misses(words):
    """Return what of a command line, whole or not, is unknown; nothing if all of it is known."""
    try:
        command, rest = find(words)
    except LookupError as error:
        return str(error)
    if command is None:
        return ""
    known = {"--help"} | {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    given = [re.match(r"--[a-z0-9-]*", word)[0] for word in rest if re.match(r"--[a-z]", word)]
    return " ".join(flag for flag in given if flag not in known)


def refuses(words):
    """Return why a whole command line would be refused before it begins; nothing if it would not.

    Files need not be there. ``…`` and words in capitals stand for any value.
    """
    if missed := misses(words):
        return missed
    command, rest = find(words)
    if command is None or "--explain" in words or {"--help", "--version"} & set(words):
        return ""
    context = click.Context(command, info_name=command.name)
    try:
        values, extra, _ = command.make_parser(context).parse_args(list(rest))
    except click.UsageError as error:
        return error.format_message()
    lacking = [p.human_readable_name for p in command.params if p.required and not values.get(p.name)]
    wrong = [
        f"{parameter.opts[0]} {value}" for parameter in command.params
        if isinstance(parameter.type, click.Choice) and isinstance(value := values.get(parameter.name), str)
        and value not in parameter.type.choices and not value.isupper()
    ]  # fmt: skip
    return " ".join([*(f"lacks {name}" for name in lacking), *(f"extra {word}" for word in extra), *wrong])
