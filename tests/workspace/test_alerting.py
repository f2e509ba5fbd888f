"""The sinks of a workspace: what its settings mean, and that no secret of one is ever shown."""

from types import SimpleNamespace

import pytest

from stanch.config import load_config
from stanch.errors import InvalidInput
from stanch.watch.sinks import AlertmanagerSink, AppriseSink, FileSink, SyslogSink, WebhookSink
from stanch.workspace.alerting import sinks_of

SECRET = "xoxb-a-real-secret"


def made(folder, text, **environ):
    (folder / "stanch.toml").write_text(text)
    config = load_config(folder / "stanch.toml", environ={}, user_file=None)
    return sinks_of(SimpleNamespace(config=config, folder=folder, ledger=None), environ=environ)


def sink(kind, **more):
    values = {"name": "a", "kind": kind, **more}
    return "[[alerts.sinks]]\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items()) + "\n"


def from_(place):
    return {"secret": place}


def test_no_sinks_by_default(tmp_path):
    assert made(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("kind", "url", "expected"),
    [
        ("webhook", "https://x/", WebhookSink),
        ("ocsf-http", "https://x/", WebhookSink),
        ("alertmanager", "https://x/", AlertmanagerSink),
        ("ocsf-file", "a.jsonl", FileSink),
        ("syslog", "syslog+tls://x", SyslogSink),
    ],
)
def test_each_kind_is_its_sink_and_needs_a_place(tmp_path, kind, url, expected):
    (found,) = made(tmp_path, sink(kind, url=url, tier=2))
    assert (type(found), found.name, found.tier) == (expected, "a", 2)
    with pytest.raises(InvalidInput, match="no url"):
        made(tmp_path, sink(kind))


def test_a_secret_comes_from_a_private_file_or_the_environment_and_is_not_shown(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    (from_file,) = made(tmp_path, sink("webhook", url="https://x/", **from_("file:token")))
    (from_env,) = made(tmp_path, sink("apprise", **from_("env:SLACK")), SLACK=SECRET)
    assert isinstance(from_env, AppriseSink)
    assert from_file.token.reveal() == from_env.url.reveal() == SECRET
    assert SECRET not in f"{from_file!r}{from_env!r}"
    path.chmod(0o644)
    with pytest.raises(InvalidInput) as caught:
        made(tmp_path, sink("webhook", url="https://x/", **from_("file:token")))
    assert SECRET not in f"{caught.value.what}{caught.value.why}"


@pytest.mark.parametrize("value", ["", "two\nlines", "bell\x07"])
def test_a_secret_is_one_line_of_text(tmp_path, value):
    with pytest.raises(InvalidInput, match="the secret of a"):
        made(tmp_path, sink("webhook", url="https://x/", **from_("env:T")), T=value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (sink("apprise"), "no secret"),
        (sink("ocsf-file", url="a") * 2, "same name"),
        (sink("webhook", url="https://x/", secret=SECRET), "not a reference"),
        (sink("webhook", url="https://x/", secret="keyring:pepper"), "not a reference"),
        (sink("nonsense"), "wrong value"),
        (sink("webhook", name="../x"), "wrong value"),
        (sink("webhook", tier=0), "wrong value"),
    ],
)
def test_what_is_no_sink(tmp_path, text, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        made(tmp_path, text)
    assert SECRET not in f"{caught.value.what}{caught.value.why}{caught.value.next_step}"
