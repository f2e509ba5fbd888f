"""What a policy says of kinds, families, values and rules: what passes, what is replaced, what ends the answer."""

import itertools
import random

import pytest

from stanch.errors import InvalidInput
from stanch.guard import CANARY, TRAINING_TEXT, Action, Guard, GuardPolicy, check_text
from stanch.scan import FINE, Dictionary, fold_text
from stanch.scan.pack import parse_pack
from stanch.terms import Severity

MAIL, SUPPORT = "ana.diaz@example.org", "support@example.org"
PHONE, OTHER_PHONE = "+1 415 555 2671", "+1 212 555 0188"
TOKEN = "AKIAIOSFODNN7EXAMPLQ"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEvQIBADANBgkq' * 3}\n-----END RSA PRIVATE KEY-----"
TICKET = "TCK-48213377"
PACK = """format: stanch-pack/1
name: support
recognisers:
  - id: ticket-number
    kind: ticket-number
    version: 1
    family: personal
    anchor: 'TCK-'
    before: 4
    after: 12
    confirm: 'TCK-[0-9]{8}'
    left: '[0-9A-Za-z]'
    right: '[0-9A-Za-z]'
    cont: '[0-9]'
    score: 0.7
    severity: medium
    examples: ['TCK-{d:8}', 'see TCK-{d:8}.', '(TCK-{d:8})']
    counterexamples: ['TCK-{d:7}', 'TCK-{d:9}', 'ATCK-{d:8}']
    source: {title: Tickets, url: 'https://tickets.test/docs', read: '2026-11-28'}
"""


def rules(text=PACK):
    return parse_pack(text.encode(), name="support.yaml")


def played(guard, chunks):
    """Return what came out, and the verdict."""
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


def said(guard, text):
    """Return what a check, one feed and every single letter say, which must agree."""
    ways = [played(guard, way) for way in ([text], text, [text[at : at + 5] for at in range(0, len(text), 5)])]
    assert len(set(ways)) == 1
    checked = check_text(guard, text)
    assert checked.action == ways[0][1]
    assert checked.text in {ways[0][0], ""}
    return ways[0]


@pytest.fixture(scope="module")
def guard(canary):
    terms = Dictionary.build(["violet heron"], key=bytes(32), label="codename")
    actions = {
        "phone": Action.ALLOW, "aws-access-key-id": Action.REDACT, "personal": Action.BLOCK, "email": Action.REDACT,
        "codename": Action.REDACT,
    }  # fmt: skip
    return Guard(
        GuardPolicy(
            canaries=(canary,), dictionaries=(terms,), recognisers=rules(), actions=actions, allow=(SUPPORT, TICKET)
        )
    )


@pytest.fixture(scope="module")
def strict(canary, indexes, library):
    allow = (SUPPORT, PHONE, "card4539578763621486@example.org", canary, library[2][:500])
    return Guard(GuardPolicy(indexes["fine"], (canary,), allow=allow, actions={"email": Action.BLOCK}))


@pytest.mark.parametrize(
    ("text", "out", "action"),
    [
        (f"Call {PHONE} or {OTHER_PHONE} now", f"Call {PHONE} or {OTHER_PHONE} now", Action.ALLOW),
        (f"Mail {SUPPORT} or Support@Example.org now", f"Mail {SUPPORT} or Support@Example.org now", Action.ALLOW),
        (f"Mail {MAIL} or {SUPPORT} now", f"Mail <EMAIL> or {SUPPORT} now", Action.REDACT),
        (f"Mail x{SUPPORT} now", "Mail <EMAIL> now", Action.REDACT),
        (f"Mail {SUPPORT}.test now", "Mail <EMAIL> now", Action.REDACT),
        (f"The key {TOKEN} is it", "The key <AWS-ACCESS-KEY-ID> is it", Action.REDACT),
        ("They say violet heron here", "They say <CODENAME> here", Action.REDACT),
        (f"My ticket is {TICKET} ok", f"My ticket is {TICKET} ok", Action.ALLOW),
        ("My ticket is TCK-48213378 ok", "My ticket is ", Action.BLOCK),
    ],
)
def test_each_kind_has_its_action_and_allowed_values_pass(guard, text, out, action):
    assert said(guard, text) == (out, action)


