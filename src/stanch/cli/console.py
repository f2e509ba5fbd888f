"""``stanch console``: the web pages and the control API of a workspace, and the first way in."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import click

from stanch.cli.frame import Group, Result, current


@click.group(cls=Group)
def console() -> None:
    """See and steer a workspace with a browser or over JSON."""


@console.command("token")
def token() -> Result:
    """Make a one-time link into the console: good once, for 15 minutes, on this machine.

    It is refused once a platform administrator can sign in at an issuer.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.console.serve import address_of  # noqa: PLC0415 - same
    from stanch.workspace.verbs_console import make_token  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        address = address_of(workspace)
        made = make_token(workspace)
    url = f"{address}/login?{urlencode({'token': made.text})}"
    until = f"{datetime.fromtimestamp(made.expires_ms / 1000, UTC):%Y-%m-%d %H:%MZ}"
    return Result({"url": url, "expires_ms": made.expires_ms}, f"link       {url}\ngood       once, until {until}")


@console.command("serve")
def serve() -> Result:
    """Serve the pages and the control API until told to end."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.console.serve import address_of, run_console  # noqa: PLC0415 - same
    from stanch.workspace.verbs_console import serve_console  # noqa: PLC0415 - same

    quiet = current().quiet

    def ready(url: str) -> None:
        if not quiet:
            click.echo(f"serving    {url}/", err=True)

    with open_workspace(current()) as workspace:
        address = address_of(workspace)
        serve_console(workspace, lambda: run_console(workspace, ready=ready))
    return Result({"url": address}, f"ended      {address}")
