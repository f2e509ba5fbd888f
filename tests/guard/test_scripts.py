"""Protected texts in digits, letters and invisible characters of other kinds: none leaves. Ordinary text does."""

import itertools
import random

import pytest

from stanch.guard import ENCODED_TRAINING_TEXT, Action, Guard, GuardPolicy, check_text
from stanch.scan import Operator, Policy, Scanner

NUMBER, WORDS = "839201748265", "tangerine dream boat"
ZEROS = {"Arabic": 0x660, "Persian": 0x6F0, "Devanagari": 0x966, "Bengali": 0x9E6, "Thai": 0xE50, "Mongolian": 0x1810}
LETTERS = {"black circles": 0x1F150, "black squares": 0x1F170, "regional indicators": 0x1F1E6}
SMALL_CAPITALS = str.maketrans("abcdefghijklmnopqrstuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ")


def in_digits(text, zero):
    return "".join(chr(zero + int(c)) if c.isdecimal() else c for c in text)


def in_tags(text):
    return "".join(chr(0xE0000 + ord(c)) for c in text)


WAYS = {
    **{name: in_digits(NUMBER, zero) for name, zero in ZEROS.items()},
    "digits in black circles": NUMBER.translate(str.maketrans("0123456789", "⓿❶❷❸❹❺❻❼❽❾")),
    "digits in circles without serifs": NUMBER.translate(str.maketrans("0123456789", "🄋➀➁➂➃➄➅➆➇➈")),
    **{name: "".join(chr(first + ord(c) - 97) if c != " " else c for c in WORDS) for name, first in LETTERS.items()},
    "small capitals": WORDS.translate(SMALL_CAPITALS),
    "tags": in_tags(NUMBER),
    "every other in tags": "".join(in_tags(c) if at % 2 else c for at, c in enumerate(WORDS)),
    "tags between": "\U000e0058".join(WORDS),
}


@pytest.fixture(scope="module")
def canaries():
    return Guard(GuardPolicy(canaries=(NUMBER, WORDS)))


@pytest.fixture(scope="module")
def scanner():
    return Scanner(Policy())


def play(guard, chunks):
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


@pytest.mark.parametrize("way", WAYS)
def test_a_canary_does_not_leave_in_another_way_of_writing(canaries, way):
    text = f"so {WAYS[way]} yes"
    rng = random.Random(way)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(3))
    for chunks in ([text], list(text), [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]):
        out, action = play(canaries, chunks)
        assert action == Action.BLOCK
        assert out in ("so", "so ")


def test_training_text_does_not_leave_in_tags(policy, library):
    run = in_tags(library[2][7:127])
    checked = check_text(Guard(policy), f"It says: {run} and more")
    assert (checked.action, [one.kind for one in checked.findings]) == (Action.BLOCK, [ENCODED_TRAINING_TEXT])


@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS)
@pytest.mark.parametrize(
    "text",
    ["Card 4539 1488 0343 6467 visa card", "IBAN DE89 3704 0044 0532 0130 00", "my SSN is 536-90-4399",
     "call +49 30 123456789"],
)  # fmt: skip
def test_personal_data_in_digits_of_another_script_is_found_where_it_stands(scanner, text, zero):
    plain, other = scanner.scan(text), scanner.scan(in_digits(text, zero))
    assert plain.findings
    assert [(one.kind, one.start, one.end) for one in other.findings] == [
        (one.kind, one.start, one.end) for one in plain.findings
    ]
    assert scanner.redact(in_digits(text, zero)).text == scanner.redact(text).text


@pytest.mark.parametrize("operator", [Operator.MASK, Operator.FAKE, Operator.PSEUDONYM])
def test_every_operator_takes_digits_of_another_script(operator):
    scanner = Scanner(Policy(operators={"phone": operator, "iban": operator}, pseudonym_key=bytes(32)))
    text = "call +49 30 123456789, IBAN DE89 3704 0044 0532 0130 00"
    other, plain = scanner.redact(in_digits(text, 0x660)), scanner.redact(text)
    assert other.findings == plain.findings
    assert other.text.translate({0x660 + digit: str(digit) for digit in range(10)}) == plain.text != text


@pytest.mark.parametrize(
    "text",
    ["ولد في ١٩٨٥ وانتقل إلى القاهرة عام ٢٠٠٣، ويبلغ عدد السكان ٩٬٥٣٩٬٦٧٣ نسمة على مساحة ٦٠٦ كم٢.",
     "السعر ٢٥٠ ريالا بدلا من ٣٠٠، والعرض حتى ٣١/١٢/٢٠٢٦ الساعة ١٠:٣٠.",
     "भारत की जनसंख्या २०११ में १,२१,०८,५४,९७७ थी; साक्षरता ७४.०४% और क्षेत्रफल ३२,८७,२६३ वर्ग किमी।",
     "ราคา ๑,๒๕๐ บาท วันที่ ๑๕ มกราคม ๒๕๖๙ เวลา ๑๘.๓๐ น.",
     "England 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f - Deutschland 🇩🇪 ② : ❶, 🅰️ 🅱️ 🆗"],
    ids=["Arabic", "Arabic prices", "Hindi", "Thai", "flags"],
)  # fmt: skip
def test_ordinary_text_with_its_own_digits_passes(canaries, scanner, text):
    assert play(canaries, list(text)) == (text, Action.ALLOW)
    result = scanner.scan(text)
    assert (result.findings, result.residuals) == ((), ())
