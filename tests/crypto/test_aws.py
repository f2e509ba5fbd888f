"""What only KMS can do or fail to do; what every provider must do is in test_providers.py."""

import socket
import time

import pytest

from stanch.crypto.providers import aws
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.stanza import KeyDestroyed, KeyUnavailable, WrapContext
from stanch.errors import InvalidInput

CONTEXT = WrapContext(bytes(32), bytes(range(32)), "2030-01-01T00:00:00Z")
ROOT = bytes(range(100, 132))


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:kms:us-east-1:000000000000:alias/x",
        "arn:aws:s3:::x",
        "arn:aws:kms:us-east-1:1:key/x",
        "arn:aws:kms:us-east-1:000000000000:key/x y",
        "arn:",
    ],
)
def test_only_the_arn_of_a_key_is_a_recipient(arn):
    with pytest.raises(InvalidInput, match="KMS key"):
        parse_recipient(arn)


def test_plain_http_to_another_machine_is_refused(kms, monkeypatch):
    arn = kms.key()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://192.0.2.1:80")
    with pytest.raises(InvalidInput, match="https"):
        parse_recipient(arn)


def test_a_service_that_is_not_there_or_silent_is_not_waited_for(kms, monkeypatch):
    arn = kms.key()
    monkeypatch.setattr(
        aws, "_TIMEOUTS", {"connect_timeout": 0.3, "read_timeout": 0.3, "retries": {"total_max_attempts": 1}}
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for target in (port, None):
            if target is None:
                silent.close()
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{port}")
            began = time.monotonic()
            with pytest.raises(KeyUnavailable, match="could not be asked"):
                parse_recipient(arn).wrap(ROOT, CONTEXT)
            assert time.monotonic() - began < 5


def test_the_time_limits_are_short():
    assert aws._TIMEOUTS["connect_timeout"] + aws._TIMEOUTS["read_timeout"] <= 15
    assert aws._TIMEOUTS["retries"]["total_max_attempts"] <= 2


def test_a_disabled_key_is_unavailable_and_an_unknown_one_gone(kms):
    arn = kms.key()
    key = parse_recipient(arn)
    stanza = key.wrap(ROOT, CONTEXT)
    kms.admin.disable_key(KeyId=arn)
    with pytest.raises(KeyUnavailable) as caught:
        key.unwrap(stanza, CONTEXT)
    assert not isinstance(caught.value, KeyDestroyed)
    unknown = parse_recipient(arn[:-4] + "0000")
    with pytest.raises(KeyDestroyed):
        unknown.wrap(ROOT, CONTEXT)
    assert unknown.destroy().state == "absent"


def test_a_key_with_replicas_is_not_destroyed(kms):
    arn = kms.admin.create_key(MultiRegion=True)["KeyMetadata"]["Arn"]
    key = parse_recipient(arn)
    stanza = key.wrap(ROOT, CONTEXT)
    with pytest.raises(InvalidInput, match="other regions"):
        key.destroy()
    assert key.unwrap(stanza, CONTEXT) == ROOT
