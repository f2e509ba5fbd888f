"""What only KMS can do or fail to do; what every provider must do is in test_providers.py.

A server that imitates KMS shows that both speak one language; what KMS says beyond it is put into the client's mouth.
"""

import socket
import sys
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from stanch.crypto import sha256
from stanch.crypto.providers import aws
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.stanza import KeyDestroyed, KeyUnavailable, Stanza, WrapContext, encode_base64url
from stanch.errors import DecryptionFailed, InvalidInput, MissingExtraError

CONTEXT = WrapContext(bytes(32), bytes(range(32)), "2030-01-01T00:00:00Z")
ROOT = bytes(range(100, 132))
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def account(monkeypatch):
    """Credentials that lead nowhere; returns the name of a key."""
    pytest.importorskip("boto3", reason="boto3 is not installed")
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return ARN


@pytest.fixture
def told(account):
    """A key, and the client in whose mouth the answers are put; each must be asked for."""
    from botocore.stub import Stubber  # noqa: PLC0415 - a part that may be missing

    key = aws.AwsKey(account)
    with Stubber(key._client) as client:
        yield key, client
        client.assert_no_pending_responses()


def bound(key):
    info = sha256(CONTEXT.info("aws-kms", key.key_id)).hex()
    return {"stanch:info": info, "stanch:bundle": CONTEXT.bundle_id.hex()}


def stanza_of(key, wrapped=b"wrapped", arn=ARN):
    return Stanza("aws-kms", key.key_id, CONTEXT.not_after, {"key_arn": arn, "ct": encode_base64url(wrapped)})


def state(name, **more):
    return {"KeyMetadata": {"KeyId": "x", "KeyState": name, **more}}


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:kms:us-east-1:000000000000:alias/x",
        "arn:aws:s3:::x",
        "arn:aws:kms:us-east-1:1:key/x",
        "arn:aws:kms:us-east-1:000000000000:key/x y",
        f"arn:aws:kms:us-east-1:000000000000:key/{'x' * 65}",
        f"arn:aws:kms:r{'e' * 39}g:000000000000:key/x",
        "arn:aws:kms:us-:000000000000:key/x",
        "arn:aws:kms:us-east-1.evil:000000000000:key/x",
        "arn:",
    ],
)
def test_only_the_arn_of_a_key_is_a_recipient(arn):
    with pytest.raises(InvalidInput, match="KMS key"):
        parse_recipient(arn)


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        (ARN, "eu-central-1"),
        ("arn:aws-us-gov:kms:us-gov-east-1:000000000000:key/mrk-x", "us-gov-east-1"),
        (f"arn:aws:kms:r{'e' * 38}g:000000000000:key/{'x' * 64}", f"r{'e' * 38}g"),
    ],
)
@pytest.mark.usefixtures("account")
def test_a_key_is_asked_for_in_its_own_region(arn, region):
    key = parse_recipient(arn)
    assert (str(key), key.describe().recipient, repr(key)) == (arn, arn, f"AwsKey({arn})")
    assert key._client.meta.region_name == region
    config = key._client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (5, 10, 2)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
@pytest.mark.usefixtures("account")
def test_plain_http_on_this_machine_is_for_tests(host, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://{host}:1")
    assert str(parse_recipient(ARN)) == ARN


def test_kms_is_told_what_the_key_is_bound_to(told):
    key, client = told
    asked = {"KeyId": ARN, "EncryptionContext": bound(key)}
    client.add_response("encrypt", {"CiphertextBlob": b"wrapped"}, asked | {"Plaintext": ROOT})
    client.add_response("decrypt", {"Plaintext": ROOT, "KeyId": ARN}, asked | {"CiphertextBlob": b"wrapped"})
    stanza = key.wrap(ROOT, CONTEXT)
    assert stanza == stanza_of(key)
    assert key.unwrap(stanza, CONTEXT) == ROOT


def test_the_name_of_a_key_says_that_it_has_replicas(account):
    key = aws.AwsKey(account.replace(":key/", ":key/mrk-"))
    with pytest.raises(InvalidInput, match="other regions"):
        key.destroy()


def test_what_is_no_root_or_no_stanza_of_kms_is_not_sent(told):
    key, _ = told
    with pytest.raises(InvalidInput):
        key.wrap(ROOT[1:], CONTEXT)
    with pytest.raises(InvalidInput, match="aws-kms"):
        key.unwrap(Stanza("hpke-x25519", key.key_id, CONTEXT.not_after, stanza_of(key).fields), CONTEXT)


def test_without_the_optional_part_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtraError, match="aws"):
        aws.AwsKey(ARN)


