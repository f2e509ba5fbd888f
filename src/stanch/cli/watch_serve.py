"""``stanch watch serve``: the detectors, until told to end."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Frame, Leaf, Result, current
from stanch.terms import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from stanch.config.model import RepeatedAuditSection
    from stanch.workspace import Workspace
    from stanch.workspace.schedule import Check
    from stanch.workspace.verbs_check import Found

_END_SECONDS, _POLL = 30.0, 0.2
_WORSE = (Verdict.NO_LEAK_DETECTED, Verdict.INCONCLUSIVE, Verdict.LEAK_PROVEN, Verdict.DP_CLAIM_FALSIFIED)
"""Verdicts, each worse than the one before."""


@click.command("serve", cls=Leaf)
def serve() -> Result:
    """Watch the log until told to end: raise alerts, tell the sinks, hand on what nobody takes, remind of incidents.

    It also verifies the log and audits served models again, as [watch] in the settings says, and raises an alert where
    that finds something, fails or is late.
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
            checks_of(workspace, frame, stop),
        )  # fmt: skip
        names = [detector.name for detector in watcher.detectors]
        tell(workspace.ledger.origin)
        serve_watch(workspace, names, watcher.run)
    return Result({"detectors": [*names]}, f"ended      {', '.join(names)}")


def checks_of(workspace: "Workspace", frame: Frame, stop: threading.Event) -> "tuple[Check, ...]":
    """Return what the settings ask for: the log verified, and each model audited by a process of its own."""
    from stanch.cli.audit_targets import gateway_model  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.schedule import Check, verify_check  # noqa: PLC0415 - same

    audits = [
        Check(
            f"audit of {one.name}", one.every_hours, _auditing(workspace, frame, one, stop),
            gateway_model(workspace, one.gateway).digest if one.gateway else None,
        )
        for one in workspace.config.watch.audits
    ]  # fmt: skip
    return (verify_check(workspace), *audits)


def _auditing(
    workspace: "Workspace", frame: Frame, section: "RepeatedAuditSection", stop: threading.Event
) -> "Callable[[], Found]":
    def run() -> "Found":
        command, allowed = audit_command(workspace, frame, section), certified(workspace, section)
        end = end_of(command, section.every_hours * 3600.0, stop)
        return judge(end, Path(command[-1]), allowed) if isinstance(end, int) else end

    return run


def check_audits(workspace: "Workspace") -> None:
    """Open what each audit of the settings needs, as it would itself; no server is asked.

    Raises:
        InvalidInput: A folder or file is missing or cannot be read.
        NotCertified: The certificate that the gateway requires is not good.
        NotPermitted: Whoever watches may not audit.
        MissingExtraError: A part is not installed.
    """
    from stanch.cli.audit_targets import Choice, open_target  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - same
    from stanch.data import CanaryPlan  # noqa: PLC0415 - same
    from stanch.workspace.verbs_access import explain_access  # noqa: PLC0415 - same

    folder = workspace.folder
    for one in workspace.config.watch.audits:
        choice = Choice(
            folder / one.model, endpoint=one.endpoint or None, served=one.served or None, gateway=one.gateway or None,
            api_key_file=folder / one.api_key_file if one.api_key_file else None,
        )  # fmt: skip
        certified(workspace, one)
        with open_target(workspace, choice) as target:
            explain_access(workspace, "model:audit", target.subject.ref).decision.require()
        if one.plan:
            CanaryPlan.load(folder / one.plan)
        for place in filter(None, (one.data, one.holdout)):
            open_dataset_of(workspace, folder / place)


def audit_command(workspace: "Workspace", frame: Frame, section: "RepeatedAuditSection") -> list[str]:
    """Return the command of one audit; its report goes into a new folder of the workspace's state, its last word."""
    words = [sys.executable, "-m", "stanch.cli.attended", *frame.flags(), "--quiet", "audit", "run"]
    words += [str(workspace.folder / section.model)]
    served = ["--endpoint", section.endpoint, "--model", section.served]
    words += ["--gateway", section.gateway] if section.gateway else served
    files = {
        "--plan": section.plan, "--data": section.data, "--holdout": section.holdout,
        "--api-key-file": section.api_key_file,
    }  # fmt: skip
    for flag, place in files.items():
        words += [flag, str(workspace.folder / place)] if place else []
    out = workspace.state / "audits" / f"{section.name}-{workspace.now():%Y%m%dT%H%M%SZ}"
    out.parent.mkdir(mode=0o700, exist_ok=True)
    return [*words, "--out", str(out)]


def end_of(command: Sequence[str], seconds: float, stop: threading.Event) -> "int | Found":
    """Run an audit for so long at most, or until the watch is told to end; return its exit code if it ended itself."""
    from stanch.workspace.verbs_check import CheckState, Found  # noqa: PLC0415 - keeps `stanch --help` light

    with subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        waited = 0.0
        while process.poll() is None and waited < seconds and not stop.wait(_POLL):
            waited += _POLL
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            if stop.is_set():
                return Found(CheckState.STOPPED)
            return Found(CheckState.BAD, "it did not come to an end")
    return process.returncode


def judge(code: int, folder: Path, allowed: Verdict) -> "Found":
    """Return what an audit found: bad if it left no report in its folder, or its verdict is worse than ``allowed``."""
    from stanch.audit import Report  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_check import CheckState, Found  # noqa: PLC0415 - same
    from stanch.workspace.verbs_model import REPORT_NAME  # noqa: PLC0415 - same

    path = folder / REPORT_NAME
    if not path.is_file():
        return Found(CheckState.BAD, f"it ended with exit code {code}")
    verdict = Report.parse(path.read_bytes(), what=str(path)).verdict
    state = CheckState.BAD if _WORSE.index(verdict) > _WORSE.index(allowed) else CheckState.GOOD
    return Found(state, f"{verdict}, {allowed} is allowed".lower())


def certified(workspace: "Workspace", section: "RepeatedAuditSection") -> Verdict:
    """Return the verdict of the certificate that the gateway requires of a model; of another, that no leak is seen.

    Raises:
        NotCertified: There is no such certificate, or it is no longer good.
    """
    from stanch.cli.audit_targets import gateway_model  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.gateway.certified import certificate_of  # noqa: PLC0415 - same

    required = certificate_of(workspace, gateway_model(workspace, section.gateway)) if section.gateway else None
    return Verdict.NO_LEAK_DETECTED if required is None else required.check(workspace.now()).verdict


COMMANDS = (serve,)
