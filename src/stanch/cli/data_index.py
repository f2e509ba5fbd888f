"""``stanch data index``: build the keyed index of the training text, ask it, merge parts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from stanch.cli.engines import engine_of, shared
from stanch.cli.frame import Group, Result, current

if TYPE_CHECKING:
    from stanch.scan.spans.index_file import Header
    from stanch.terms import JsonValue
    from stanch.workspace.verbs_index import Answer

IN = click.Path(path_type=Path, dir_okay=False)
INDEX = click.Path(path_type=Path)
OUT = click.Path(path_type=Path)
SEALED = click.option(
    "--sealed", is_flag=True,
    help="Write a sealed bundle, which only this workspace can open. It is read into memory, not mapped.",
)  # fmt: skip
_MAX_LINE = 1 << 26
_BOILERPLATE_AFTER, _MUCH = 5, 0.01


@click.group(cls=Group)
def index() -> None:
    """The keyed index of the training text."""


@index.command("build")
@click.argument("path", type=IN)
@click.option(
    "--window", type=click.Choice(["standard", "fine"]), default="standard",
    help="Runs of 81 (standard) or 63 (fine) characters are surely cut.",
)  # fmt: skip
@click.option(
    "--leave-out-boilerplate", is_flag=True,
    help="Do not index what more than five texts share: licences and greetings, but also what many records quote.",
)  # fmt: skip
@click.option("--public", type=IN, help="A text that everybody has, such as a licence: its runs are left out.")
@click.option("--for-chars", type=click.IntRange(min=1), help="Build one part of an index of so many characters.")
@click.option("--like", type=INDEX, help="Build another part of the index that this is one part of.")
@SEALED
@click.option("--out", type=OUT, required=True, help="The index.")
@shared
def build(
    path: Path, window: str, *, leave_out_boilerplate: bool, public: Path | None, for_chars: int | None,
    like: Path | None, out: Path, **more: Any,  # noqa: ANN401 - `sealed` and the options of `shared`
) -> Result:  # fmt: skip
    """Index the text of the data set PATH, so that the guard knows it again."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.key_places import key_places  # noqa: PLC0415 - same
    from stanch.scan import FINE, STANDARD, Layout  # noqa: PLC0415 - same
    from stanch.workspace.indexes import Sealed, open_index  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import index_data  # noqa: PLC0415 - same

    if for_chars is not None and like is not None:
        raise click.UsageError("give --for-chars for the first part and --like for the others, not both")
    params = FINE if window == "fine" else STANDARD
    if leave_out_boilerplate:
        params = replace(params, boilerplate_after=_BOILERPLATE_AFTER)
    layout = Layout.for_chars(for_chars, params) if for_chars is not None else None
    frame, place = current(), Sealed(out) if more.pop("sealed") else out
    doer = engine_of(key_places(frame, index=True), **more)
    with open_workspace(frame) as workspace:
        if like is not None:
            header = open_index(workspace.keys, like)[0].header
            params, layout = header.params, Layout(bytes.fromhex(header.salt), header.blocks)
        texts = [_read(public)] if public is not None else []
        dataset = open_dataset_of(workspace, path)
        made = index_data(workspace, dataset, place, params, public=texts, layout=layout, engine=doer)
    return _told(made.header, f"indexed   {path}", {}, out)


@index.command("query")
@click.argument("index_file", metavar="INDEX", type=INDEX)
@click.argument("source", metavar="PATH|-")
@click.option("--whole", is_flag=True, help="The file is one text; say how likely its hits are by chance.")
def query(index_file: Path, source: str, *, whole: bool) -> Result:
    """Ask INDEX which lines of a file hold training text; each line is one text. Exit code 1: some do."""
    from stanch.cli.ground import open_input, open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_index import query_index  # noqa: PLC0415 - same

    with open_input(source) as file, open_workspace(current()) as workspace:
        answers = query_index(workspace, index_file, [_all(file, source)] if whole else _lines(file, source))
    found = [(number, answer) for number, answer in enumerate(answers, 1) if answer.matches]
    rows: list[JsonValue] = [_row(number, answer) for number, answer in (enumerate(answers, 1) if whole else found)]
    data: dict[str, JsonValue] = {"texts": len(answers), "matched": len(found), "lines": rows}
    text = _text_whole(source, answers[0]) if whole else _text_lines(source, len(answers), found)
    return Result(data, text, exit_code=1 if found else 0)


