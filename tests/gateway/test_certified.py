"""A model whose settings require a leak certificate: it is answered for only while one is good."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import serving
from answers import CLEAN, chunk, sse
from serving import entries, http, key_of

sys.path.insert(0, str(Path(__file__).parents[1] / "workspace"))  # life makes models and their certificates

import life

from stanch.crypto import SigningKey
from stanch.gateway.certified import NotCertified, RequiredCertificate
from stanch.gateway.serve import build_gateway
from stanch.sign import TrustedKeys
from stanch.terms import Digest
from stanch.weights import directory_digest
from stanch.workspace import Workspace

ASK = {"model": "bot", "messages": [{"role": "user", "content": "Well?"}], "stream": True}
ANSWER = http(sse(chunk({"content": CLEAN}), chunk({}, "stop")))


@pytest.fixture
def place(tmp_path):
    """A workspace, the file of a certificate that it signed, and the digest of the model."""
    with Workspace.init(tmp_path / "w") as workspace:
        model = life.make_adapter(tmp_path / "model")
        path = life.certify(life.make_result(model), model, workspace.keys.signer("publisher"), tmp_path / "cert.json")
        yield workspace, path, directory_digest(model).root


def required(workspace, path, digest):
    return RequiredCertificate(path, digest, TrustedKeys(workspace.keys.publics("publisher")))


def another_signer(path, tmp_path):
    model = tmp_path / "model"
    life.certify(life.make_result(model), model, SigningKey.generate("p256"), path)


def another_model(path, tmp_path, workspace):
    model = life.make_adapter(tmp_path / "other", seed=3)
    life.certify(life.make_result(model), model, workspace.keys.signer("publisher"), path)


BREAK = {
    "no such file": lambda path, *_: path.unlink(),
    "another model": another_model,
    "no trusted signature": lambda path, tmp_path, _: another_signer(path, tmp_path),
    "not": lambda path, *_: path.write_bytes(path.read_bytes()[:-9]),
}


@pytest.mark.parametrize("why", BREAK)
def test_a_certificate_that_is_broken_while_the_gateway_runs_ends_the_answers(place, guard, tmp_path, why):
    workspace, path, digest = place
    key = key_of(workspace, "program")

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers += [ANSWER, ANSWER]
            object.__setattr__(client.app.models["bot"], "certificate", required(workspace, path, digest))
            assert (await client.ask(b"", "/readyz", method="GET")).status == 200
            assert CLEAN[:20] in (await client.ask(ASK)).body.decode()
            server.asked.clear()
            BREAK[why](path, tmp_path, workspace)
            client.app._looked_at = -9.0
            return await client.ask(ASK), await client.ask(b"", "/readyz", method="GET"), server.asked

    answer, ready, reached = asyncio.run(main())
    assert (answer.status, answer.code, ready.status, reached) == (403, "not_permitted", 503, [])
    assert entries(workspace)[-1][0] == "denied"
    assert str(path) not in answer.body.decode()
    with pytest.raises(NotCertified) as caught:
        required(workspace, path, digest).check(workspace.now())
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("later", "why"), [(timedelta(days=90), "expired"), (timedelta(minutes=-6), "future"), (timedelta(days=89), "")]
)
def test_a_certificate_has_a_beginning_and_an_end(place, later, why):
    certificate = required(*place)
    certificate.check(life.START)
    if not why:
        certificate.check(life.START + later)
        return
    with pytest.raises(NotCertified) as caught:
        certificate.check(life.START + later)
    assert why in caught.value.why


def test_without_the_certificate_the_gateway_does_not_start(place):
    workspace, path, digest = place
    settings = workspace.folder / "stanch.toml"
    text = f'\n[[gateway.models]]\nname = "bot"\nupstream = "http://127.0.0.1:1"\nrequire_certificate = "{path}"\n'
    started = []
    before = settings.read_text()
    for one in (digest, Digest.sha256(b"another")):
        settings.write_text(f'{before}{text}digest = "{one}"\n')
        with Workspace.open(workspace.folder) as opened:
            try:
                started.append(build_gateway(opened).models["bot"].certificate is not None)
            except NotCertified as error:
                started.append(error.why)
    assert started == [True, "it is about another model"]
