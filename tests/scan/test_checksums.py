"""Checks by the ten thousand: every right value is accepted, no broken one is, by validator or by scanner."""

import hashlib
import itertools
import random
import string

import pytest

from stanch.scan import Location
from stanch.scan.validators import REGISTRY, Outcome, crc32_base62
from stanch.scan.validators.mnemonic import has_checksum, word_numbers

COUNT, SAMPLE = 10_000, 100
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
WORDS = [word.decode() for word in word_numbers()]
ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
"""What letters and digits in odd places of a codice fiscale count."""

HUNDRED = [f"{number:02d}" for number in range(100)]
A62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def luhn_digit(body):
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[::-2])
    return str(-(doubled + sum(map(int, body[-2::-2]))) % 10)


def with_letter(body, _rng):
    return body, "TRWAGMYFPDXBNJZSQVHLCKE"[int(body) % 23], "TRWAGMYFPDXBNJZSQVHLCKE"


def with_luhn(body, _rng):
    return body, luhn_digit("".join(filter(str.isdigit, body))), string.digits


def crc(prefix):
    def make(body, rng):
        check = crc32_base62(body.encode()).decode()
        other = check[:-1] + rng.choice([c for c in A62 if c != check[-1]])
        return prefix + body, check, [check, other]

    return make


def weights(*factors, modulus=11, sign=1, after=()):
    """Return what appends the digit that makes the weighted sum right; bodies without one are left out."""

    def make(body, _rng):
        total = sign * sum(int(digit) * factor for digit, factor in zip(body, factors, strict=True)) % modulus
        digit = dict(after).get(total, total)
        return body, None if digit > 9 else str(digit), string.digits

    return make


def pairs(number, modulus=97):
    """Return what appends two digits so that ``number(body) + check`` is a multiple."""

    def make(body, _rng):
        check = modulus - number(body) % modulus
        return body, f"{check:02d}", HUNDRED[1 : modulus + 1]

    return make


def iban(body, _rng):
    check = 98 - int(body + "131400") % 97  # D is 13, E is 14
    return f"DE??{body}", f"{check:02d}", HUNDRED[2:99]


def finnish(body, _rng):
    signs = "0123456789ABCDEFHJKLMNPRSTUVWXY"
    return f"{body[:6]}-{body[6:]}", signs[int(body) % 31], signs


def two_digits(*first):
    """Return what appends two MOD 11 digits, each over all before it (Receita Federal)."""

    def digit(body, factors):
        rest = sum(int(d) * factor for d, factor in zip(body, factors, strict=True)) % 11
        return "0" if rest < 2 else str(11 - rest)

    def make(body, _rng):
        body += digit(body, first)
        return body, digit(body, (first[0] + 1 if first[0] > 9 else 6, *first)), string.digits

    return make


def german(_body, rng):
    body = rng.sample("123456789", 9)
    body = "".join([body[0], *rng.sample([*body[1:], body[-1]], 9)])
    product = 10
    for digit in body:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return body, str((11 - product) % 10), string.digits


def belgian(body, _rng):
    first, later = (97 - int(century + body) % 97 for century in ("", "2"))
    return body, f"{first:02d}", [*HUNDRED[1:later], *HUNDRED[later + 1 : 98]]


def italian(body, _rng):
    odd = dict(zip(string.ascii_uppercase, ODD, strict=True))
    odd |= {digit: odd[letter] for digit, letter in zip(string.digits, string.ascii_uppercase, strict=False)}
    even = {sign: place for signs in (string.digits, string.ascii_uppercase) for place, sign in enumerate(signs)}
    total = sum((even if place % 2 else odd)[sign] for place, sign in enumerate(body))
    return body, string.ascii_uppercase[total % 26], string.ascii_uppercase


def turn(left, right):
    """Multiply in the group of the pentagon: 0 to 4 are rotations, 5 to 9 reflections."""
    return (left + right if left < 5 else left - right) % 5 + 5 * ((left < 5) != (right < 5))


VERHOEFF = [list(range(10))]
for _ in range(7):
    VERHOEFF.append([(1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit] for digit in VERHOEFF[-1]])


def indian(body, _rng):
    state = 0
    for place, digit in enumerate(reversed(body), 1):
        state = turn(state, VERHOEFF[place % 8][int(digit)])
    return body, str(-state % 5 if state < 5 else state), string.digits


