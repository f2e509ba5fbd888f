"""Validators: goldens, and no value with a broken checksum is ever reported."""

import json
import random
from pathlib import Path

import pytest

from stanch.errors import InvalidInput
from stanch.scan.examples import ExampleMaker
from stanch.scan.validators import REGISTRY, Outcome, aws_account, crc32_base62, luhn, mod97
from stanch.scan.validators.checksum import IBAN_LENGTHS
from stanch.scan.validators.deny import has_example_word, is_placeholder, is_published, is_sequence
from stanch.scan.validators.entropy import entropy
from stanch.scan.validators.keccak import keccak256
from stanch.scan.validators.names import Gazetteer, gazetteer, person_name
from stanch.terms import Severity

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors/scan/crc62.json").read_text())


def test_golden_checks():
    for vector in VECTORS["checks"]:
        assert crc32_base62(vector["body"].encode()).decode() == vector["check"]
    for vector in VECTORS["aws_accounts"]:
        assert f"{aws_account(vector['body'].encode()):012d}" == vector["account"]


def test_the_account_of_an_aws_key_id_is_noted():
    assert REGISTRY["aws-key-id"](b"AKIAQNZGKIQY56JQ7WML", "").note == "account 029608264753"
    assert REGISTRY["aws-key-id"](b"AKIA7777777777777777", "").note == ""


def test_published_check_examples():
    assert luhn(b"79927398713")
    assert not luhn(b"79927398710")
    assert mod97(b"GB82WEST12345698765432") == 1
    assert mod97(b"DE89370400440532013000") == 1
    assert mod97(b"DE89370400440532013001") != 1


@pytest.mark.parametrize(
    ("validator", "module", "shape"),
    [
        ("uk-nhs", "gb.nhs", "##########"),
        ("de-tax-id", "de.idnr", "###########"),
        ("fr-nir", "fr.nir", "18#0175########"),
        ("es-dni", "es.dni", "########@"),
        ("nl-bsn", "nl.bsn", "#########"),
        ("br-cpf", "br.cpf", "###########"),
        ("br-cnpj", "br.cnpj", "##########0001"),
        ("ca-sin", "ca.sin", "#########"),
        ("au-tfn", "au.tfn", "#########"),
        ("in-aadhaar", "in_.aadhaar", "############"),
        ("pl-pesel", "pl.pesel", "8#0#2######"),
        ("ch-ahv", "ch.ssn", "756##########"),
        ("imei", "imei", "###############"),
        ("tr-tckn", "tr.tckimlik", "1##########"),
        ("za-id", "za.idnr", "80010#####08#"),
        ("cn-ric", "cn.ric", "11010519800112####"),
        ("no-fnr", "no.fodselsnummer", "01018######"),
    ],
)
def test_checks_agree_with_python_stdnum(validator, module, shape):
    oracle = pytest.importorskip(f"stdnum.{module}", reason="python-stdnum is not installed")
    rng = random.Random(11)
    for _ in range(500):
        value = "".join(
            rng.choice("0123456789") if c == "#" else rng.choice("ABCDEFGHJKLMNPQRSTVWXYZ") if c == "@" else c
            for c in shape
        )
        accepted = REGISTRY[validator](value.encode(), "").outcome is not Outcome.REJECT
        assert accepted == oracle.is_valid(value), value


