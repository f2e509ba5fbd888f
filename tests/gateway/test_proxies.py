"""Behind proxies that the settings name, whoever asks is the last address that none of them is."""

import pytest
from serving import MODEL, key_of
from test_serve import make, running, settings

from stanch.access import ApiKeyOrder
from stanch.errors import InvalidInput
from stanch.workspace import Workspace
from stanch.workspace.listening import trusted_proxies
from stanch.workspace.verbs_access import issue_key

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
for part in ("httptools", "uvicorn"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway]'")

CLIENT, OTHER, PROXY = "192.0.2.5", "203.0.113.9", "10.0.0.7"


def placed(folder, proxies):
    make(folder, settings("http://127.0.0.1:1"))
    path = folder / "stanch.toml"
    path.write_text(path.read_text().replace("[gateway]\n", f"[gateway]\ntrusted_proxies = {proxies}\n"))
    return Workspace.open(folder)


def asked(url, key, *forwarded):
    headers = [("authorization", f"Bearer {key}"), *(("x-forwarded-for", one) for one in forwarded)]
    return httpx.get(f"{url}/v1/models", headers=headers).status_code


@pytest.mark.parametrize("proxies", ['["127.0.0.0/8", "10.0.0.7"]', "[]"])
def test_a_proxy_says_who_asks_only_if_the_settings_name_it(tmp_path, proxies):
    with placed(tmp_path / "w", proxies) as workspace:
        key_of(workspace, "bot")
        order = ApiKeyOrder(
            principal=workspace.people.find("bot"), models=(str(MODEL.digest),), networks=("192.0.2.0/24",),
            actions=("model:infer",),
        )  # fmt: skip
        key = issue_key(workspace, order)[1].text
        good = 200 if "127" in proxies else 401
        with running(workspace) as url:
            assert asked(url, key) == 401
            assert asked(url, key, CLIENT) == good
            assert asked(url, key, f"{OTHER}, {CLIENT}, {PROXY}") == good
            assert asked(url, key, OTHER, CLIENT) == good
            for spoofed in (f"{CLIENT}, {OTHER}", "unknown", f"{CLIENT}, unknown", f"{CLIENT}, {OTHER}, {PROXY}"):
                assert asked(url, key, spoofed) == 401


@pytest.mark.parametrize("proxies", ['["*"]', '["10.0.0.1/8"]', '["balancer"]'])
def test_what_is_no_network_is_refused(tmp_path, proxies):
    with placed(tmp_path / "w", proxies) as workspace, pytest.raises(InvalidInput, match="trusted_proxies"):
        trusted_proxies(workspace)
