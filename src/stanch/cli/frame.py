"""The frame of every command: lazy groups, global flags, one result, one error, one exit code."""

import importlib
import os
import resource
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from stanch import __version__
from stanch.cli.actions import require_declared
from stanch.cli.commands import COMMANDS
from stanch.cli.progress import Bar
from stanch.errors import InvalidInput, StanchError, bug

if TYPE_CHECKING:  # stanch.terms is a good part of what a short command takes
    from stanch.terms import JsonValue

SCHEMA = "stanch.cli/1"
INTERRUPTED = 130
BUG = 70
USAGE = 2
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
"""The type of an option that is a share or a probability: over 0 and under 1."""

_LABELS = {"error": "what", "why": "why", "next": "next"}


class Result(NamedTuple):
    """What a command says.

    Attributes:
        data: For machines.
        text: For people.
        exit_code: 0, or 1 to 5 as documented.
        warnings: Lines beside the result.
        rows: The objects of a stream, one a line under ``--jsonl``; only commands of class :class:`Stream` have some.
    """

    data: "dict[str, JsonValue]"
    text: str
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    rows: "tuple[dict[str, JsonValue], ...]" = ()


class Frame:
    """The global flags of one invocation, with what holds when a flag is not given."""

    json: bool = False
    jsonl: bool = False
    quiet: bool = False
    debug: bool = False
    no_color: bool = False
    explain: bool = False
    plain_progress: bool = False
    workspace: Path | None = None
    principal: str | None = None
    passphrase_file: Path | None = None
    command: str = ""
    bar: Bar | None = None
    warnings: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Return the flags that say which workspace and who, for a process of the same."""
        words: list[str] = []
        for flag, value in (
            ("--workspace", self.workspace), ("--as", self.principal), ("--passphrase-file", self.passphrase_file)
        ):  # fmt: skip
            words += [flag, str(value)] if value is not None else []
        return words

    def progress(self) -> Bar:
        """Return the progress display of this invocation; silent without a terminal unless asked for."""
        if self.bar is None:
            shown = not self.quiet and (self.plain_progress or sys.stderr.isatty())
            plain = self.plain_progress or not sys.stderr.isatty()
            self.bar = Bar(sys.stderr, plain=plain, color=not self.no_color, shown=shown)
        return self.bar


def current() -> Frame:
    """Return the frame of the running command."""
    frame = click.get_current_context().find_root().ensure_object(Frame)
    assert isinstance(frame, Frame)  # noqa: S101 - ensure_object made it
    return frame


def _set(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - any flag's value
    if value not in {None, False} and parameter.name is not None:
        setattr(context.find_root().ensure_object(Frame), parameter.name, value)


def _flag(name: str, attribute: str, text: str) -> click.Option:
    return click.Option([name, attribute], is_flag=True, expose_value=False, callback=_set, help=text)


def _global_options() -> list[click.Parameter]:
    """Return the flags that stand before or after any command."""
    return [
        _flag("--json", "json", "Print one JSON object."),
        _flag("--explain", "explain", "Say what the command would ask permission for and record; do nothing."),
        _flag("--quiet", "quiet", "Show no progress."),
        _flag("--no-color", "no_color", "Use no colours."),
        _flag("--debug", "debug", "Show the traceback of an error, without secrets."),
        click.Option(
            ["--progress", "plain_progress"],
            type=click.Choice(["plain"]),
            expose_value=False,
            callback=_set,
            help="Print progress as lines, also without a terminal.",
        ),
        click.Option(
            ["--workspace", "workspace"],
            type=click.Path(path_type=Path, file_okay=False),
            expose_value=False,
            callback=_set,
            help="The workspace folder; otherwise the nearest one above the current folder.",
        ),
        click.Option(
            ["--as", "principal"],
            metavar="NAME",
            expose_value=False,
            callback=_set,
            help="Act as this principal; otherwise the first one whose key this workspace holds.",
        ),
        click.Option(
            ["--passphrase-file", "passphrase_file"],
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_set,
            help="Where the passphrase of that principal's key lies (mode 0600).",
        ),
    ]


class Leaf(click.Command):
    """A command that returns a :class:`Result` and knows the global flags."""

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401 - handed on to click unchanged
        super().__init__(*args, **settings)
        self.params.extend(_global_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; what is only explained may lack some."""
        ctx.resilient_parsing = ctx.find_root().ensure_object(Frame).explain or "--explain" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Note which command runs, check that it declares its acts, then run or explain it."""
        frame = ctx.find_root().ensure_object(Frame)
        frame.command = ctx.command_path.partition(" ")[2]
        require_declared(frame.command)
        if ctx.resilient_parsing:
            from stanch.cli.explain import explain_command  # noqa: PLC0415 - rarely asked for

            return Result(*explain_command(frame.command))
        return super().invoke(ctx)


class Stream(Leaf):
    """A command whose result is a row of objects: ``--jsonl`` prints one a line, without a frame around them."""

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401 - handed on to click unchanged
        super().__init__(*args, **settings)
        self.params.append(_flag("--jsonl", "jsonl", "Print one JSON object a line."))


class Group(click.Group):
    """A group of :class:`Leaf` commands; never itself a command."""

    command_class = Leaf
    group_class = type


class Root(click.Group):
    """The root: it lists commands from a literal table and imports a module only when its command is used."""

    def __init__(self) -> None:
        super().__init__("stanch", help="Prevent, measure, detect and prove leaks from tuned language models.")
        self.params = [
            *_global_options(),
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_show_version,
                help="Show the version.",
            ),
        ]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import and return one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the help from the table alone."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, e.summary) for name, e in COMMANDS.items() if e.section == section])


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value:
        click.echo(f"stanch {__version__}")
        context.exit()


def main() -> None:
    """Run the command line and exit."""
    # A crash must not leave keys in a file; a library leaves that choice to its program.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command with ``arguments`` and return its exit code."""
    frame = Frame()
    _keep_libraries_quiet(arguments)
    try:
        with Root().make_context("stanch", list(arguments), obj=frame) as context:
            result = context.command.invoke(context)
        if isinstance(result, Result):
            _print_result(result, frame)
            return result.exit_code
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        frame.json = frame.json or "--json" in arguments
        return _print_error(_from_click(error), USAGE, frame)
    except (KeyboardInterrupt, click.Abort):
        return _print_interruption(frame)
    except StanchError as error:
        _debug(frame)
        return _print_error(error, error.exit_code, frame)
    except Exception as error:  # noqa: BLE001 - the last net: a bug of ours becomes exit 70, never a bare traceback
        _debug(frame)
        return _print_error(bug(error), BUG, frame)
    finally:
        _close(frame)
    return 0


