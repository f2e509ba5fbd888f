"""``stanch watch serve``: the detectors, until told to end."""

import signal
import threading

import click

from stanch.cli.frame import Leaf, Result, current


@click.command("serve", cls=Leaf)
def serve() -> Result:
    """Watch the log until told to end: raise alerts, tell the sinks, hand on what nobody takes, remind of incidents.

    Of several hosts on one database one does each round while the others wait.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - same
    from stanch.watch import detectors  # noqa: PLC0415 - same
    from stanch.workspace.verbs_serve import serve_watch  # noqa: PLC0415 - same
    from stanch.workspace.watcher import Watcher  # noqa: PLC0415 - same

    frame, stop = current(), threading.Event()

    def tell(text: str) -> None:
        if not frame.quiet:
            click.echo(f"watching   {text}", err=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_workspace(frame) as workspace:
        name = workspace.people.name
        watcher = Watcher(
            workspace, detectors(),
            lambda: workspace.acting_as(name, unlock=lambda: ask_passphrase(frame.passphrase_file)), stop, tell,
        )  # fmt: skip
        names = [detector.name for detector in watcher.detectors]
        tell(workspace.ledger.origin)
        serve_watch(workspace, names, watcher.run)
    return Result({"detectors": [*names]}, f"ended      {', '.join(names)}")


COMMANDS = (serve,)
