"""What stands before a text: the name of its field and the end of the text that it follows announce values in it."""

import random

import pytest
from hostile_text import make_text, split

from stanch.scan import Location, Policy, Scanner

FIELDS = [
    ("dob", "1984-03-12", "date-of-birth"),
    ("D.O.B.", "1984-03-12", "date-of-birth"),
    ("Passport No.", "X1234567", "passport-number"),
    ("passport.number", "X1234567", "passport-number"),
    ("people[3].passports[0]", "X1234567", "passport-number"),
    ("password", "Tr0ub4dor!", "password"),
    ("clientSecret", "fj3kF82kdkLwq91Xz", "secret-assignment"),
    ("sortCode", "20-31-77", "uk-sort-code"),
    ("driving_licence", "MORGA657054SM9IJ", "driving-licence"),
    ("user.first_name", "Zbigniew", "person"),
    ("city", "Springfield", "postal-address"),
    ("zip", "90210", "postal-address"),
    ("swift", "COBADEFFXXX", "bic"),
    ("mrn", "41893027", "medical-record-number"),
    ("username", "ana_diaz7", "username"),
    ("customerNumber", "71345617", "customer-number"),
    ("pin", "4821", "pin-code"),
    ("security_code", "417", "card-security-code"),
]
ANSWERS = [
    ("What is your passport number?", "X1234567", "passport-number"),
    ("Please tell me your date of birth.", "1984-03-12, in Rome", "date-of-birth"),
    ("And your social security number?\n", "536228745", "us-ssn"),
    ("**Username:**", "ana_diaz7", "username"),
]


def kinds(result):
    return [finding.kind for finding in result.findings]


@pytest.fixture(scope="module", params=["hyperscan", "re2"])
def searcher(request):
    return Scanner(Policy(), engine=request.param)


def test_the_name_of_a_field_announces_what_stands_in_it(searcher):
    for field, value, kind in FIELDS:
        assert kind in kinds(searcher.scan(value, location=Location("r1", field))), field
        assert kind not in kinds(searcher.scan(value)), field
        done = searcher.redact(value, location=Location("r1", field))
        assert value not in done.text, field
        assert not searcher.scan(done.text, location=Location("r1", field)).findings, field


def test_names_that_say_nothing_add_nothing(scanner):
    for field in ("content", "messages[0].content", "role", "text", "prompt", "id", "label", "created_at", ""):
        assert scanner.scan("1984-03-12", location=Location("", field)).findings == ()
        assert scanner.scan("Tr0ub4dor!", location=Location("", field)).findings == ()


def test_places_are_those_of_the_text_alone(scanner):
    text = "é\u200b 1984-03-12"
    (found,) = scanner.scan(text, location=Location("", "né.dob")).findings
    assert text[found.start : found.end] == "1984-03-12"


def test_a_value_that_begins_in_the_name_is_none_of_the_text(scanner):
    assert scanner.scan("x", location=Location("", "ana@correo.es")).findings == ()


def test_the_end_of_a_turn_announces_the_beginning_of_the_next(searcher):
    for question, answer, kind in ANSWERS:
        places = [Location("r1", "messages[0].content"), Location("r1", "messages[1].content", follows=True)]
        asked, answered = searcher.scan_many(zip(places, (question, answer), strict=True))
        assert (kinds(asked), kinds(answered)) == ([], [kind])
        apart = searcher.scan_many((Location("r1", place.field), answer) for place in places)
        assert all(kind not in kinds(result) for result in apart)
        done = searcher.redact(answer, before=question)
        assert not set(answer.split(",")[0].split()) & set(done.text.split())


def test_a_turn_is_searched_with_the_one_before_it_over_the_border_of_a_block(scanner):
    long = "word " * 300_000 + "What is your passport number?"
    places = [Location("r1", "a"), Location("r1", "b", follows=True)]
    _, answered = scanner.scan_many(zip(places, (long, "X1234567"), strict=True))
    assert kinds(answered) == ["passport-number"]


def test_what_was_asked_long_before_the_end_of_a_turn_is_forgotten(scanner):
    question = "Is your passport number at hand? " + "We can also go on without it, and look at the rest first. " * 3
    places = [Location("r1", "a"), Location("r1", "b", follows=True)]
    assert not list(scanner.scan_many(zip(places, (question, "X1234567"), strict=True)))[1].findings


def test_an_anchor_that_the_end_of_a_turn_holds_in_part_announces_nothing(scanner):
    places = [Location("r1", "a"), Location("r1", "b", follows=True)]
    asked, answered = scanner.scan_many(zip(places, ("My seed phrase" + " able" * 18, "zoo"), strict=True))
    assert (kinds(asked), kinds(answered)) == ([], [])


def test_a_finding_is_no_residual_as_well(scanner):
    places = [Location("r1", "a"), Location("r1", "b", follows=True)]
    _, answered = scanner.scan_many(zip(places, ("Your social security number?", "536228745"), strict=True))
    found = {(finding.start, finding.end, finding.kind) for finding in answered.findings}
    assert found
    assert not found & {(finding.start, finding.end, finding.kind) for finding in answered.residuals}


def test_a_stream_hears_the_name_of_its_field_as_a_whole_text_does(full_scanner):
    rng = random.Random(3)
    texts = [value for _, value, _ in FIELDS] + [make_text(seed, 2) for seed in range(3)]
    for field, _, _ in FIELDS[::3]:
        location = Location("r1", field)
        for text in texts:
            whole = full_scanner.replace(text, location=location)
            session = full_scanner.open_stream(location=location)
            steps = [session.feed(chunk) for chunk in split(text, rng)] + [session.finish()]
            found = sorted((f for step in steps for f in step.findings), key=lambda f: (f.start, f.end, f.kind))
            assert ("".join(step.text for step in steps), found) == (whole.text, list(whole.findings)), field