def _keep_libraries_quiet(arguments: Sequence[str]) -> None:
    """Keep third-party libraries from using the network and from writing over our own progress and messages."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    if "--debug" not in arguments:
        warnings.simplefilter("ignore", FutureWarning)


def _close(frame: Frame) -> None:
    if frame.bar is not None:
        frame.bar.close()


def _debug(frame: Frame) -> None:
    if frame.debug:
        import traceback  # noqa: PLC0415 - rarely asked for

        from stanch.terms import redact  # noqa: PLC0415 - same

        _write(redact(traceback.format_exc()).rstrip(), sys.stderr)


def _from_click(error: click.ClickException) -> InvalidInput:
    usage = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "stanch"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return InvalidInput(f"{usage}: which command is missing", next_step=f"see: {usage} --help")
    return InvalidInput(error.format_message(), next_step=f"see: {usage} --help")


def _print_result(result: Result, frame: Frame) -> None:
    _close(frame)
    if frame.jsonl:
        _write_all((_to_json(row) for row in result.rows), sys.stdout)
        return
    if frame.json:
        answer = {
            "schema": SCHEMA,
            "command": frame.command,
            "ok": result.exit_code == 0,
            "exit": result.exit_code,
            "data": result.data,
            "warnings": [*frame.warnings, *result.warnings],
        }
        _write(_to_json(answer), sys.stdout)
        return
    _write_all((f"warning: {warning}" for warning in (*frame.warnings, *result.warnings)), sys.stderr)
    _write(result.text, sys.stdout)


def _print_error(error: StanchError, code: int, frame: Frame) -> int:
    problem = {"slug": error.slug, "what": error.what, "why": error.why, "next": error.next_step}
    lines = [f"{label + ':':<7}{problem[key]}" for label, key in _LABELS.items() if problem[key]]
    return _print_problem(problem, lines, code, frame)


def _print_interruption(frame: Frame) -> int:
    problem = {"slug": "interrupted", "what": "interrupted: nothing half-done was accepted", "why": "", "next": ""}
    return _print_problem(problem, ["", problem["what"]], INTERRUPTED, frame)


def _print_problem(problem: dict[str, str], lines: Sequence[str], code: int, frame: Frame) -> int:
    """Say what went wrong: one JSON object on standard output, or lines on standard error."""
    _close(frame)
    if frame.json or frame.jsonl:
        answer = {
            "schema": SCHEMA,
            "command": frame.command,
            "ok": False,
            "exit": code,
            "error": problem,
            "warnings": list(frame.warnings),
        }
        _write(_to_json(answer), sys.stdout)
    else:
        _write_all((*(f"warning: {warning}" for warning in frame.warnings), *lines), sys.stderr)
    return code


def _to_json(value: object) -> str:
    import json  # noqa: PLC0415 - only where it is asked for

    return json.dumps(value, ensure_ascii=False)


def _write(text: str, stream: TextIO) -> None:
    _write_all((text,), stream)


def _write_all(lines: Iterable[str], stream: TextIO) -> None:
    """Write lines; a reader that went away is no error, and what is left to say goes nowhere."""
    try:
        stream.writelines(line + "\n" for line in lines)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
