"""``stanch inventory``: stray plaintext copies of protected weights. No workspace is needed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.release import Fingerprint, Inventory, Stray
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
FOUND, INCOMPLETE = 1, 5
_BUCKET = re.compile(r"(s3|gs|az)://")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Protected:
    """Where the protected weights, or what is known of them, come from; exactly one of the first three."""

    model: Path | None
    bundle: Path | None
    fingerprint: Path | None
    trust: Path | None
    identity: Path | None


@click.command("inventory", cls=Leaf)
@click.argument("places", nargs=-1, metavar="[PATH|URI]...")
@click.option("--model", type=FOLDER, help="The protected model or adapter; what lies in it is not stray.")
@click.option("--bundle", type=FOLDER, help="A sealed copy of it; needs --trust and --identity.")
@click.option("--fingerprint", type=FILE, help="What --save wrote: the search then needs no plaintext at hand.")
@click.option("--trust", type=FILE, help="With --bundle: the publisher's public key.")
@click.option("--identity", type=FILE, help="With --bundle: a key that can open it.")
@click.option("--base", type=FOLDER, help="The public base model: what lies in it too is not searched for.")
@click.option("--allow", type=FOLDER, multiple=True, help="Where copies may lie; may be repeated.")
@click.option("--save", type=FILE, help="Write the fingerprint to this new file (mode 0600).")
def inventory(
    places: tuple[str, ...], base: Path | None, allow: tuple[Path, ...], save: Path | None, **protected: Path | None
) -> Result:
    """Search files and buckets for plaintext copies of protected weights, whatever they are called or lie in."""
    from stanch.crypto import write_private  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import Listing, leave_out, search  # noqa: PLC0415 - same

    frame, given = current(), _Protected(**protected)
    if not places and save is None:
        raise InvalidInput("nothing to do: name places to search, or --save FILE")
    listing = Listing()
    for place in places:
        if _BUCKET.match(place):
            listing.add_bucket(place)
        elif not Path(place).exists():
            raise InvalidInput(f"{place}: no such file or folder")
        else:
            listing.add_folder(Path(place), (*allow, *_files_of(given.model), *([given.model] if given.model else [])))
    fingerprint = _read_protected(given)
    if base is not None:
        if not base.exists():
            raise InvalidInput(f"{base}: no such file or folder")
        public = Listing()
        for path in _files_of(base):
            public.add_folder(path)
        fingerprint = leave_out(fingerprint, public)
    if save is not None:
        write_private(save, fingerprint.to_bytes())
    if not places:
        count = len(fingerprint.tensors)
        return Result({"saved": str(save), "tensors": count}, f"saved      {save}: {count} tensors; keep it private")
    return _result(search(fingerprint, listing, progress=frame.progress()))


def _read_protected(given: _Protected) -> "Fingerprint":
    from stanch.release import Fingerprint, Listing, take_fingerprint  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.weights import weight_files  # noqa: PLC0415 - same

    if sum(one is not None for one in (given.model, given.bundle, given.fingerprint)) != 1:
        raise InvalidInput("expected one of --model, --bundle and --fingerprint")
    if given.fingerprint is not None:
        if not given.fingerprint.is_file():
            raise InvalidInput(f"{given.fingerprint}: no such file", next_step="make it with --save")
        return Fingerprint.parse(given.fingerprint.read_bytes(), what=given.fingerprint.name)
    if given.bundle is not None:
        return take_fingerprint(_open_bundle(given))
    assert given.model is not None  # noqa: S101 - one of the three is given
    files: list[tuple[str, Listing]] = [(path.name, Listing()) for path in weight_files(given.model)]
    for name, listing in files:
        listing.add_folder((given.model / name if given.model.is_dir() else given.model).resolve())
    return take_fingerprint((name, item.size, item.chunks()) for name, listing in files for item in listing.items)


def _files_of(model: Path | None) -> Iterator[Path]:
    """Yield the files of a model; in the hub's cache the folder holds links to them."""
    if model is not None:
        yield from (path.resolve() for path in (model.rglob("*") if model.is_dir() else [model]) if path.is_file())


def _open_bundle(given: _Protected) -> Iterator[tuple[str, int, Iterator[memoryview]]]:
    """Yield the weight files of a sealed copy; no plaintext of them is written."""
    from stanch.cli.recipients import identity_of, trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import open_copy  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same

    if given.bundle is None or given.trust is None or given.identity is None:
        raise InvalidInput("--bundle needs --trust KEY and --identity KEY")
    key = identity_of(given.identity)
    seen = FileReleases(given.identity.with_suffix(".releases"))
    with open_copy(given.bundle, trust_of(given.trust), [key], memory=seen) as opened:
        for file in opened.files():
            if file.type == "safetensors":
                yield file.path, file.size, opened.pieces(file.path)


def _result(found: "Inventory") -> Result:
    stray: list[JsonValue] = [
        {
            "place": one.place, "size": one.size, "file": one.file, "tensors": list(one.tensors),
            "parts": list(one.parts),
        }
        for one in found.stray
    ]  # fmt: skip
    data: dict[str, JsonValue] = {
        "stray": stray, "searched": found.searched, "size": found.size, "unread": list(found.unread),
    }  # fmt: skip
    head = f"searched   {found.searched} files, {found.size / 1e6:.1f} MB: "
    head += f"{len(stray)} hold protected weights" if stray else "none holds protected weights"
    if found.unread:
        head += f"; {len(found.unread)} could not be read"
    code = FOUND if stray else INCOMPLETE if found.unread else 0
    warnings = tuple(f"{place}: could not be read; nothing is known of it" for place in found.unread)
    return Result(data, "\n".join([*map(_line, found.stray), head]), code, warnings)


def _line(one: "Stray") -> str:
    if one.file is not None:
        what = f"all of {one.file}"
    elif one.tensors:
        what = f"{len(one.tensors)} tensors: {_names(one.tensors)}"
    else:
        what = f"parts of {len(one.parts)} tensors: {_names(one.parts)}"
    return f"found      {one.place}: {what}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
