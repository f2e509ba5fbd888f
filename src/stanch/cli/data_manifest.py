"""``stanch data manifest``, ``verify``, ``prove`` and ``check``: fix a data set, and prove one record of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current

if TYPE_CHECKING:
    from stanch.data import DatasetManifest

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
DATA = click.Path(path_type=Path)
OUT = click.Path(path_type=Path, dir_okay=False)


@click.command("manifest", cls=Leaf)
@click.argument("path", type=DATA)
@click.option("--out", type=OUT, help="Write the manifest here.")
def manifest(path: Path, out: Path | None) -> Result:
    """Fix the content of the data set PATH: a salted Merkle root, recorded in the log."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import take_stock  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        made = take_stock(workspace, open_dataset_of(workspace, path))
    if out is not None:
        write_atomic(out, made.to_json())
    return _result(made, f"manifest  {path}: {made.count} records, root {made.root}")


@click.command("verify", cls=Leaf)
@click.argument("path", type=DATA)
@click.option(
    "--manifest", "manifest_file", type=FILE, required=True, help="The manifest, as `data manifest` wrote it."
)
def verify(path: Path, manifest_file: Path) -> Result:
    """Verify that the data set PATH holds the records of a manifest, all of them, in their order."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_data import verify_stock  # noqa: PLC0415 - same

    fixed = _read(manifest_file)
    with open_workspace(current()) as workspace:
        verify_stock(workspace, open_dataset_of(workspace, path), fixed)
    return _result(fixed, f"verified  {path}: the {fixed.count} records of the manifest, root {fixed.root}")


@click.command("prove", cls=Leaf)
@click.argument("path", type=DATA)
@click.argument("record")
@click.option(
    "--manifest", "manifest_file", type=FILE, required=True, help="The manifest, as `data manifest` wrote it."
)
@click.option("--out", type=OUT, required=True, help="The proof. It shows this record and no other.")
def prove(path: Path, record: str, manifest_file: Path, out: Path) -> Result:
    """Prove that the record with the id RECORD, as reports name it, is in the data set PATH."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import prove_stock  # noqa: PLC0415 - same

    fixed = _read(manifest_file)
    with open_workspace(current()) as workspace:
        proof = prove_stock(workspace, open_dataset_of(workspace, path), fixed, record)
    write_atomic(out, proof.to_json(), mode=0o600)
    text = (
        f"proven    record {proof.index + 1} of {proof.count}  → {out}\n"
        f"note      the file shows this record; who has it and the manifest runs `stanch data check`"
    )
    return Result({"record": proof.index + 1, "records": proof.count, "root": fixed.root}, text)


@click.command("check", cls=Leaf)
@click.argument("proof_file", metavar="PROOF", type=FILE)
@click.option("--manifest", "manifest_file", type=FILE, required=True, help="The manifest, from whom you trust.")
def check(proof_file: Path, manifest_file: Path) -> Result:
    """Check offline that the record in PROOF is in the data set of a manifest; needs no workspace and no key."""
    from stanch.data import RecordProof, verify_record  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.terms import Digest  # noqa: PLC0415 - same

    fixed = _read(manifest_file)
    proof = RecordProof.from_json(proof_file.read_bytes())
    proven = verify_record(proof, Digest("sha256", bytes.fromhex(fixed.root)), count=fixed.count)
    text = (
        f"verified  {proof_file}: its record is record {proven.index + 1} of {proven.count} of {fixed.name}\n"
        f"means     as much as the manifest, which nobody signs; the log has its root: {fixed.root}"
    )
    return Result({"record": proven.index + 1, "records": proven.count, "root": fixed.root}, text)


def _read(path: Path) -> "DatasetManifest":
    from stanch.data import DatasetManifest  # noqa: PLC0415 - keeps `stanch --help` light

    return DatasetManifest.from_json(path.read_bytes())


def _result(made: "DatasetManifest", text: str) -> Result:
    return Result({"root": made.root, "records": made.count}, text)