def _text_lines(source: str, texts: int, found: "list[tuple[int, Answer]]") -> str:
    lines = [f"{source}  {texts} texts, {len(found)} with training text"]
    lines += [
        f"  line {number:<6} {_length(answer)} characters, by chance 10^{answer.evidence.log10_p:.1f}"
        for number, answer in found
    ]
    return "\n".join(lines)


def _text_whole(source: str, answer: "Answer") -> str:
    evidence = answer.evidence
    return (
        f"{source}  {len(answer.matches)} spans of training text, {_length(answer)} characters\n"
        f"evidence  {evidence.hits} of {evidence.windows} windows are in the index; that many or more by chance: "
        f"10^{evidence.log10_p:.1f}\n"
        "note      of several texts, multiply by their number. It bounds chance alone: what was published elsewhere\n"
        "          too, or what many people write alike, is in the index without having come from here"
    )


def _length(answer: "Answer") -> int:
    return sum(match.folded_length for match in answer.matches)


@index.command("merge")
@click.argument("parts", metavar="PART...", nargs=-1, required=True, type=INDEX)
@SEALED
@click.option("--out", type=OUT, required=True, help="The index of all their texts.")
def merge(parts: tuple[Path, ...], *, sealed: bool, out: Path) -> Result:
    """Merge parts of one index, built with --for-chars and --like."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.indexes import Sealed  # noqa: PLC0415 - same
    from stanch.workspace.verbs_index import merge_indexes  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        merged = merge_indexes(workspace, parts, Sealed(out) if sealed else out)
    return _told(merged.header, f"merged    {len(parts)} parts", {"parts": len(parts)}, out)


def _told(header: "Header", done: str, counts: "dict[str, JsonValue]", out: Path) -> Result:
    """Say how many windows an index holds and how many were left out; warn if these are more than 1 % of all."""
    left_out = header.boilerplate.left_out if header.boilerplate is not None else 0
    share = left_out / max(header.keys + left_out, 1)
    aside = "" if header.boilerplate is None else f", {left_out} left out ({share:.1%})"
    warning = (
        f"{share:.1%} of the windows are not in the index, so answers may quote them: many texts share them, or they "
        "are public. Build it without --leave-out-boilerplate unless that is meant"
    )
    data = {"keys": header.keys, **counts, "left_out": left_out, "left_out_share": round(share, 4)}
    return Result(data, f"{done}: {header.keys} windows{aside}  → {out}", warnings=(warning,) if share > _MUCH else ())


def _row(number: int, answer: "Answer") -> "dict[str, JsonValue]":
    spans: list[JsonValue] = [
        {"start": match.start, "end": match.end, "folded_length": match.folded_length, "hits": match.hits}
        for match in answer.matches
    ]
    evidence = answer.evidence
    return {
        "line": number, "matches": spans, "windows": evidence.windows, "hits": evidence.hits,
        "log10_p": evidence.log10_p,
    }  # fmt: skip


def _read(path: Path) -> str:
    from stanch.errors import InvalidInput  # noqa: PLC0415 - keeps `stanch --help` light

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as UTF-8 text") from error


def _all(file: BinaryIO, source: str) -> str:
    from stanch.errors import InvalidInput  # noqa: PLC0415 - keeps `stanch --help` light

    data = file.read(_MAX_LINE + 1)
    if len(data) > _MAX_LINE:
        raise InvalidInput(
            f"{source}: expected at most {_MAX_LINE} bytes of one text", next_step="ask about parts of it"
        )
    return data.decode(errors="replace")


def _lines(file: BinaryIO, source: str) -> Iterator[str]:
    """Yield the lines; bytes that are no UTF-8 separate words."""
    from stanch.errors import InvalidInput  # noqa: PLC0415 - keeps `stanch --help` light

    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise InvalidInput(f"{source}: line {number} has more than {_MAX_LINE} bytes")
        yield line.decode(errors="replace")