def test_what_is_replaced_and_what_is_allowed_look_so_in_the_findings(guard):
    (finding,) = check_text(guard, f"Mail {MAIL} or {SUPPORT}").findings
    assert (finding.kind, finding.start, finding.reason) == ("email", 5, "action: redact")


def test_a_value_after_an_escape_is_the_same_value(guard, strict):
    """As it is written, the address seems to begin with the n of the line break."""
    assert said(guard, f'{{"a": "Mail\\n{SUPPORT}"}}') == (f'{{"a": "Mail\\n{SUPPORT}"}}', Action.ALLOW)
    assert said(guard, f'{{"a": "Mail\\n{MAIL}"}}') == ('{"a": "Mail\\n<EMAIL>"}', Action.REDACT)
    assert said(strict, f"\\n{SUPPORT} x")[1] == Action.ALLOW


def test_an_allowed_value_written_with_an_escape_is_no_longer_that_value(guard):
    assert said(guard, SUPPORT.replace("@", "\\u0040") + " x")[0] == SUPPORT.replace("@", "\\u0040") + " x"
    assert said(guard, "\\u0073upport@example.org x")[1] != Action.ALLOW


def test_the_digits_of_an_allowed_address_are_not_allowed_by_themselves(strict):
    assert check_text(strict, "My credit card is 4539 5787 6362 1486 thanks").action != Action.ALLOW


def test_layout_of_an_allowed_number_does_not_matter(strict):
    assert check_text(strict, "Call +1-415-555-2671 now").action == Action.ALLOW
    assert check_text(strict, f"Call {OTHER_PHONE} now").action == Action.REDACT


def test_nothing_lets_a_canary_or_training_text_pass(strict, canary, library, indexes):
    assert check_text(strict, f"It is {canary}").action == Action.BLOCK
    assert check_text(strict, library[2]).action == Action.BLOCK
    for kind in (CANARY, "training-text-encoded", "encoded-text"):
        for action in Action:
            with pytest.raises(InvalidInput, match="always blocks"):
                GuardPolicy(actions={kind: action})
    with pytest.raises(InvalidInput, match="never allowed"):
        GuardPolicy(actions={TRAINING_TEXT: Action.ALLOW})
    with pytest.raises(InvalidInput, match="only with lead_hold"):
        GuardPolicy(index=indexes["fine"], actions={TRAINING_TEXT: Action.REDACT})
    with pytest.raises(InvalidInput, match="no index"):
        GuardPolicy(lead_hold=True)


def test_what_is_unknown_is_refused():
    with pytest.raises(InvalidInput, match="no kind 'emial'"):
        GuardPolicy(actions={"emial": Action.ALLOW})
    with pytest.raises(InvalidInput, match="cannot be redacted"):
        GuardPolicy(actions={"private-key": Action.REDACT})
    with pytest.raises(InvalidInput, match="allowed value 1"):
        GuardPolicy(allow=(SUPPORT, " . "))
    with pytest.raises(InvalidInput, match="has a rule of that id"):
        GuardPolicy(recognisers=rules(PACK.replace("id: ticket-number", "id: email")))
    with pytest.raises(InvalidInput, match="all rules swallow or none"):
        GuardPolicy(recognisers=rules(PACK.replace("kind: ticket-number", "kind: private-key")))
    for kind in (CANARY, TRAINING_TEXT):
        with pytest.raises(InvalidInput, match="a rule finds"):
            GuardPolicy(recognisers=rules(PACK.replace("kind: ticket-number", f"kind: {kind}")))