@pytest.mark.parametrize(
    ("name", "valid", "broken"),
    [
        # Published specimens: ICAO Doc 9303, BIP-173, the Bitcoin wiki, 49 CFR 565, DVV, IRS, HMRC, ABA.
        (
            "mrz",
            "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10",
            "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<11",
        ),
        ("bech32-address", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
        (
            "bech32-address",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj1",
        ),
        ("base58check", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3"),
        (
            "base58check",
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "0HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
        ),
        ("vin", "1M8GDM9AXKP042788", "1M8GDM9A1KP042788"),
        ("fi-hetu", "131052-308T", "131052-308U"),
        ("se-personnummer", "811218-9876", "811218-9875"),
        ("be-national", "85073003328", "85073003329"),
        ("it-codice-fiscale", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
        ("us-itin", "912-70-1234", "912-93-1234"),
        ("uk-nino", "AB123456C", "BG123456C"),
        ("kr-rrn", "800101-1234560", "801301-1234560"),
        ("kr-rrn", "800101-1234561", "800101-9234560"),  # a wrong check proves nothing, another century does
        ("dk-cpr", "010180-1234", "320180-1234"),
        ("tr-tckn", "10000000146", "10000000147"),
        ("cn-ric", "11010519491231002X", "110105194912310021"),
        ("za-id", "8001015009087", "8001015009088"),
        ("us-ssn", "536-22-8745", "111-22-3333"),
        ("residence", "Wuppertal", "April 1990"),
        ("spoken-name", "alice", "mud"),
        ("mixed-key", "k8Jq2PzX0vLmN4sT", "0123a56789abcdef0123a56789abcdef"),
        ("aba-routing", "021000021", "021000022"),
        ("bic", "DEUTDEFF", "DEUTQQFF"),
        ("mac-address", "3c:22:fb:1a:9e:77", "00:00:00:00:00:00"),
        ("gps-position", "52.520008, 13.404954", "95.520008, 13.404954"),
        ("gps-single", "-151.2093", "251.2093"),
        ("basic-credentials", "c3ZjOmh1bnRlcjIh", "bm9jb2xvbmhlcmU"),
        (
            "pypi-token",
            "pypi-AgEIcHlwaS5vcmcCJDEyMzQ1Njc4OTAxMjM0NTY3ODkw",
            "pypi-AgEIYWJjZC5vcmcCJDEyMzQ1Njc4OTAxMjM0NTY3ODkw",
        ),
        ("discord-token", "ODEyMzQ1Njc4OTAxMjM0NTY3.a.b", "YWJjZGVmZ2hpamtsbW5vcHFy.a.b"),
        (
            "gitlab-token",
            "glpat-abcdefghij0123456789abcdefg.01.0r1234567",
            "glpat-abcdefghij0123456789abcdefg.01.0s1234567",
        ),
        ("short-secret", "Tr0ub4dor&3", "get_password(1)"),
        ("url-credentials", "app:k8Jq2Pz", "postgres:postgres"),
        ("username", "ana_diaz84", "self.username"),
        ("labelled-word", "Zbigniew", "String"),
        ("mixed-code", "ABC 1234", "12345"),
        ("address-line", "742 Evergreen Terrace", "unknown"),
    ],
)
def test_specimens(name, valid, broken):
    assert REGISTRY[name](valid.encode(), "").outcome is not Outcome.REJECT
    assert REGISTRY[name](broken.encode(), "").outcome is Outcome.REJECT


def test_a_resource_name_is_no_secret():
    assert (
        REGISTRY["assignment"](b"MyDatabase-a1b2c3d4", "arn:aws:secretsmanager:x:1:secret:").outcome is Outcome.REJECT
    )


def test_iban_lengths_are_those_of_the_registry():
    assert len(IBAN_LENGTHS) >= 75
    assert (IBAN_LENGTHS["NO"], IBAN_LENGTHS["DE"], IBAN_LENGTHS["MT"]) == (15, 22, 31)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("email", b"a.b@mail.com", True),
        ("email", b".a@mail.com", False),
        ("email", b"a@-mail.com", False),
        ("email", b"icon@2x.png", False),
        ("phone", b"+1 202 555 0143", True),
        ("phone", b"+1234", False),
        ("payment-card", b"4539 1488 0343 6467", True),
        ("payment-card", b"4539 1488 0343 6467 123", True),
        ("payment-card", b"9999 9999 9999 9995", False),
        ("us-ssn", b"536-22-8745", True),
        ("us-ssn", b"000-22-8745", False),
        ("us-ssn", b"536-00-8745", False),
        ("us-ssn", b"536-22-0000", False),
        ("ip-address", b"93.184.216.34", True),
        ("ip-address", b"10.1.2.3", False),
        ("ip-address", b"999.1.2.3", False),
        ("birth-date", b"1984-02-29", True),
        ("birth-date", b"1985-02-29", False),
        ("birth-date", b"29/02/84", True),
        ("birth-date", b"3rd April 1990", True),
        ("birth-date", b"April 31, 1990", False),
        ("birth-date", b"12", False),
        ("customer-number", b"C-1048213", True),
        ("customer-number", b"C-104", False),
        ("jwt", b"eyJhbGciOiJub25lIn0.eyJzdWIiOiIx", True),
        ("jwt", b"eyJub3RhbGciOjF9.eyJzdWIiOiIx", False),
        ("jwt", b"eyJhbGciOiJub25lIn.eyJzdWIiOiIx", False),
        ("jwt", b"eyJ" + b"a" * 600 + b".eyJ", False),
        ("aws-key-id", b"AKIAQNZGKIQY56JQ7WML", True),
        ("phone", b"10.4.54.65", False),
        ("phone", b"12.03.1984", False),
        ("phone", b"1984-03-12", False),
        ("assignment", b"k8Jq2PzX0vLmN4sT", True),
        ("assignment", b"correct-horse-battery", False),
        ("assignment", b"550e8400-e29b-41d4-a716-446655440000", False),
        ("assignment", b"aaaaaaaaaaaaaaaa1", False),
        ("assignment", b"k8Jq2PzX", False),
        ("password", b"hunter2!", True),
        ("password", b"incorrect", False),
    ],
)
def test_decisions(name, value, accepted):
    assert (REGISTRY[name](value, "").outcome is not Outcome.REJECT) == accepted


@pytest.mark.parametrize(
    ("name", "value", "left", "accepted"),
    [
        # A name in a program is no secret, a string is one; so is a random token without quotes.
        ("assignment", b"EsmFold2DiffusionTransformer", "self.token_transformer = ", False),
        ("assignment", b"ed25519.Ed25519PrivateKey.from_private_bytes", "private_key = ", False),
        ("assignment", b"_gather_along_dim1", "token_to_atom = ", False),
        ("assignment", b"EsmFold2DiffusionTransformer", 'token = "', True),
        ("assignment", b"q7x3kd9f2mz8w4ht6rb1", "API_KEY=", True),
        ("assignment", b"Hk7LmQ2xWv9ZtR4bNc", "API_KEY=", True),
        ("password", b"ReadableBuffer", "def pbkdf2(name: str, password: ", False),
        ("password", b"SunnyMorning", "my password is ", True),
        # What a field `value` holds is judged by the field that names it.
        ("named-secret", b"k8Jq2PzX0vLm", '{"name": "API_TOKEN", "value": "', True),
        ("named-secret", b"k8Jq2PzX0vLm", '<input name="csrf_token" value="', False),
        # The owner and repository of fsspec are no user and password; a signing algorithm is no secret.
        ("url-credentials", b"acme:widgets7", "github://", False),
        ("url-credentials", b"acme:widgets7", "https://", True),
        ("quoted-secret", b"AWS4-HMAC-SHA256", 'self.auth_algorithm = "', False),
        ("password", b"SunnyMorning", "call f(x) first, password: ", True),
        # Groups out of a table of code points; a list of card numbers is none.
        ("payment-card", b"5751 5994 6333 7841", "52A5 962C 542D ", False),
        ("payment-card", b"5421 5457 5459 5423", "5406 544B 5452 5453 5454 5456 5443\n", False),
        ("payment-card", b"5751 5994 6333 7841", "4539 1488 0343 6467 ", True),
        ("payment-card", b"5751 5994 6333 7841", "4539 1488 0343 6467\n", True),
        ("payment-card", b"5751 5994 6333 7841", "valid to 0926 ", True),
        # A label right before a number says that it is a card where no issuer range does.
        ("payment-card", b"3521004417700008", "card number: ", True),
        ("payment-card", b"3521004417700008", "", False),
        ("payment-card", b"0000000000000000", "card number: ", False),
        ("payment-card", b"5555-1234-1234-1234", "credit card: ", False),  # its first twelve digits fit by chance
        ("payment-card", b"3521 0044 1770 0008 123", "card number: ", True),
        ("url-credentials", b"sender:{token}", "ses://", False),
        ("url-credentials", b"sender:{k8Jq2Pz", "ses://", True),  # a brace may begin a password
        ("url-credentials", b"SourcePhoneNo:JWTToken", "ringc://", False),
        ("url-credentials", b"user:webhook", "rocket://", False),
        ("quoted-secret", b"inspector2:GetFindingsReportStatus", '"inspector2:GetEncryptionKey","', False),
        ("quoted-secret", b"cognito-identity:List*", '"cognito-identity:GetOpenIdToken","', False),
        ("quoted-secret", b"number_generated_tokens-1", "tokens `", False),
        ("quoted-secret", b"app:Rx7vQ2mLk9", 'password = "', True),
        ("phone", b"0044 0532 0130 01", "DE89 3704 ", False),
        ("phone", b"4c01 0200", "0000:", False),
        ("phone", b"202-555-0143", "ASAP ", True),
        ("phone", b"202-555-0143", "12:", False),
        ("phone", b"202-555-0143", "call 2024 ", False),
        ("phone", b"202-555-0143", "2024, call ", True),
        ("phone", b"2003-2017", "contact, (c) ", False),
        ("phone", b"1.3.6.1.5.5.7.3.1", "mobile, ", False),
        ("ip-address", b"2.5.29.31", "", False),
        ("ip-address", b"1.3.6.1", "", False),
        ("ip-address", b"8c1d:91fe:3ab7:c602:117e:9d04:55aa:e0b3", "", True),
        ("ip-address", b"fd1d:91fe:3ab7:c602:117e:9d04:55aa:e0b3", "", False),
        ("ip-address", b"8c1d::e0b3", "", False),
        ("address-line", b"0x4a06d1 table 12", "", False),
        ("birth-date", b"1984-03-12T00:00:00Z", "", True),
        ("birth-date", b"1984-02-31T00:00:00Z", "", False),
        ("birth-date", b"OCTOBER 3, 1984", "", True),
        ("identity-number", b"SC48120QU", "", True),
        ("identity-number", b"SC4812", "", True),
        ("identity-number", b"2019", "", False),
        ("identity-number", b"TYPE A", "", False),
        ("identity-number", b"536-22-8745", "", False),
    ],
)
def test_decisions_by_what_stands_before(name, value, left, accepted):
    assert (REGISTRY[name](value, left).outcome is not Outcome.REJECT) == accepted


@pytest.mark.parametrize(
    ("value", "left", "at_least"),
    [
        (b"Qwerx Vultsky", "qwerx.vultsky@correo.es wrote as ", True),
        (b"Qwerx Vultsky", "<qvultsky@correo.es> ", True),
        (b"Qwerx Vultsky", "<vultsky_qwerx7@correo.es> ", True),
        (b"Vultsky", "my.vultsky@correo.es, hello ", True),
        (b"Vultsky", "my.vultsky@correo.es, ", False),
        (b"Qwerx Vultsky", "info@correo.es ", False),
        (b"Qwerx Vultsky", "someone.else@correo.es ", False),
    ],
)
def test_an_address_before_a_name_is_evidence(value, left, at_least):
    assert (person_name(value, left).bonus >= 0.5) == at_least


def test_the_name_behind_an_address_is_found_in_streams_too(scanner):
    text = "Ask qwerx.vultsky@correo.es about it. Qwerx Vultsky will know."
    whole = scanner.replace(text).text
    assert whole == "Ask <EMAIL> about it. <PERSON> will know."
    for size in (1, 3, 7):
        session = scanner.open_stream()
        parts = [session.feed(text[at : at + size]).text for at in range(0, len(text), size)]
        assert "".join(parts) + session.finish().text == whole


def test_the_severity_of_a_putty_key_is_lower_where_it_is_encrypted():
    assert REGISTRY["putty-key"](b"", "Encryption: none\nPrivate-Lines: ").severity is None
    assert REGISTRY["putty-key"](b"", "Argon2-Salt: 00ff\n").severity is Severity.HIGH


def test_a_recovery_phrase_is_taken_out_whole(scanner):
    phrase = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
    numbered = ", ".join(f"{place}. {word}" for place, word in enumerate(phrase.split(), 1))
    for text in (f"my seed phrase is {phrase}. Keep it!", f'"mnemonic": "{phrase}"', f"Recovery words\n{numbered}"):
        clean = scanner.redact(text).text
        assert "<RECOVERY-PHRASE>" in clean
        assert not {"absurd", "doctor", "above"} & set(clean.replace(",", " ").split())
    assert scanner.scan("the mnemonic is " + phrase.replace("above", "absurd")).findings == ()


@pytest.mark.parametrize(
    ("name", "value", "left", "counts"),
    [
        ("ca-sin", b"130692544", "my SIN is ", True),
        ("ca-sin", b"130692544", "Social insurance number: ", True),
        ("ca-sin", b"130692544", "sin ", False),
        ("ca-sin", b"130692544", "the insurance case ", False),
        ("au-tfn", b"123456782", "tax file number: ", True),
        ("au-tfn", b"123456782", "see file ", False),
        ("us-ssn", b"536.22.8745", "Social Security No. ", True),
        ("us-ssn", b"536.22.8745", "social network ", False),
        ("payment-card", b"4539148803436467", "cc no. ", True),
        ("payment-card", b"4539148803436467", "acc: ", False),
    ],
)
def test_a_label_counts_only_right_before_the_number(name, value, left, counts):
    assert (REGISTRY[name](value, left).bonus > 0) == counts


def test_keccak_256():
    known = {
        b"": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        b"abc": "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
        b"a" * 135: "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446",
        b"a" * 136: "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e",
    }
    assert {data: keccak256(data).hex() for data in known} == known


@pytest.mark.parametrize(
    "address",
    [
        # The vectors of EIP-55.
        b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        b"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        b"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        b"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_capitals_of_an_ethereum_address_are_checked(address):
    check = REGISTRY["ethereum-address"]
    assert check(address, "").outcome is Outcome.ABSTAIN
    assert check(b"0x" + address[2:].lower(), "").outcome is Outcome.ABSTAIN
    assert check(b"0x" + address[2:].swapcase(), "").outcome is Outcome.REJECT
    small = address.replace(b"B", b"b", 1)
    assert check(small if small != address else address.replace(b"D", b"d", 1), "").outcome is Outcome.REJECT


@pytest.mark.parametrize(
    ("value", "left", "found"),
    [
        (b"Qwerx", "Hi ", True),
        (b"Qwerx", "we say Hi ", False),
        (b"Support", "Hi ", False),
        (b"Nicolas", "a friend named ", True),
        (b"Kubernetes", "a service called ", False),
        (b"James URL Wilson", "", False),
        (b"JAMES WILSON", "", True),
        (b"James LOPEZ", "", True),
    ],
)
def test_greetings_and_abbreviations_around_names(value, left, found):
    assert (person_name(value, left).bonus >= 0.5) == found


def test_a_labelled_security_number_is_one_finding(scanner):
    for text in (
        "Social number: 536-22-8745",
        "social security number is 536 22 8745",
        "ID card: 536.22.8745, SSN 536.22.8745",
    ):
        assert [finding.kind for finding in scanner.scan(text).findings] == ["us-ssn"], text
    assert [finding.kind for finding in scanner.scan("Social number: 936 076 6460").findings] == ["national-id"]


def test_a_security_code_is_no_part_of_the_card_number():
    assert REGISTRY["payment-card"](b"4539 1488 0343 6467 124", "").part == (0, 19)


@pytest.mark.parametrize(
    ("value", "sequence"),
    [
        (b"1234567890", True),
        (b"123-45-6789", True),
        (b"abcdefgh", True),
        (b"0000-0000", True),
        (b"aaaaaaaaab1", True),
        (b"536-22-8745", False),
        (b"11/11/1991", False),
        (b"Anna", False),
        (b"aa", False),
    ],
)
def test_sequences(value, sequence):
    assert is_sequence(value) == sequence


def test_denied_values():
    assert is_published(b"AKIAIOSFODNN7EXAMPLE")
    assert all(
        map(
            is_placeholder,
            (b"xxxx-1", b"your_key", b"<token>", b"${TOKEN}", b"{{ x }}", b"$API_KEY", b"****", b"{self.password}"),
        )
    )
    assert not is_placeholder(b"k8Jq2PzX0vLmN4sT")
    assert has_example_word(b"my-Example-key")
    assert not has_example_word(b"k8Jq2PzX0vLmN4sT")


def test_entropy():
    assert entropy(b"aaaa") == 0
    assert entropy(bytes(range(256))) == 8


@pytest.mark.parametrize(
    ("value", "left", "at_least"),
    [
        (b"Alice Johnson", "", 0.5),
        (b"Zbigniew", "my name is ", 0.5),
        (b"Alice", "Dear ", 0.5),
        (b"Alice", "Best regards,\n", 0.5),
        (b"Hello Alice Johnson", "", 0.5),
        (b"Thandiwe", "ich bin ", 0.5),
        (b"Margaux Lefebvre", "je m'appelle ", 0.5),
        (b"Henry Hill", "", 0.5),
    ],
)
def test_names_with_evidence(value, left, at_least):
    assert person_name(value, left).bonus >= at_least


@pytest.mark.parametrize(
    ("value", "left"),
    [(b"New York", ""), (b"Support Team", ""), (b"Green Paper", ""), (b"Alice", ""), (b"Team", "Dear ")],
)
def test_names_without_evidence(value, left):
    assert person_name(value, left).bonus < 0.5


def test_a_name_leaves_ordinary_words_out():
    assert person_name(b"Hello Alice Johnson", "").part == (6, 19)


def test_the_gazetteer_is_whole():
    book = gazetteer()
    assert len(book.given) > 10_000
    assert len(book.family) > 40_000
    assert len(book.words) > 4_000
    with pytest.raises(InvalidInput):
        Gazetteer.parse(b"STXNAME\x01" + bytes(11))
    with pytest.raises(InvalidInput):
        Gazetteer.parse(b"WRONG000" + bytes(12))


@pytest.mark.parametrize("template", ["{nope}", "{A62}", "{iban:XX}", "{luhn}"])
def test_unknown_generators_are_refused(template):
    with pytest.raises(InvalidInput):
        ExampleMaker("x").fill(template)
