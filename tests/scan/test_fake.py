"""Made-up values: from ranges that belong to nobody, consistent, in the layout of the value, and known again."""

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.scan import Operator, Policy, Scanner
from stanch.scan.fake import _FAMILY, FAKES, fake, is_fake
from stanch.scan.validators.names import gazetteer, name_digest

KEY = bytes(range(32))
POLICY = Policy(operators={"*": Operator.FAKE}, pseudonym_key=KEY, report_key=bytes(32))


@pytest.fixture(scope="module")
def faker():
    return Scanner(POLICY)


def layout(text):
    return re.sub(r"[0-9A-Fa-f]", "0", text)


@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("email", "ana@correo.es", r"[a-z]+\.[a-z]+\d\d@example\.(com|net|org)"),
        ("phone", "(415) 267-8943", r"\(\d{3}\) 555-01\d\d"),
        ("phone", "+1 415 267 8943", r"\+1 \d{3} 555 01\d\d"),
        ("phone", "+44 20 8946 1234", r"\+44 20 7946 0\d{3}"),
        ("phone", "020 8946 1234", r"020 7946 0\d{3}"),
        ("phone", "+49 30 1234567", r"\+1 \d{3} 555 01\d\d"),
        ("payment-card", "4539 1488 0343 6467", r"4[0-9]{3} [0-9]{4} [0-9]{4} [0-9]{4}"),
        ("payment-card", "371234567890123", r"3[0-9]{14}"),
        ("us-ssn", "536-22-8745", r"987-65-432\d"),
        ("ip-address", "8.8.8.8", r"(192\.0\.2|198\.51\.100|203\.0\.113)\.\d+"),
        ("ip-address", "2a00:1450::200e", r"2001:db8::[0-9a-f]+:[0-9a-f]+"),
        ("mac-address", "3C:22:FB:0A:12:34", r"00:00:5E:00:53:[0-9A-F]{2}"),
        ("mac-address", "3c-22-fb-0a-12-34", r"00-00-5e-00-53-[0-9a-f]{2}"),
        ("iban", "DE89 3704 0044 0532 0130 00", r"DE\d\d 0000 0000 \d{4} \d{4} \d\d"),
        ("iban", "FR1420041010050500013M02606", r"FR\d\d0{10}\d{13}"),
        ("iban", "GB82WEST12345698765432", r"DE\d\d0{8}\d{10}"),
        ("person", "Alice Johnson", r"[A-Z][a-z]+ [A-Z][a-z]+"),
    ],
)
def test_each_kind_has_its_own_range_and_keeps_the_layout(kind, value, pattern):
    made = fake(KEY, kind, value)
    assert re.fullmatch(pattern, made)
    assert is_fake(kind, made)
    assert not is_fake(kind, value)
    assert fake(KEY, kind, value) == made
    assert {fake(bytes([n]) * 32, kind, value) for n in range(8)} != {made}


def test_accounts_have_the_right_check_digits():
    for number in range(200):
        made = fake(KEY, "iban", f"DE8937040044053201{number:04}")
        assert int("".join(str(int(c, 36)) for c in made[4:] + made[:4])) % 97 == 1


def test_equal_values_get_equal_ones_whatever_their_spelling():
    assert fake(KEY, "email", "Ana@Correo.es") == fake(KEY, "email", "ana@correo.es")
    one, two = fake(KEY, "phone", "+1 415 267 8943"), fake(KEY, "phone", "(415) 267-8943")
    assert re.sub(r"\D", "", one)[-10:] == re.sub(r"\D", "", two)


def test_addresses_are_documentation_addresses():
    for number in range(100):
        assert ipaddress.ip_address(fake(KEY, "ip-address", f"9.9.9.{number}")) in [
            *ipaddress.ip_network("192.0.2.0/24"),
            *ipaddress.ip_network("198.51.100.0/24"),
            *ipaddress.ip_network("203.0.113.0/24"),
        ]


def test_the_family_names_are_nobodys():
    names = gazetteer()
    assert not {name_digest(name) for name in _FAMILY} & (names.family | names.given | names.words)
    assert len(set(_FAMILY)) == 64


def test_what_was_made_up_is_no_finding_but_what_looks_like_it_is(faker):
    text = "ask carla.brivelwick07@example.org or carla.brivelwick07@example.org.uk"
    kinds = [(f.start, f.end) for f in faker.scan(text).findings]
    assert kinds == [(text.rindex("carla"), len(text))]
    assert Scanner(Policy()).scan("ask carla.brivelwick07@example.org").findings


def test_kinds_without_a_range_are_labelled(faker):
    done = faker.redact("url https://ana:x9Tq72@host.example-works.io/ now")
    assert "<URL-CREDENTIALS>" in done.text
    assert "url-credentials" not in FAKES


VALUES = st.sampled_from(
    [
        "mail ana.diaz@correo.es",
        "call +1 415 267 8943",
        "phone (415) 267-8943",
        "+44 20 8946 1234",
        "card 4539 1488 0343 6467",
        "card 4539148803436467",
        "iban DE89 3704 0044 0532 0130 00",
        "ssn 536-22-8745",
        "ip 8.8.8.8",
        "ip 2a00:1450:4001:81b::200e",
        "my name is Alice Johnson",
        "I am Bob Smith, Dear Ms Carter",
    ]
)


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.one_of(VALUES, st.sampled_from([" ", ", ", ".\n", "x", "@", "7"])), max_size=6))
def test_faked_text_scans_clean_and_stays_as_it_is(faker, parts):
    text = "".join(parts)
    done = faker.redact(text)
    assert faker.scan(done.text).findings == ()
    assert faker.redact(done.text).text == done.text
    session = faker.open_stream()
    assert session.feed(text[: len(text) // 2]).text + session.feed(
        text[len(text) // 2 :]
    ).text + session.finish().text == (faker.replace(text).text)