@pytest.mark.parametrize("how", [{"actions": {"secret": Action.REDACT}}, {"block_from": Severity.CRITICAL}])
def test_a_value_without_a_bound_is_never_replaced(how):
    """How far it reaches in a text with escapes is not known when its label would leave."""
    guard, rng = Guard(GuardPolicy(**how)), random.Random(3)
    assert said(guard, f"The key {TOKEN} is it")[1] == Action.REDACT
    body = "MIIEvQIBADANBgkq\\n" * 400
    text = f"Here: \\n-----BEGIN RSA PRIVATE KEY-----\\n{body}-----END RSA PRIVATE KEY----- done"
    for _ in range(2):
        cuts = sorted(rng.choices(range(1, len(text)), k=3))
        stream = guard.open()
        steps = [stream.feed(text[a:b]) for a, b in itertools.pairwise([0, *cuts, len(text)])]
        assert steps[-1].action == Action.BLOCK
        assert "".join(step.text for step in steps) == "Here: \\"
    assert said(Guard(GuardPolicy(actions={"private-key": Action.ALLOW})), f"{PEM} x") == (f"{PEM} x", Action.ALLOW)


@pytest.fixture(scope="module")
def replacing(indexes, canary):
    actions = {TRAINING_TEXT: Action.REDACT}
    return Guard(GuardPolicy(indexes["fine"], (canary,), actions=actions, lead_hold=True))


def test_training_text_is_replaced_from_before_its_beginning_to_after_its_end(replacing, library, words):
    before, after = "Well, here it is: ", words(random.Random(8), 40)
    out, action = said(replacing, f"{before}{library[3][20:200]} {after}")
    head, tail = out.split("<TRAINING-TEXT>")
    assert action == Action.REDACT
    assert before.startswith(head)
    assert len(before) - len(head) <= FINE.stride
    assert after.endswith(tail)
    assert len(fold_text(after, "index")) - len(fold_text(tail, "index")) <= FINE.k + FINE.stride + 1
    checked = check_text(replacing, f"{before}{library[3][20:200]} {after}")
    assert [one.kind for one in checked.findings] == [TRAINING_TEXT]


def test_what_ends_the_answer_ends_it_inside_of_a_run_too(replacing, library, canary):
    said_out, action = said(replacing, f"Well {library[3][:120]} {canary} {library[3][120:200]} and so on")
    assert action == Action.BLOCK
    assert canary not in said_out


def test_an_escape_after_a_run_that_was_replaced_ends_the_answer(replacing, library, words):
    rest = words(random.Random(8), 40)
    for text in (f"{library[3][:120]} {rest} \\n", f"\\n {library[3][:120]} {rest}"):
        assert said(replacing, text)[1] == Action.BLOCK
    checked = check_text(replacing, library[3][:120] + " " + rest, rest)  # another place of the answer
    assert checked.action == Action.BLOCK


def test_what_is_cut_for_its_fill_keeps_the_run_before_it_replaced(replacing, library, words):
    """One window alone, and then so much that folds to nothing that no more is held for it."""
    rng = random.Random(11)
    run, alone = library[3][:120], library[5][100:148]
    text = f"{words(rng, 5)} {run} {words(rng, 40)} {alone}" + "\n" * 5000 + "and"
    out, action = said(replacing, text)
    assert action == Action.BLOCK
    assert "<TRAINING-TEXT>" in out
    assert run[20:60] not in out


def test_every_split_replaces_the_same(replacing, library, words, canary):
    """Nothing of a run that is surely cut is in what comes out, and the answer goes on as if it had not been cut up."""
    rng, replaced = random.Random(9), 0
    folded = [fold_text(row, "index").decode() for row in library]
    size = FINE.k + 2 * FINE.stride - 1
    for _ in range(60):
        parts = [words(rng, rng.randint(1, 12))]
        for _ in range(rng.randint(1, 5)):
            row, at = rng.choice(library), rng.randrange(300)
            rare = ("\n" * 300, MAIL, "é", "中文", canary, row[at : at + 20])
            parts += [row[at : at + rng.randint(20, 160)], words(rng, rng.randint(1, 20)), rng.choice(rare)]
        text = " ".join(parts)
        out, action = whole = played(replacing, [text])
        shown = fold_text(out.replace("<TRAINING-TEXT>", "|"), "index").decode()
        assert not any(shown[at : at + size] in row for at in range(len(shown) - size + 1) for row in folded)
        replaced += "<TRAINING-TEXT>" in out and action == Action.REDACT
        for _ in range(6):
            cuts = sorted(rng.choices(range(1, len(text)), k=rng.choice((1, 2, 3, 8))))
            assert played(replacing, [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]) == whole
    assert replaced > 10
