"""``stanch gateway``: serve models through the guard, and see what was used."""

from datetime import UTC, datetime

import click

from stanch.cli.frame import Group, Result, current
from stanch.errors import NotFound
from stanch.terms import JsonValue

_BUDGETS = (
    "requests",
    "tokens",
    "vectors",
    "bits",
    "protected-windows",
    "cut-windows",
)  # a test compares them with the gateway's


@click.group(cls=Group)
def gateway() -> None:
    """Serve models to programs: authenticated, recorded, guarded."""


@gateway.command("serve")
@click.option("--check", is_flag=True, help="Open everything that the settings name, say what it is, and end.")
def serve(check: bool) -> Result:  # noqa: FBT001 - a flag of click
    """Serve the models of [[gateway.models]] over the OpenAI API until told to end.

    Clients set their base URL to http://HOST:PORT/v1 and their key to one of `stanch access key issue`.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.gateway.serve import build_gateway, run_server  # noqa: PLC0415 - same
    from stanch.workspace.listening import listening, tls_context  # noqa: PLC0415 - same
    from stanch.workspace.verbs_serve import serve_models  # noqa: PLC0415 - same

    quiet = current().quiet

    def ready(url: str) -> None:
        if not quiet:
            click.echo(f"serving    {url}/v1", err=True)

    with open_workspace(current()) as workspace:
        built = build_gateway(workspace)
        host, port = listening(workspace, "gateway")
        tls_context(workspace, "gateway")
        lines = [
            f"model      {name}: {model.ref.digest}, guard {model.guard_digest}" for name, model in built.models.items()
        ]
        models: list[JsonValue] = [
            {"name": name, "digest": str(one.ref.digest), "guard": one.guard_digest, "guard_of": one.guard_facts}
            for name, one in built.models.items()
        ]
        if not check:
            serve_models(workspace, models, lambda: run_server(workspace, built, ready=ready))
    state = "ready      " if check else "ended      "
    return Result({"host": host, "port": port, "models": models}, "\n".join([*lines, f"{state}{host}:{port}"]))


@gateway.command("budgets")
@click.argument("name", metavar="PRINCIPAL")
def budgets(name: str) -> Result:
    """Show what PRINCIPAL has used of its budgets."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.gateway.budgets import Budgets  # noqa: PLC0415 - same
    from stanch.gateway.serve import limits_of  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        limits = limits_of(workspace.config.gateway, 0)
        found = Budgets(workspace.tables).uses(workspace.people.find(name))
    rows: list[JsonValue] = []
    lines = []
    for use in found:
        since = datetime.fromtimestamp(use.window_ms / 1000, UTC).strftime("%F %H:%MZ") if use.window_ms else "ever"
        limit = limits.of(use.budget) or 0  # of protected windows without a setting: the index says it
        rows.append({"model": use.model, "budget": use.budget, "since": since, "used": use.used, "limit": limit})
        lines.append(f"{use.budget:<18} {use.used:>12} {f'of {limit}' if limit else '':<16} since {since}  {use.model}")
    return Result({"budgets": rows}, "\n".join(lines) or "nothing used")


@gateway.command("reset-budget")
@click.argument("name", metavar="PRINCIPAL")
@click.option("--budget", required=True, type=click.Choice(_BUDGETS), help="Which one; its windows of time together.")
@click.option("--model", "model", help="The name of one model; without it all models of the settings.")
@click.option("--reason", required=True, help="Why; the log holds a commitment to it.")
def reset(name: str, budget: str, model: str | None, reason: str) -> Result:
    """Set what PRINCIPAL has used of a budget to nothing; requests on their way give nothing back to it."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.gateway.budgets import Budgets  # noqa: PLC0415 - same
    from stanch.workspace.verbs_serve import BudgetReset, reset_budget  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        sections = [one for one in workspace.config.gateway.models if model in {None, one.name}]
        if not sections:
            raise NotFound("the settings name no such model", next_step="see [[gateway.models]] in stanch.toml")
        models = tuple(sorted({one.digest for one in sections}))
        order = BudgetReset(workspace.people.find(name), models, budget, reason)
        reset_budget(workspace, order, Budgets(workspace.tables).reset)
    return Result({"principal": order.principal, "models": [*models], "budget": budget}, f"reset      {budget}: {name}")


@gateway.command("restore-budget")
@click.argument("name", metavar="PRINCIPAL")
@click.option("--model", required=True, help="The model's sha256:HEX, as it was named when the budget was lowered.")
def restore(name: str, model: str) -> Result:
    """Take back that PRINCIPAL's budget was lowered to contain an incident; the settings' limits hold again."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.terms import Digest  # noqa: PLC0415 - same
    from stanch.workspace.verbs_contain import restore_budget  # noqa: PLC0415 - same

    digest = Digest.parse(model)
    with open_workspace(current()) as workspace:
        principal = workspace.people.find(name)
        restore_budget(workspace, principal, digest)
    return Result({"principal": principal, "model": str(digest)}, f"restored   {name}: {digest}")
