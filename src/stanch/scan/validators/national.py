"""Check digits and letters of national numbers: tax, health and identity numbers of people.

Each rule is the one that the issuing authority, or the law that creates the number, publishes.
"""

import datetime as dt
import re

from stanch.scan.validators.checksum import luhn, mod11_10, verhoeff, weighted
from stanch.scan.validators.verdict import ABSTAIN, MEDIUM, REJECT, WEAK, Outcome, Verdict

_DNI_LETTERS = b"TRWAGMYFPDXBNJZSQVHLCKE"
_CF_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10,
    22, 25, 24, 23,
), strict=True))  # fmt: skip
_LABELLED = 0.35
_SAID = r"(?:[\s:#=.\"'*>(]|(?i:number|no|num|nr|is)\b){0,8}\Z"
_SOCIAL = re.compile(r"(?i:\bssn|\bsocial(?:[ _-]?security)?[ _-]?(?:number|no|num)|\bsocial[ _-]?security)" + _SAID)
_SIN = re.compile(r"(?:\b(?i:social[ _-]?insurance|assurance[ _-]sociale)|\bSIN|\bNAS)" + _SAID)
_TFN = re.compile(r"\b(?i:tax[ _-]?file)" + _SAID)
_SSN = re.compile(rb"[0-9]{3}([ .-]?)[0-9]{2}\1[0-9]{4}")
_YEAR = re.compile(rb"(?:19|20)[0-9]{2}")
_FEWEST = 4
_LESS = Verdict(Outcome.ABSTAIN, bonus=-0.3)
_NRIC_LETTERS = {b"S": b"JZIHGFEDCBA", b"F": b"XWUTRQPNMLK", b"M": b"XWUTRQPNJLK"}
_NINO_NEVER = frozenset({b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"})
_PROVINCES = re.compile(rb"1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
"""First two digits of Chinese identity numbers (GB/T 2260; 81 to 83 of residents from elsewhere)."""


def _digits(value: bytes) -> bytes:
    return re.sub(rb"[^0-9]", b"", value)


def _symbols(value: bytes) -> bytes:
    return re.sub(rb"[^0-9A-Z]", b"", value.upper())


def _by_label(label: re.Pattern[str], left: str) -> Verdict:
    """Return the verdict on a number that passes its check: a label right before it counts as a context word."""
    return Verdict(Outcome.WEAK, bonus=_LABELLED if label.search(left) else 0.0)


def _by_grouping(value: bytes) -> Verdict:
    """Return the verdict on a number with two check digits: bare digits are more often something else."""
    return WEAK if value.isdigit() else MEDIUM


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        dt.date(year, month, day)
    except ValueError:
        return False
    return True


def us_ssn(value: bytes, left: str) -> Verdict:
    """Judge a US social security number by the area, group and serial numbers that are never assigned.

    A label right before it counts as much as a context word.
    """
    digits = _digits(value)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    never = area in {b"000", b"666"} or area >= b"900" or group == b"00" or serial == b"0000"
    invented = all(len(set(part)) == 1 for part in (area, group, serial))  # 111-22-3333, as samples have it
    if never or invented:
        return REJECT
    return Verdict(Outcome.ABSTAIN, bonus=_LABELLED) if _SOCIAL.search(left) else ABSTAIN


def identity_number(value: bytes, _left: str) -> Verdict:
    """Judge what stands behind a label such as ``ID card:``: four digits, no year, no social security number.

    Nine digits in the groups of such a number are for the rules of ``us-ssn``, which know those never assigned.
    """
    few = len(_digits(value)) < _FEWEST or _YEAR.fullmatch(value) is not None
    return REJECT if few or _SSN.fullmatch(value) else ABSTAIN


def us_itin(value: bytes, _left: str) -> Verdict:
    """Judge a US individual taxpayer number: 9xx and the groups 50-65, 70-88, 90-92, 94-99 (IRS).

    Without its dashes it needs a context.
    """
    digits = _digits(value)
    group = int(digits[3:5])
    assigned = 50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or group >= 94
    if digits[:1] != b"9" or not assigned:
        return REJECT
    bound = digits[5:] in {b"0000", b"9999"}  # of a range that a text speaks of
    return ABSTAIN if value.count(b"-") == 2 and not bound else _LESS


def uk_nino(value: bytes, _left: str) -> Verdict:
    """Judge a UK national insurance number by its prefix letters (HMRC, NIM39110)."""
    prefix = _symbols(value)[:2]
    never = prefix[:1] in b"DFIQUV" or prefix[1:] in b"DFIQUVO" or prefix in _NINO_NEVER
    return REJECT if never else ABSTAIN


def uk_nhs(value: bytes, _left: str) -> Verdict:
    """Judge an NHS number: modulus 11 with the weights 10 to 2 (NHS Data Dictionary)."""
    digits = _digits(value)
    check = 11 - weighted(digits[:9], range(10, 1, -1)) % 11
    return WEAK if check % 11 == digits[9] - 48 else REJECT


def de_tax_id(value: bytes, _left: str) -> Verdict:
    """Judge a German tax identification number: MOD 11,10, and one digit twice or three times in the first ten."""
    digits = _digits(value)
    counts = sorted(map(digits[:10].count, set(digits[:10])))
    shape = digits[:1] != b"0" and counts[-1] in {2, 3} and counts[:-1] == [1] * (len(counts) - 1)
    return WEAK if shape and mod11_10(digits) else REJECT


def fr_nir(value: bytes, _left: str) -> Verdict:
    """Judge a French social security number: month, department letters and key (97 - number mod 97)."""
    symbols = _symbols(value)
    number = symbols[:13].replace(b"2A", b"19").replace(b"2B", b"18")
    month = int(symbols[3:5])
    if not number.isdigit() or not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return REJECT
    return _by_grouping(value) if 97 - int(number) % 97 == int(symbols[13:15]) else REJECT


def es_dni(value: bytes, _left: str) -> Verdict:
    """Judge a Spanish DNI or NIE: the letter is the number modulo 23 (Real Decreto 1553/2005)."""
    symbols = _symbols(value)
    number = symbols[:-1].translate(bytes.maketrans(b"XYZ", b"012"))
    return MEDIUM if symbols[-1] == _DNI_LETTERS[int(number) % 23] else REJECT


def it_codice_fiscale(value: bytes, _left: str) -> Verdict:
    """Judge an Italian tax code by its check character (DM 23 December 1976)."""
    code = value.decode("ascii").upper()
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in code[1:15:2])
    total = even + sum(_CF_ODD[c] for c in code[0:15:2])
    return MEDIUM if ord(code[15]) - 65 == total % 26 else REJECT


def nl_bsn(value: bytes, _left: str) -> Verdict:
    """Judge a Dutch citizen service number by the eleven-test."""
    digits = _digits(value)
    total = weighted(digits[:8], range(9, 1, -1)) - (digits[8] - 48)
    return WEAK if total % 11 == 0 and int(digits) else REJECT


def be_national(value: bytes, _left: str) -> Verdict:
    """Judge a Belgian national register number: 97 - number mod 97, with a leading 2 for births from 2000 on."""
    digits = _digits(value)
    check = int(digits[9:])
    passes = check in {97 - int(digits[:9]) % 97, 97 - int(b"2" + digits[:9]) % 97}
    return _by_grouping(value) if passes and int(digits[2:4]) <= 12 and int(digits[4:6]) <= 31 else REJECT


def br_cpf(value: bytes, _left: str) -> Verdict:
    """Judge a Brazilian CPF by its two modulus-11 digits (Receita Federal)."""
    digits = _digits(value)
    for size in (9, 10):
        check = weighted(digits[:size], range(size + 1, 1, -1)) * 10 % 11 % 10
        if check != digits[size] - 48:
            return REJECT
    return REJECT if len(set(digits)) == 1 else _by_grouping(value)


def br_cnpj(value: bytes, _left: str) -> Verdict:
    """Judge a Brazilian CNPJ by its two modulus-11 digits (Receita Federal)."""
    digits = _digits(value)
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    for size in (12, 13):
        rest = weighted(digits[:size], weights[13 - size :]) % 11
        if (0 if rest < 2 else 11 - rest) != digits[size] - 48:
            return REJECT
    return _by_grouping(value)


def ca_sin(value: bytes, left: str) -> Verdict:
    """Judge a Canadian social insurance number: Luhn, and no number starts with 0 or 8.

    One in ten numbers passes, and ``sin`` is a word: only a label right before the number counts.
    """
    digits = _digits(value)
    return _by_label(_SIN, left) if digits[:1] not in b"08" and luhn(digits) else REJECT


def au_tfn(value: bytes, left: str) -> Verdict:
    """Judge an Australian tax file number of nine digits: the weighted sum is a multiple of 11."""
    return _by_label(_TFN, left) if weighted(_digits(value), (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0 else REJECT


def in_aadhaar(value: bytes, _left: str) -> Verdict:
    """Judge an Indian Aadhaar number: Verhoeff, and none starts with 0 or 1 (UIDAI)."""
    digits = _digits(value)
    return WEAK if digits[:1] not in b"01" and verhoeff(digits) else REJECT


def pl_pesel(value: bytes, _left: str) -> Verdict:
    """Judge a Polish PESEL: date of birth with the century in the month, and check digit."""
    digits = _digits(value)
    century, month = divmod(int(digits[2:4]), 20)
    year = (1900, 2000, 2100, 2200, 1800)[century] + int(digits[:2])
    check = -weighted(digits[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10
    return WEAK if check == digits[10] - 48 and _is_date(year, month, int(digits[4:6])) else REJECT


def se_personnummer(value: bytes, _left: str) -> Verdict:
    """Judge a Swedish personal number: date (coordination numbers add 60 to the day) and Luhn."""
    digits = _digits(value)[-10:]
    day = int(digits[4:6])
    dated = any(_is_date(c + int(digits[:2]), int(digits[2:4]), day - 60 * (day > 60)) for c in (1900, 2000))
    return _by_grouping(value) if dated and luhn(digits) else REJECT


def fi_hetu(value: bytes, _left: str) -> Verdict:
    """Judge a Finnish personal identity code by its check character: date and individual number modulo 31."""
    code = value.upper()
    dated = any(_is_date(c + int(code[4:6]), int(code[2:4]), int(code[:2])) for c in (1800, 1900, 2000))
    passes = b"0123456789ABCDEFHJKLMNPRSTUVWXY"[int(code[:6] + code[7:10]) % 31] == code[10]
    return MEDIUM if dated and passes else REJECT


def ch_ahv(value: bytes, _left: str) -> Verdict:
    """Judge a Swiss social security number: 756 and the EAN-13 check digit."""
    digits = _digits(value)
    check = -weighted(digits[:12], (1, 3) * 6) % 10
    return _by_grouping(value) if check == digits[12] - 48 else REJECT


def vin(value: bytes, _left: str) -> Verdict:
    """Judge a vehicle identification number (ISO 3779); the check digit binds in North America (49 CFR 565)."""
    symbols = value.upper()
    values = bytes.maketrans(b"ABCDEFGHJKLMNPRSTUVWXYZ", b"12345678123457923456789")
    total = weighted(symbols.translate(values), (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2))
    if symbols.isalpha() or symbols.isdigit():
        return REJECT
    if symbols[8] == b"0123456789X"[total % 11]:
        return Verdict(Outcome.WEAK)
    return REJECT if symbols[:1] in b"12345" else ABSTAIN


def imei(value: bytes, _left: str) -> Verdict:
    """Judge an IMEI: 15 digits that pass Luhn (3GPP TS 23.003, annex B)."""
    return WEAK if luhn(_digits(value)) else REJECT


def aba_routing(value: bytes, _left: str) -> Verdict:
    """Judge a US bank routing number: weights 3, 7, 1, and a first pair that is assigned."""
    pair = int(value[:2])
    assigned = pair <= 12 or 21 <= pair <= 32 or 61 <= pair <= 72 or pair == 80
    return WEAK if assigned and int(value) and weighted(value, (3, 7, 1) * 3) % 10 == 0 else REJECT


def us_mbi(value: bytes, _left: str) -> Verdict:
    """Judge a Medicare beneficiary identifier, which has no check digit: with its dashes it needs no context."""
    return Verdict(Outcome.ABSTAIN, bonus=0.25) if value.count(b"-") == 2 else ABSTAIN


def us_dea(value: bytes, _left: str) -> Verdict:
    """Judge a registration number of the Drug Enforcement Administration by its check digit."""
    digits = _digits(value[2:])
    return ABSTAIN if weighted(digits[:6], (1, 2) * 3) % 10 == digits[6] - 48 else REJECT


def sg_nric(value: bytes, _left: str) -> Verdict:
    """Judge a Singapore NRIC or FIN by its letter; that of the series M is not published."""
    series = {b"T": b"S", b"G": b"F"}.get(value[:1], value[:1])
    added = {b"T": 4, b"G": 4, b"M": 3}.get(value[:1], 0)
    letter = _NRIC_LETTERS[series][(weighted(value[1:8], (2, 7, 6, 5, 4, 3, 2)) + added) % 11]
    if letter == value[8]:
        return MEDIUM
    return ABSTAIN if series == b"M" else REJECT


def au_abn(value: bytes, _left: str) -> Verdict:
    """Judge an Australian business number (11 digits, modulus 89) or company number (9 digits, modulus 10)."""
    digits = _digits(value)
    if len(digits) == 9:
        return ABSTAIN if -weighted(digits[:8], range(8, 0, -1)) % 10 == digits[8] - 48 else REJECT
    total = weighted(digits, (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) - 10  # the first digit counts one less
    return ABSTAIN if total % 89 == 0 else REJECT


def it_partita_iva(value: bytes, _left: str) -> Verdict:
    """Judge an Italian VAT number: Luhn over eleven digits."""
    return ABSTAIN if luhn(value) and int(value) else REJECT


def mx_rfc(value: bytes, _left: str) -> Verdict:
    """Judge a Mexican tax code by the date in it: of birth, or of a company's founding."""
    year, month, day = (int(pair) for pair in re.findall(rb"[0-9]{2}", re.sub(rb"\A[^0-9]*", b"", value))[:3])
    return ABSTAIN if any(_is_date(century + year, month, day) for century in (1900, 2000)) else REJECT


def kr_rrn(value: bytes, _left: str) -> Verdict:
    """Judge a Korean resident number: a date of birth whose century the seventh digit tells, and a check digit.

    Numbers given out since October 2020 have none (Ministry of the Interior and Safety), so a wrong one proves nothing.
    Foreigners' check digits are two more.
    """
    digits = _digits(value)
    century = {**dict.fromkeys(b"1256", 1900), **dict.fromkeys(b"3478", 2000)}.get(digits[6])
    if century is None or not _is_date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6])):
        return REJECT
    rest = weighted(digits[:12], (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11
    check = (11 + 2 * (digits[6] in b"5678") - rest) % 10
    return MEDIUM if check == digits[12] - 48 else ABSTAIN


def tr_tckn(value: bytes, _left: str) -> Verdict:
    """Judge a Turkish identity number by its two check digits (General Directorate of Population)."""
    digits = [byte - 48 for byte in value]
    tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
    return WEAK if tenth == digits[9] and sum(digits[:10]) % 10 == digits[10] else REJECT


def za_id(value: bytes, _left: str) -> Verdict:
    """Judge a South African identity number: date of birth, citizenship 0 to 2, Luhn (Home Affairs)."""
    digits = _digits(value)
    dated = any(_is_date(c + int(digits[:2]), int(digits[2:4]), int(digits[4:6])) for c in (1900, 2000))
    return WEAK if dated and digits[10] in b"012" and luhn(digits) else REJECT


def cn_ric(value: bytes, _left: str) -> Verdict:
    """Judge a Chinese identity number: province, date of birth, check by ISO 7064 MOD 11-2 (GB 11643-1999)."""
    code = value.upper()
    dated = 1900 <= int(code[6:10]) <= 2099 and _is_date(int(code[6:10]), int(code[10:12]), int(code[12:14]))
    rest = weighted(code[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11
    return MEDIUM if dated and _PROVINCES.match(code) and b"10X98765432"[rest] == code[17] else REJECT


def no_fnr(value: bytes, _left: str) -> Verdict:
    """Judge a Norwegian birth number: date, whose century the next digits tell, and two modulus-11 digits.

    A D-number adds 40 to the day (Skatteetaten).
    """
    digits = _digits(value)
    day, month, year = (int(digits[place : place + 2]) for place in (0, 2, 4))
    series = int(digits[6:9])
    if series < 500 or (series >= 900 and year >= 40):
        century = 1900
    elif year < 40:
        century = 2000
    elif series < 750 and year >= 54:
        century = 1800
    else:
        return REJECT
    first = weighted(digits[:10], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
    second = weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11
    return WEAK if first == second == 0 and _is_date(century + year, month, day - 40 * (day > 40)) else REJECT


def dk_cpr(value: bytes, _left: str) -> Verdict:
    """Judge a Danish personal number by its date: since 2007 there are numbers that fail the modulus-11 check."""
    digits = _digits(value)
    day, month, year = (int(digits[place : place + 2]) for place in (0, 2, 4))
    dated = any(_is_date(century + year, month, day) for century in (1800, 1900, 2000))
    return ABSTAIN if dated else REJECT
