"""Foreign expressions: what is said of them holds for every string that matches them."""

import re

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan.adapters.expression import Expression, compile_foreign
from stanch.scan.adapters.factor import ENDLESS, mask_bytes
from stanch.scan.anchor import parse_anchor

ASCII = st.characters(max_codepoint=127)

# Such as foreign rules have, in the syntax that Python and RE2 share; hypothesis makes strings that match them.
EXPRESSIONS = [
    r"wk_[0-9a-z]{12}",
    r"\b((?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b",
    (
        r"[\w.-]{0,50}?(?:widget)(?:[ \t\w.-]{0,20})[\s'\"]{0,3}(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)"
        r"[\x60'\"\s=]{0,5}([a-z0-9_-]{32})(?:[\x60'\"\s;]|\\[nr]|$)"
    ),
    r"(?i:key)[ -]?(\d{3}|[a-f]{4})+x?",
    r"-----BEGIN[ A-Z0-9_-]{0,100}KEY-----[\s\S]{6,}?-----END",
    r"[0-9a-f]{32}-us\d{1,2}",
    r"([A-Z]{2}|[a-z]{3})[0-9]{20,200}",
    r"(?:a|bc|)d{2,3}(e?f){1,2}[^\s\w]g",
    r"[^\x00-\x7f]{0}\.atlasv1\.[\]\-a^]+",
    r"x{2}(?:yy)*z{4,}\Z",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_every_match_is_within_what_is_said(text):
    whole = Expression(text.replace(r"\Z", r"\z")).whole
    factors = whole.factors
    assert factors
    for factor in factors:
        shape = parse_anchor(factor.anchor)
        assert (shape.shortest, shape.longest) == (factor.shortest, factor.longest)

    fullmatch = compile_foreign(text.replace(r"\Z", r"\z")).fullmatch

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.from_regex(re.compile(text, re.ASCII), fullmatch=True, alphabet=ASCII))
    def check(matched):
        data = matched.encode()
        assume(b"\x1e" not in data)  # no folded text holds the separator
        assume(fullmatch(data))  # Python calls some control characters white space, and reads $ in another way
        assert whole.shortest <= len(data) <= whole.longest
        assert set(data) <= {byte for byte in range(256) if whole.mask >> byte & 1}
        for factor in factors:
            anchor = re.compile(factor.anchor.encode("latin-1"), re.IGNORECASE if factor.caseless else 0)
            starts = range(min(factor.before, len(data)) + 1)
            ends = range(max(0, len(data) - factor.after), len(data) + 1)
            widths = range(factor.shortest, factor.longest + 1)
            assert any(anchor.fullmatch(data, s, e) for s in starts for e in ends if e - s in widths), factor
            if factor.before < ENDLESS:
                assert mask_bytes(factor.before_mask) or factor.before == 0

    check()


@pytest.mark.parametrize(
    ("text", "literals", "before", "after"),
    [
        ("wkt_[0-9a-z]{12}", (b"wkt_",), 0, 12),
        ("[0-9a-f]{32}-eu-[0-9]{1,2}", (b"-eu-",), 32, 2),
        ("(?:ghp|gho)_[A-Z]{3}", (b"ghp_", b"gho_"), 0, 3),
        (r"\bAKIA\b[A-Z]?", (b"AKIA",), 0, 1),
        (r"(?:foo[0-9]|bar)baz", (b"foo", b"bar"), 0, 4),
        (r"a{0,2}key+", (b"key", b"akey", b"aakey"), 0, ENDLESS),
        (r"\Qa.b\E[xy]{2}", (b"a.bxx", b"a.bxy", b"a.byx", b"a.byy"), 0, 0),
        (r"\x41\102[[:^digit:]]\z", (b"AB",), 0, 1),
    ],
)
def test_the_anchor_is_what_no_match_can_do_without(text, literals, before, after):
    factor = Expression(text).whole.best()
    assert (factor.literals, factor.before, factor.after) == (literals, before, after)


@pytest.mark.parametrize(
    "text", [r"[0-9]{16}", r"[a-z]{32,1000}", r"(?i)[a-z]\d[a-z]", r"pat[0-9a-z]{14}", r"s\.[a-z0-9]{24}"]
)
def test_without_a_literal_the_anchor_is_made_of_classes(text):
    factor = Expression(text).whole.best()
    assert not factor.literals
    assert parse_anchor(factor.anchor).longest <= 128


@pytest.mark.parametrize("text", ["a*", "", "x?|y?", "."])
def test_some_expressions_do_not_tell_where_to_look(text):
    assert Expression(text).whole.best() is None


@pytest.mark.parametrize(
    "text", ["(?=a)b", r"(a)\1", "(?x)a b", "a{1001}", "(", "[z-a]", "ключ", "a" * 20_001, "(" * 70 + "a" + ")" * 70]
)
def test_what_is_not_supported_is_refused(text):
    with pytest.raises(InvalidInput):
        Expression(text)


def test_the_chosen_group_is_the_value():
    assert Expression("(a)(?:b)(?P<key>c(d))", 2).text == "(a)(?:b)(?P<v>c(d))"
    assert Expression("(a)(b)", 2).text == "(a)(?P<v>b)"
    with pytest.raises(InvalidInput, match="no group 3"):
        Expression("(a)(b)", 3)


@settings(max_examples=300, deadline=None)
@given(st.text("ab01(|)[]^-\\dwsbQExp{},:?P<>*+.$iU\x1e", max_size=24))
def test_any_text_is_an_expression_or_invalid_input(text):
    try:
        factor = Expression(text).whole.best()
    except InvalidInput:
        return
    compile_foreign(text)
    if factor is not None:
        assert parse_anchor(factor.anchor).longest <= 128
