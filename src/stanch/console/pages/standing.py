"""How each model stands: the verdict of its leak certificate, or of its newest audit, and whether that still holds."""

from pathlib import Path
from typing import NamedTuple

from stanch.audit.leakcert import MAX_VALID_DAYS
from stanch.console.desk import Call
from stanch.console.pages.models import ModelRow
from stanch.console.tally import DAY_MS
from stanch.errors import StanchError
from stanch.sign import TrustedKeys
from stanch.terms import Digest, Verdict
from stanch.workspace.release_state import ReleaseState

_WORDS = {
    str(Verdict.LEAK_PROVEN): "proven",
    str(Verdict.DP_CLAIM_FALSIFIED): "falsified",
    str(Verdict.INCONCLUSIVE): "inconclusive",
    str(Verdict.NO_LEAK_DETECTED): "clean",
}


class Standing(NamedTuple):
    """A word of the overview's verdicts, and whether a certificate in force says it."""

    verdict: str
    certified: bool


def standings_of(call: Call, models: list[ModelRow], releases: list[ReleaseState]) -> dict[str, Standing]:
    """Return how each model stands, by its digest.

    The certificate is that of its newest release, else the one that the gateway requires. A model with neither stands
    as its newest audit in the log says, which counts for as long as a certificate may.
    """
    files = _files(call, releases)
    judged = call.desk.records.upto_now(call.workspace.tables, call.workspace.ledger.origin).judged
    found: dict[str, Standing] = {}
    for row in models:
        if row.digest in files:
            found[row.digest] = _certified(call, files[row.digest], row.digest)
            continue
        audit = judged.get(row.digest)
        if audit is None:
            found[row.digest] = Standing("none", certified=False)
        elif call.now_ms >= audit.time_ms + MAX_VALID_DAYS * DAY_MS:
            found[row.digest] = Standing("expired", certified=False)
        else:
            found[row.digest] = Standing(_WORDS.get(audit.verdict, "unreadable"), certified=False)
    return found


def _files(call: Call, releases: list[ReleaseState]) -> dict[str, Path]:
    """Return the file of the certificate in use of each model that has one."""
    workspace = call.workspace
    files = {
        one.digest: workspace.folder / one.require_certificate
        for one in workspace.config.gateway.models
        if one.require_certificate
    }
    newest = sorted(releases, key=lambda state: state.facts.entry)
    return files | {state.facts.digest: Path(state.facts.certificate) for state in newest}


def _certified(call: Call, path: Path, model: str) -> Standing:
    try:
        trusted = TrustedKeys(call.workspace.keys.publics("publisher"))
        cert = call.desk.certificates.read(path, Digest.parse(model), trusted)
    except StanchError:
        return Standing("unreadable", certified=False)
    if call.now_ms >= int(cert.expires_at.timestamp() * 1000):
        return Standing("expired", certified=False)
    return Standing(_WORDS[str(cert.verdict)], certified=True)