def vehicle(body, _rng):
    worth = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True))
    factors = (8, 7, 6, 5, 4, 3, 2, 10, 9, 8, 7, 6, 5, 4, 3, 2)
    signs = body.replace("??", "")
    total = sum((int(s) if s.isdigit() else worth[s]) * f for s, f in zip(signs, factors, strict=True)) % 11
    return body, "0123456789X"[total], "0123456789X"


TERMS = [0]
for term in (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3):
    TERMS += [term ^ other for other in TERMS]


def age_key(_body, rng):
    data = [rng.randrange(32) for _ in range(52)]
    prefix = "age-secret-key-"
    check = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *data, *[0] * 6]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        check ^= TERMS[top]
    end = "".join(BECH32[(check ^ 1) >> 5 * (5 - place) & 31] for place in range(6)).upper()
    text = f"{prefix}1{''.join(BECH32[value] for value in data)}".upper()
    return text, end, [end, end[:-1] + ("Q" if end[-1] != "Q" else "P")]


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return text


def wallet_key(body, rng):
    data = b"\x80" + bytes.fromhex(body)
    check = hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    return "", base58(data + check), [base58(data + check), base58(data + rng.randbytes(3) + bytes([check[3] ^ 1]))]


def phrase(body, _rng):
    bits = int(body, 16) << 4 | hashlib.sha256(bytes.fromhex(body)).digest()[0] >> 4
    numbers = [bits >> 11 * place & 2047 for place in range(11, -1, -1)]
    broken = [*numbers[:-1], numbers[-1] ^ 1]
    right, wrong = (" ".join(WORDS[number] for number in some) for some in (numbers, broken))
    return "", right, [right, wrong]


def singaporean(body, _rng):
    total = sum(int(digit) * factor for digit, factor in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True))
    return f"S{body}", "ABCDEFGHIZJ"[10 - total % 11], "ABCDEFGHIZJ"


def registrant(body, _rng):
    digits = [*map(int, body[2:])]
    return body, str((sum(digits[::2]) + 2 * sum(digits[1::2])) % 10), string.digits


def business(body, _rng):
    total = sum(int(digit) * factor for digit, factor in zip(body, range(3, 20, 2), strict=True))
    # Two leading digits: ten times (the first - 1) and the second make the sum a multiple of 89.
    fits = next((f"{a}{b}" for a in range(1, 10) for b in range(10) if (10 * (a - 1) + b + total) % 89 == 0), None)
    return "??" + body, fits, [f"{number}" for number in range(10, 99)]


def turkish(body, _rng):
    digits = [*map(int, body)]
    tenth = (7 * sum(digits[::2]) - sum(digits[1::2])) % 10
    return f"{body}{tenth}", str((sum(digits) + tenth) % 10), string.digits


def chinese(body, _rng):
    total = sum(int(digit) << 17 - place for place, digit in enumerate(body))  # each place counts a power of two
    return body, "0123456789X"[(1 - total) % 11], "0123456789X"


def norwegian(body, _rng):
    def digit(body, factors):
        rest = -sum(int(digit) * factor for digit, factor in zip(body, factors, strict=True)) % 11
        return None if rest > 9 else str(rest)

    first = digit(body, (3, 7, 6, 1, 8, 9, 4, 5, 2))
    body += first or ""
    return body, first and digit(body, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)), string.digits


