"""``stanch trace text | text-root``: which tenant's model wrote a text. No workspace is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result
from stanch.errors import InvalidInput, MissingExtraError

if TYPE_CHECKING:
    from stanch.terms import JsonValue
    from stanch.trace import TextDetection

FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_BYTES = 64 << 20


@click.command("text-root", cls=Leaf)
@click.argument("out", type=FILE)
def text_root(out: Path) -> Result:
    """Make the secret of text watermarks, a new file OUT that only its owner can read."""
    from stanch.trace import TextRoot  # noqa: PLC0415 - keeps `stanch --help` light

    TextRoot.generate().save(out)
    return Result({"path": str(out)}, f"made       {out}: every tenant's keys follow from it; keep it secret")


@click.command("text", cls=Leaf)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("--root", "root_file", type=FILE, required=True, help="The secret of text watermarks.")
@click.option("--tenants", "tenants_file", type=FILE, required=True, help="Every tenant's name, one a line.")
@click.option("--tokenizer", type=FILE, help="The model's tokenizer.json; without it a FILE is a JSON list of tokens.")
@click.option("--epsilon", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=1e-9, show_default=True,
              help="Bound on the chance of naming any tenant wrongly.")  # fmt: skip
@click.option("--analyses", type=click.IntRange(1), default=1, show_default=True, help="How many runs share epsilon.")
def text(
    files: tuple[Path, ...], root_file: Path, tenants_file: Path, tokenizer: Path | None, epsilon: float, analyses: int
) -> Result:
    """Say which tenant's model wrote the texts. Exit 1 if one is named, 5 if the texts are too short."""
    from stanch.trace import TextRoot, detect_text  # noqa: PLC0415 - keeps `stanch --help` light

    root, names = TextRoot.load(root_file), _read(tenants_file).split("\n")
    tenants = {name: root.keys(name) for name in names if name}
    texts = [_tokens(path, tokenizer) for path in files]
    found = detect_text(texts, tenants, epsilon=epsilon, analyses=analyses)
    exit_code = 1 if found.named else 0 if found.conclusive else 5
    return Result(found.to_json(), describe_text(found), exit_code)


def _read(path: Path) -> str:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidInput(f"{path}: expected at most {_MAX_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text") from error


def _tokens(path: Path, tokenizer: Path | None) -> Sequence[int]:
    """Return the tokens of one file."""
    from stanch.crypto import parse_json  # noqa: PLC0415 - keeps `stanch --help` light

    content = _read(path)
    if tokenizer is None:
        found: JsonValue = parse_json(content.encode(), what=str(path), max_bytes=_MAX_BYTES)
        if not isinstance(found, list):
            raise InvalidInput(f"{path}: expected a JSON list of token numbers", next_step="or give --tokenizer")
        return [token if isinstance(token, int) else -1 for token in found]
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    definition = _read(tokenizer)
    try:
        ids: list[int] = Tokenizer.from_str(definition).encode(content, add_special_tokens=False).ids
    except Exception as error:  # the library raises a bare Exception
        raise InvalidInput(f"{tokenizer}: not a tokenizer definition") from error
    return ids


def describe_text(found: "TextDetection") -> str:
    """Return a result in a few lines."""
    lines = [f"counted    {found.tokens} tokens against {found.n} tenants"]
    lines += [
        f"named      {score.tenant:<20} z {score.z:.1f}   log10 p <= {score.log10_p:.1f}" for score in found.named
    ]
    if not found.conclusive:
        lines.append("inconclusive: the texts are too short")
    elif not found.named:
        lines.append(f"nothing    highest z {found.scores[0].z:.2f}")
    lines.append("this is a lead, no proof: whoever holds enough of a tenant's marked text can imitate its mark.")
    return "\n".join([*lines, found.sentence])
