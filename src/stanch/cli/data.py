"""``stanch data``: manifests, duplicates, splits, canaries, the training-text index."""

from pathlib import Path
from typing import Any

import click

from stanch.cli.data_canaries import canaries
from stanch.cli.data_index import index
from stanch.cli.data_manifest import check, manifest, prove, verify
from stanch.cli.data_terms import dictionary, vault
from stanch.cli.engines import engine_of, shared
from stanch.cli.frame import SHARE, Group, Result, current

IN = click.Path(path_type=Path, dir_okay=False)
OUT = click.Path(path_type=Path)
_SHOWN = 20


@click.group(cls=Group)
def data() -> None:
    """Manifests, duplicates, splits, canaries, the training-text index."""


for _command in (dictionary, vault, manifest, verify, prove, check):
    data.add_command(_command)


@data.command("dedup")
@click.argument("path", type=IN)
@click.option("--out", type=OUT, help="The data set without near-duplicates.")
@click.option("--report-only", is_flag=True, help="Write no data set; say what --out would leave out.")
@click.option(
    "--report", "report_file", type=OUT, help="Write the clusters here: ids, sizes and similarities, no text."
)
@click.option(
    "--ignore-columns", is_flag=True,
    help="Drop records that say the same although their other columns (labels, numbers) differ.",
)  # fmt: skip
@shared
def dedup(
    path: Path, out: Path | None, *, report_only: bool, report_file: Path | None, ignore_columns: bool, **sharing: Any,  # noqa: ANN401 - the options of `shared`
) -> Result:  # fmt: skip
    """Keep the first of each cluster of near-duplicate records; what differs in signs, tool calls or columns stays."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.key_places import key_places  # noqa: PLC0415 - same
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import deduplicate, find_duplicates  # noqa: PLC0415 - same

    if report_only is (out is not None):
        raise click.UsageError("give either --out FILE or --report-only")
    frame = current()
    doer = engine_of(key_places(frame), **sharing)
    with open_workspace(frame) as workspace:
        dataset = open_dataset_of(workspace, path)
        before = len(dataset)
        if out is None:
            report, copies = find_duplicates(workspace, dataset, ignore_columns=ignore_columns, engine=doer)
        else:
            report, kept = deduplicate(workspace, dataset, out, ignore_columns=ignore_columns, engine=doer)
            copies = before - len(kept)
    if report_file is not None:
        write_atomic(report_file, report.to_json(), mode=0o600)
    after = before - copies
    different = sum(len(cluster) - 1 for cluster in report.clusters) - copies
    did = f"kept      {after} of" if out is not None else f"would keep {after} of"
    lines = [f"{did} {before} records; {len(report.clusters)} clusters of near-duplicates{f'  → {out}' if out else ''}"]
    if different:
        lines.append(f"          {different} of them say what another says, and differ in signs, tool calls or columns")
    if different and not ignore_columns:
        lines.append("next      --ignore-columns, if the columns beside the text (labels, numbers of rows) may differ")
    counts = {"before": before, "after": after, "clusters": len(report.clusters), "different": different}
    return Result(dict(counts), "\n".join(lines))


@data.command("repeats")
@click.argument("path", type=IN)
@click.option("--min-chars", type=click.IntRange(64, 4096), default=200, help="The shortest run that counts.")
@click.option("--out", type=OUT, help="Write the whole report here: lengths, counts and record ids, no text.")
def repeats(path: Path, min_chars: int, out: Path | None) -> Result:
    """Find long runs of text that stand in more than one record, the riskiest first."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import write_atomic  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import find_repeats  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        report = find_repeats(workspace, open_dataset_of(workspace, path), min_chars)
    if out is not None:
        write_atomic(out, report.to_json(), mode=0o600)
    lines = [f"repeats   {path}: {len(report.spans)} runs of {min_chars} or more characters in several records"]
    lines += [
        f"  {span.length} characters, {span.occurrences} times in {span.records} records, {span.bits:.0f} bits"
        for span in report.spans[:_SHOWN]
    ]
    longest = max((span.length for span in report.spans), default=0)
    return Result({"runs": len(report.spans), "longest": longest, "records": report.records}, "\n".join(lines))


@data.command("split")
@click.argument("path", type=IN)
@click.option("--holdout", type=SHARE, default=0.1, help="Share kept out.")
@click.option("--members", type=OUT, required=True, help="The records to tune on.")
@click.option("--held-out", type=OUT, required=True, help="The records to keep out, for the audit.")
@click.option("--unit-column", metavar="NAME", help="The column that says whose a record is: a person's stay together.")
def split(path: Path, holdout: float, members: Path, held_out: Path, unit_column: str | None) -> Result:
    """Split members from records kept out; near-duplicates, and a person's records, never straddle the split."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_data import split_data  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        dataset = open_dataset_of(workspace, path)
        made = split_data(workspace, dataset, holdout, members, held_out, unit_column=unit_column)
    counts = {"members": len(made.members), "held_out": len(made.nonmembers)}
    text = f"split     {counts['members']} members → {members}, {counts['held_out']} → {held_out}"
    return Result(dict(counts), text, warnings=made.warnings)


data.add_command(canaries)
data.add_command(index)