# Kind: validator, context for the scanner, body (# digit, @ letter, x hex digit, * letter or digit), and what returns
# the body as it is written (?? where the check goes in), the right check, and all checks of its form.
KINDS = {
    "github-token": ("crc62-token", "", "*" * 30, crc("ghp_")),
    "npm-token": ("crc62-token", "", "*" * 30, crc("npm_")),
    "payment-card": ("payment-card", "card ", "4539###########", with_luhn),
    "iban": ("iban", "IBAN ", "#" * 18, iban),
    "uk-nhs": ("uk-nhs", "NHS number ", "9########", weights(*range(10, 1, -1), sign=-1)),
    "fr-nir": ("fr-nir", "NIR ", "1870275######", pairs(int)),
    "es-dni": ("es-dni", "DNI ", "########", with_letter),
    "nl-bsn": ("nl-bsn", "BSN ", "1#######", weights(*range(9, 1, -1))),
    "ca-sin": ("ca-sin", "SIN ", "1#######", with_luhn),
    "se-personnummer": ("se-personnummer", "personnummer ", "810218-###", with_luhn),
    "pl-pesel": ("pl-pesel", "PESEL ", "800101####", weights(*(1, 3, 7, 9) * 2, 1, 3, modulus=10, sign=-1)),
    "fi-hetu": ("fi-hetu", "hetu ", "010180###", finnish),
    "us-bank-routing": ("aba-routing", "routing ", "02######", weights(3, 7, *(1, 3, 7) * 2, modulus=10, sign=-1)),
    "br-cpf": ("br-cpf", "CPF ", "1########", two_digits(*range(10, 1, -1))),
    "br-cnpj": ("br-cnpj", "CNPJ ", "1#######0001", two_digits(5, 4, 3, 2, *range(9, 1, -1))),
    "de-tax-id": ("de-tax-id", "Steuer-ID ", "", german),
    "be-national-number": ("be-national", "rijksregisternummer ", "850730###", belgian),
    "it-codice-fiscale": ("it-codice-fiscale", "codice fiscale ", "RSS@RA85T10A###", italian),
    "au-tfn": ("au-tfn", "TFN ", "1#######", weights(1, 4, 3, 7, 5, 8, 6, 9)),
    "in-aadhaar": ("in-aadhaar", "aadhaar ", "5##########", indian),
    "ch-ahv": ("ch-ahv", "AHV ", "756#########", weights(*(1, 3) * 6, modulus=10, sign=-1)),
    "sg-nric": ("sg-nric", "", "#######", singaporean),
    "us-dea-number": ("us-dea", "DEA number ", "B@######", registrant),
    "au-business-number": ("au-abn", "ABN ", "#########", business),
    "it-partita-iva": ("it-partita-iva", "partita IVA ", "1#########", with_luhn),
    "vehicle-vin": ("vin", "VIN ", "1@@@@###??@@######", vehicle),
    "tr-tckn": ("tr-tckn", "TCKN: ", "1########", turkish),
    "za-id": ("za-id", "ID number ", "800101####08", with_luhn),
    "cn-ric": ("cn-ric", "", "11010519800112###", chinese),
    "no-fnr": ("no-fnr", "fnr ", "0101803##", norwegian),
    "age-secret-key": ("age-secret-key", "", "", age_key),
    "imei": ("imei", "imei ", "35############", with_luhn),
    "bitcoin-private-key": ("base58check", "", "x" * 64, wallet_key),
    "recovery-phrase": ("recovery-phrase", "seed phrase: ", "x" * 32, phrase),
}  # fmt: skip
POOLS = {"#": string.digits, "@": LETTERS, "x": "0123456789abcdef", "*": A62}


def values(kind, count):
    """Yield ``count`` right values of a kind, each with a broken one that differs in its check alone."""
    _, _, shape, make = KINDS[kind]
    rng = random.Random(kind)
    parts = [(POOLS.get(sign), len(list(same)), sign) for sign, same in itertools.groupby(shape)]
    while count:
        body = "".join("".join(rng.choices(pool, k=size)) if pool else sign * size for pool, size, sign in parts)
        text, check, checks = make(body, rng)
        if check is None:
            continue
        other = rng.choice([some for some in checks if some != check])
        write = text.replace("??", "{}").format if "??" in text else lambda end, text=text: text + end
        yield write(check), write(other)
        count -= 1


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_right_values_are_accepted_and_as_many_broken_ones_are_not(kind):
    judge = REGISTRY[KINDS[kind][0]]
    right = broken = 0
    for value, other in values(kind, COUNT):
        right += judge(value.encode(), "").outcome is not Outcome.REJECT
        broken += judge(other.encode(), "").outcome is not Outcome.REJECT
    assert (right, broken) == (COUNT, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scanner_reports_right_values_and_no_broken_one(scanner, kind):
    context, sample = KINDS[kind][1], list(values(kind, SAMPLE))
    right, broken = (
        sum(
            any(finding.kind == kind for finding in result.findings)
            for result in scanner.scan_many((Location(), context + pair[side]) for pair in sample)
        )
        for side in (0, 1)
    )
    # Random digits may form a denied sequence such as ten equal ones; that is no loss.
    assert right >= SAMPLE - 2
    assert broken == 0


@pytest.mark.parametrize(
    "phrase",
    [
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
        "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
        "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
    ],
)
def test_the_published_vectors_of_bip39(phrase):
    numbers = [word_numbers()[word.encode()] for word in phrase.split()]
    assert has_checksum(numbers)
    assert not has_checksum([*numbers[:-1], numbers[-1] ^ 1])


def test_the_published_keys_of_age():
    for key in (
        b"AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX",
        b"AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR",
    ):
        assert REGISTRY["age-secret-key"](key, "").outcome is Outcome.STRONG
        assert REGISTRY["age-secret-key"](key[:-1] + b"Q", "").outcome is Outcome.REJECT