def test_of_an_error_of_the_service_at_most_sixty_letters_are_told(told):
    key, client = told
    client.add_client_error("describe_key", 61 * "x")
    with pytest.raises(KeyUnavailable) as caught:
        key._state()
    assert caught.value.why == 60 * "x"


def test_a_ciphertext_is_sent_up_to_its_largest_size_and_to_its_own_key(told):
    key, client = told
    client.add_response("decrypt", {"Plaintext": ROOT, "KeyId": ARN})
    assert key.unwrap(stanza_of(key, bytes(6144)), CONTEXT) == ROOT
    for size in (0, 6145):
        with pytest.raises(InvalidInput, match=f"expected 1 to 6144 bytes, found {size}"):
            key.unwrap(stanza_of(key, bytes(size)), CONTEXT)
    with pytest.raises(DecryptionFailed):
        key.unwrap(stanza_of(key, arn=f"{ARN}0"), CONTEXT)


@pytest.mark.parametrize(
    "answer", [{"KeyId": f"{ARN}0"}, {"Plaintext": ROOT[:-1]}, {"Plaintext": ROOT + b"x"}], ids=str
)
def test_an_answer_of_another_key_or_length_opens_nothing(told, answer):
    key, client = told
    client.add_response("decrypt", {"Plaintext": ROOT, "KeyId": ARN} | answer)
    with pytest.raises(DecryptionFailed):
        key.unwrap(stanza_of(key), CONTEXT)


@pytest.mark.parametrize(
    ("code", "answers", "error"),
    [
        ("InvalidCiphertextException", [], DecryptionFailed),
        ("IncorrectKeyException", [], DecryptionFailed),
        ("NotFoundException", [], KeyDestroyed),
        ("KMSInvalidStateException", ["PendingDeletion"], KeyDestroyed),
        ("KMSInvalidStateException", ["Disabled"], KeyUnavailable),
        ("AccessDeniedException", [], KeyUnavailable),
    ],
)
def test_each_refusal_is_told_apart(told, code, answers, error):
    key, client = told
    client.add_client_error("decrypt", code, "marker-message")
    for name in answers:
        client.add_response("describe_key", state(name), {"KeyId": ARN})
    with pytest.raises(error) as caught:
        key.unwrap(stanza_of(key), CONTEXT)
    assert type(caught.value) is error
    assert "marker-message" not in f"{caught.value.what}{caught.value.why}{caught.value.next_step}"
    if error is not DecryptionFailed:
        assert caught.value.why == code


def test_a_key_is_scheduled_for_deletion_once_in_the_shortest_time(told):
    key, client = told
    at = datetime(2030, 1, 8, 2, tzinfo=timezone(timedelta(hours=2)))
    client.add_response("describe_key", state("Enabled"))
    client.add_response("schedule_key_deletion", {}, {"KeyId": ARN, "PendingWindowInDays": 7})
    client.add_response("describe_key", state("PendingDeletion", DeletionDate=at))
    first = key.destroy()
    client.add_response("describe_key", state("PendingDeletion"))
    client.add_response("describe_key", state("PendingDeletion", DeletionDate=at))
    assert key.destroy() == first
    assert (first.state, first.gone_at, first.gone_at.tzinfo) == ("scheduled", at, UTC)
    client.add_client_error("describe_key", "NotFoundException")
    assert key.destroy().state == "absent"


def test_plain_http_to_another_machine_is_refused(account, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://192.0.2.1:80")
    with pytest.raises(InvalidInput, match="https"):
        parse_recipient(account)


def test_a_service_that_is_not_there_or_silent_is_not_waited_for(account, monkeypatch):
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
                parse_recipient(account).wrap(ROOT, CONTEXT)
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
