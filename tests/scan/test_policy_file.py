"""Policy files: what they say, and errors that name line and setting and never a value."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput, VerificationError
from stanch.scan import Dictionary, Operator, read_policy
from stanch.scan.policy_file import parse_policy
from stanch.terms import Severity

KEY = bytes(range(32))
HEAD = 'format = "stanch/scan-policy/v1"\n'


def write(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def keys(_purpose, reference):
    return KEY if reference is None else {"file:a.key": b"a" * 32, "keyring:other": b"b" * 32}[reference]


def test_everything_a_policy_can_say(tmp_path):
    Dictionary.build(["Project Nightjar"], key=b"a" * 32, label="codename").save(tmp_path / "terms.dict")
    policy = read_policy(
        write(
            tmp_path,
            HEAD
            + """kinds = ["email", "phone", "codename"]
without = ["phone"]
min_score = 0.6
[operators]
"*" = "mask"
email = "pseudonym"
[keys]
pseudonym = "keyring:other"
[[dictionaries]]
file = "terms.dict"
key = "file:a.key"
severity = "low"
""",
        )
    ).build(keys)
    assert (policy.kinds, policy.without, policy.min_score) == ({"email", "phone", "codename"}, {"phone"}, 0.6)
    assert (policy.operator("email"), policy.operator("phone")) == (Operator.PSEUDONYM, Operator.MASK)
    assert (policy.pseudonym_key, policy.report_key) == (b"b" * 32, KEY)
    (dictionary,) = policy.dictionaries
    assert (dictionary.label, dictionary.severity) == ("codename", Severity.LOW)


def test_the_least_policy_is_the_default_one(tmp_path):
    policy = read_policy(write(tmp_path, HEAD)).build(keys)
    assert (policy.kinds, policy.min_score, policy.pseudonym_key, policy.dictionaries) == (None, 0.5, None, ())
    assert policy.operator("email") == Operator.LABEL


def test_options_come_before_the_file(tmp_path):
    written = read_policy(write(tmp_path, HEAD + 'min_score = 0.7\n[operators]\nemail = "drop"\n"*" = "mask"'))
    policy = written.build(keys, operator=Operator.FAKE, min_score=0.3)
    assert (policy.operator("email"), policy.operator("iban"), policy.min_score) == (Operator.DROP, Operator.FAKE, 0.3)
    assert policy.pseudonym_key == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.toml: format"),
        ('format = "stanch/scan-policy/v9"', "p.toml:1: format"),
        (HEAD + "\nmin_scor = 1", "p.toml:3: min_scor"),
        (HEAD + "min_score = 0.1", "p.toml:2: min_score"),
        (HEAD + 'min_score = "0.1"', "p.toml:2: min_score"),
        (HEAD + "kinds = 7", "p.toml:2: kinds"),
        (HEAD + "kinds = [7]", "p.toml:2: kinds"),
        (HEAD + 'without = [\n "email",\n "nonsense",\n]', "p.toml:2: without"),
        (HEAD + 'kinds = ["*"]', "p.toml:2: kinds"),
        (HEAD + '[operators]\nemail = "label"\nphone = "shred"', "p.toml:4: operators.phone"),
        (HEAD + '[operators]\nphone = ["label"]', "p.toml:3: operators.phone"),
        (HEAD + '[operators]\nnonsense = "label"', "p.toml:3: operators.nonsense"),
        (HEAD + "operators = 3", "p.toml:2: operators"),
        (HEAD + '[keys]\npseudonym = "0123456789abcdef"', "p.toml:3: keys.pseudonym"),
        (HEAD + '[keys]\nother = "file:x"', "p.toml:3: keys.other"),
        (HEAD + '[[dictionaries]]\nfile = "x"\nseverity = "odd"', "p.toml:2: dictionaries"),
        (HEAD + "[[dictionaries]]", "p.toml:2: dictionaries"),
        (HEAD + "x = ", "not valid TOML"),
        ("\udcff", "not valid TOML"),
    ],
)
def test_errors_name_line_and_setting(tmp_path, text, said):
    path = tmp_path / "p.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o644)
    with pytest.raises(InvalidInput) as caught:
        read_policy(path).build(keys)
    assert said in caught.value.what
    assert "0123456789abcdef" not in str(caught.value.problem())


def test_files_that_cannot_be_trusted_are_refused(tmp_path):
    path = write(tmp_path, HEAD)
    path.chmod(0o666)
    with pytest.raises(InvalidInput, match="others may write"):
        read_policy(path)
    path.chmod(0o644)
    path.write_text(HEAD + "#" * (1 << 16))
    with pytest.raises(InvalidInput, match="at most"):
        read_policy(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_policy(tmp_path / "missing")


def test_a_dictionary_of_another_key_is_refused(tmp_path):
    Dictionary.build(["Project Nightjar"], key=b"c" * 32, label="codename").save(tmp_path / "terms.dict")
    written = read_policy(write(tmp_path, HEAD + '[[dictionaries]]\nfile = "terms.dict"'))
    with pytest.raises(VerificationError):
        written.build(keys)


@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="[]{}=\"\n.,#a1'operatskindmu_-*", max_size=80), headed=st.booleans())
def test_any_text_is_a_policy_or_refused(tmp_path_factory, text, headed):
    try:
        parse_policy(tmp_path_factory.getbasetemp() / "p.toml", (HEAD * headed + text).encode())
    except InvalidInput as error:
        assert error.what  # noqa: PT017 - either answer is right; only another exception is not
