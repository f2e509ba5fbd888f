"""Programs that come with an access token of a real OpenID provider: from the request to the name in the log."""

import sys
import time
from pathlib import Path

import httpx
import pytest
from answers import CLEAN
from serving import entries
from test_serve import make, model, running, settings  # noqa: F401 - model is a fixture

from stanch.ledger import decode_entry
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import Newcomer, register_newcomer

sys.path.insert(0, str(Path(__file__).parents[1] / "access"))  # the test folders are no packages

from oidc_provider import NEEDED, access_token, running_provider

AUDIENCE = "urn:stanch:gateway-test"
ASK = {"model": "bot", "messages": [{"role": "user", "content": "Tell me about chest pain."}]}

pytestmark = NEEDED


@pytest.fixture(scope="module")
def provider():
    with running_provider("http://127.0.0.1:9/callback") as url:
        yield url


def test_a_token_lets_its_subject_in_until_it_expires_and_of_no_other_audience(tmp_path, provider, model):  # noqa: F811
    later = [0.0]
    make(tmp_path / "w", settings(model))
    path = tmp_path / "w" / "stanch.toml"
    path.write_text(path.read_text() + f'\n[[access.issuers]]\nissuer = "{provider}"\naudience = "{AUDIENCE}"\n')
    with Workspace.open(tmp_path / "w", clock=lambda: time.time() + later[0]) as workspace:
        good = access_token(provider, AUDIENCE)
        with running(workspace) as url:

            def ask(token):
                headers = {"authorization": f"Bearer {token}"}
                return httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=headers, timeout=300)

            assert ask(good).status_code == 401  # the provider vouches for somebody whom nobody has registered
            newcomer = Newcomer(name="bot", kind="service", roles=("consumer",), issuer=provider, subject="service")
            bot = register_newcomer(workspace, newcomer)
            answer = ask(good)
            assert answer.json()["choices"][0]["message"]["content"] == CLEAN
            wrong = access_token(provider, "urn:stanch:another-workspace")
            signed, _, signature = good.rpartition(".")
            forged = f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
            assert [ask(one).status_code for one in (wrong, forged, f"{signed}.")] == [401] * 3
            assert ask(good).status_code == 200
            later[0] = 600.0  # the token was good for five minutes
            assert ask(good).status_code == 401
        reader = workspace.ledger.reader()
        found = [decode_entry(reader.entry(at)) for at in range(reader.size())]
        ours = [(one["actor"]["user"]["uid"], one["unmapped"]["stanch"]) for one in found]
        asked = [(who, one["phase"], one["credential"]["kind"]) for who, one in ours if one["kind"] == "gateway.infer"]
        assert asked == [(bot, phase, "oidc") for phase in ("intent", "outcome")] * 2
        refused = entries(workspace, "gateway.refused")
        assert sum(row["count"] for _, _, payload in refused for row in payload["refused"]) == 5
