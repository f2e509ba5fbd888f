"""``stanch access key``: API keys of services, and the keys that approvers register."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Result, current
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from stanch.access import ApiKeyRecord


@click.group(cls=Group)
def key() -> None:
    """API keys of services, and keys of approvers."""


@key.command("issue")
@click.argument("name", metavar="SERVICE")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="sha256:HEX of a model it is good for, or workspace for the console; repeatable.",
)
@click.option(
    "--network", "networks", multiple=True, required=True, help="A network (CIDR) it may be used from; repeatable."
)
@click.option("--action", "actions", multiple=True, default=("model:infer",), help="What it may do; repeatable.")
@click.option("--days", type=click.IntRange(1, 366), help="How long; otherwise [access] key_days.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the key to this new file (mode 0600), not to stdout."
)
def issue(
    name: str,
    models: tuple[str, ...],
    networks: tuple[str, ...],
    actions: tuple[str, ...],
    days: int | None,
    out: Path | None,
) -> Result:
    """Make a key for SERVICE. It is shown once and kept nowhere."""
    from stanch.access import ApiKeyOrder  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - same
    from stanch.crypto import write_private  # noqa: PLC0415 - same
    from stanch.errors import InvalidInput, StanchError  # noqa: PLC0415 - same
    from stanch.workspace.verbs_access import issue_key, revoke_key  # noqa: PLC0415 - same

    if out is not None and out.exists():
        raise InvalidInput(f"{out}: exists already", next_step="choose another --out")
    with open_workspace(current()) as workspace:
        chosen = days if days is not None else workspace.config.access.key_days
        order = ApiKeyOrder(
            principal=workspace.people.find(name), models=models, networks=networks, actions=actions, days=chosen
        )
        record, secret = issue_key(workspace, order)
        if out is not None:
            try:
                write_private(out, f"{secret.text}\n".encode())
            except StanchError:
                revoke_key(workspace, record.id)  # nobody will ever have it
                raise
    data = _data(record)
    shown = f"written to {out}" if out is not None else secret.text
    if out is None:
        data["secret"] = secret.text
    return Result(data, f"key      {record.id} of {name}, until {_date(record.expires_ms)}\nsecret   {shown}")


@key.command("list")
def list_keys() -> Result:
    """List the keys, with what each is good for."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light

    with open_workspace(current()) as workspace:
        records = workspace.people.api_keys.keys()
        names = {principal.id: principal.display for principal in workspace.people.directory.principals()}
        now_ms = int(workspace.now().timestamp() * 1000)
    lines = [
        f"{record.id}  {names.get(record.principal) or record.principal:<16} {_state(record, now_ms):<17} "
        f"{', '.join(record.actions)} from {', '.join(record.networks)}\n"
        + "\n".join(f"    {model}" for model in record.models)
        for record in records
    ]
    return Result({"keys": [_data(record) for record in records]}, "\n".join(lines) or "no API keys")


def _state(record: "ApiKeyRecord", now_ms: int) -> str:
    if record.revoked_ms is not None:
        return "revoked"
    return "expired" if now_ms >= record.expires_ms else f"until {_date(record.expires_ms)}"


@key.command("register")
@click.argument("recipient")
def register(recipient: str) -> Result:
    """Register RECIPIENT (stanch1-…) as the key that shares of yours are wrapped to, so that you can be an approver."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_approve import register_key  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        key_id, signed = register_key(workspace, recipient), workspace.people.local.key.key_id
    return Result(
        {"key_id": key_id, "signed_with": signed},
        f"registered  {key_id}: shares of yours are wrapped to it from now on\nsigned with {signed}, your local key",
    )


@key.command("revoke")
@click.argument("key_id", metavar="KEY")
def revoke(key_id: str) -> Result:
    """Refuse a key from now on."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_access import revoke_key  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        revoke_key(workspace, key_id)
    return Result({"key": key_id}, f"revoked  {key_id}")


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _data(record: "ApiKeyRecord") -> dict[str, JsonValue]:
    return {
        "key": record.id, "principal": record.principal, "models": list(record.models),
        "networks": list(record.networks), "actions": list(record.actions), "expires_ms": record.expires_ms,
        "revoked": record.revoked_ms is not None,
    }  # fmt: skip
