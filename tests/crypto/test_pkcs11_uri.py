"""PKCS#11 URIs: strict, without PIN, and one spelling for what stands in a bundle."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto.providers.pkcs11_uri import Pkcs11Uri
from stanch.errors import InvalidInput


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("STANCH_PKCS11_MODULE", raising=False)
    monkeypatch.delenv("STANCH_PKCS11_PIN_FILE", raising=False)


def test_token_key_module_and_pin_file_are_read():
    uri = Pkcs11Uri.parse(
        "pkcs11:id=%01%02;object=my%20key;token=HSM;type=secret-key?pin-source=file:/run/pin&module-path=/lib/p11.so"
    )
    assert uri.token == {"token": b"HSM"}
    assert uri.key == {"object": b"my key", "id": b"\x01\x02"}
    assert (uri.module, uri.pin_file) == (Path("/lib/p11.so"), Path("/run/pin"))
    assert str(uri) == "pkcs11:token=HSM;object=my%20key;id=%01%02"


def test_one_key_has_one_text_and_no_path_of_this_machine():
    texts = ["pkcs11:token=a;object=b%2Fc", "pkcs11:object=b/c;token=%61?module-path=/x", "pkcs11:object=b%2fc;token=a"]
    assert {str(Pkcs11Uri.parse(text)) for text in texts} == {"pkcs11:token=a;object=b%2Fc"}


def test_a_token_may_be_named_by_each_of_its_attributes():
    text = "pkcs11:token=a;manufacturer=b%21;serial=c;model=d;id=%01"
    uri = Pkcs11Uri.parse(text)
    assert uri.token == {"token": b"a", "manufacturer": b"b!", "serial": b"c", "model": b"d"}
    assert str(uri) == text


def test_what_cannot_be_said_of_a_secret_key_is_listed_in_order():
    names = [f"x-{letter}" for letter in "fedcba"]
    with pytest.raises(InvalidInput, match="x-a, x-b, x-c, x-d, x-e, x-f"):
        Pkcs11Uri.parse("pkcs11:token=a;object=b;" + ";".join(f"{name}=1" for name in names))


def test_a_uri_is_read_up_to_its_limit_and_begins_as_one():
    text = "pkcs11:token=a;object="
    assert Pkcs11Uri.parse(text + (2048 - len(text)) * "b").key["object"] == (2048 - len(text)) * b"b"
    for wrong in (text + (2049 - len(text)) * "b", "token=a;object=b"):
        with pytest.raises(InvalidInput, match=r"expected pkcs11:token"):
            Pkcs11Uri.parse(wrong)


def test_the_environment_fills_in_what_the_uri_does_not_say(monkeypatch):
    monkeypatch.setenv("STANCH_PKCS11_MODULE", "/lib/env.so")
    monkeypatch.setenv("STANCH_PKCS11_PIN_FILE", "/run/env-pin")
    uri = Pkcs11Uri.parse("pkcs11:token=a;id=%01")
    assert (uri.module, uri.pin_file) == (Path("/lib/env.so"), Path("/run/env-pin"))
    uri = Pkcs11Uri.parse("pkcs11:token=a;id=%01?module-path=/lib/uri.so")
    assert uri.module == Path("/lib/uri.so")
    monkeypatch.setenv("STANCH_PKCS11_MODULE", "env.so")
    with pytest.raises(InvalidInput, match="STANCH_PKCS11_MODULE"):
        Pkcs11Uri.parse("pkcs11:token=a;id=%01")


def test_a_pin_in_the_uri_is_refused_and_not_repeated():
    with pytest.raises(InvalidInput, match="holds a PIN") as caught:
        Pkcs11Uri.parse("pkcs11:token=a;object=b?pin-value=marker1234")
    assert "marker1234" not in f"{caught.value}{caught.value.why}{caught.value.next_step}"


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:token=a",
        "pkcs11:object=b",
        "pkcs11:token=a;object=",
        "pkcs11:token=a;object=b;object=c",
        "pkcs11:token=a;object=b;type=private",
        "pkcs11:token=a;object=b;slot-id=1",
        "pkcs11:token=a;object=b;x-vendor=1",
        "pkcs11:token=a;object=b%",
        "pkcs11:token=a;object=b%g1",
        "pkcs11:token=a;object=b c",
        "pkcs11:token=a;object=é",
        "pkcs11:token=a;object=%FF",
        "pkcs11:token=a;object=b?module-name=p11",
        "pkcs11:token=a;object=b?module-path=p11.so",
        "pkcs11:token=a;object=b?pin-source=%7Ccat",
        "pkcs11:token=a;object=b?pin-source=/run/%00",
        "pkcs11:token=a;object=b?pin-source=https:/run/pin",
        "pkcs11:token=a;;object=b",
        "PKCS11:token=a;object=b",
        "pkcs11:token=a;object=" + "b" * 2048,
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidInput, match="PKCS#11"):
        Pkcs11Uri.parse(text)


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=60))
def test_what_is_written_is_read_again(token, key):
    quoted = ["".join(f"%{byte:02X}" for byte in value) for value in (token, key)]
    uri = Pkcs11Uri.parse(f"pkcs11:token={quoted[0]};id={quoted[1]}")
    assert (uri.token["token"], uri.key["id"]) == (token, key)
    assert Pkcs11Uri.parse(str(uri)) == uri


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    for candidate in (f"pkcs11:{text}", f"pkcs11:token=a;object=b?{text}"):
        with contextlib.suppress(InvalidInput):
            assert str(Pkcs11Uri.parse(candidate)).startswith("pkcs11:")
