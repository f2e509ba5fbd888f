"""Made-up values that belong to nobody: keyed, so that equal values get equal ones, and known again when met.

Sources of the ranges: RFC 2606 (domains), the North American Numbering Plan (555-0100 to 555-0199), Ofcom's numbers for
drama (020 7946 0000 to 0999), RFC 5737 and RFC 3849 (addresses), RFC 7042 (hardware addresses), the numbers 987-65-4320
to 4329 that the Social Security Administration keeps for advertisements, and the card networks' published test numbers.
An account has a bank code of zeros, a person a family name that nobody bears. The ranges are small, so two values may
get one made-up value. Secrets are never made up.
"""

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stanch.scan.canonical import canonical_value, label_name, pseudonym_digest
from stanch.scan.fold import fold_text

_GIVEN = [
    "Aaliyah",
    "Adam",
    "Aisha",
    "Alan",
    "Amelia",
    "Andre",
    "Anita",
    "Arthur",
    "Bella",
    "Bruno",
    "Carla",
    "Carmen",
    "Chen",
    "Clara",
    "Daniel",
    "David",
    "Diego",
    "Elena",
    "Elias",
    "Emma",
    "Erik",
    "Fatima",
    "Felix",
    "Grace",
    "Hanna",
    "Henry",
    "Hugo",
    "Ines",
    "Isaac",
    "Ivan",
    "Jamal",
    "Jana",
    "Joel",
    "Julia",
    "Karim",
    "Kenji",
    "Laila",
    "Lars",
    "Laura",
    "Leo",
    "Lucia",
    "Luis",
    "Maria",
    "Mark",
    "Maya",
    "Mei",
    "Milan",
    "Miriam",
    "Nadia",
    "Nora",
    "Olga",
    "Omar",
    "Oscar",
    "Paula",
    "Peter",
    "Priya",
    "Rosa",
    "Samuel",
    "Sara",
    "Sofia",
    "Tomas",
    "Vera",
    "Yusuf",
    "Zoe",
]
_FAMILY = tuple(
    head + tail
    for head in ("Averb", "Brivel", "Corvan", "Delmor", "Elvart", "Fenbris", "Gralven", "Hestor")
    for tail in ("wick", "stad", "mere", "ling", "garth", "combe", "ondo", "ette")
)
_AREAS = (
    "202",
    "206",
    "212",
    "303",
    "305",
    "312",
    "404",
    "415",
    "503",
    "512",
    "602",
    "617",
    "702",
    "713",
    "808",
    "907",
)
_CARDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "3": ("378282246310005", "371449635398431"),
        "4": ("4111111111111111", "4012888888881881"),
        "5": ("5555555555554444", "5105105105105100"),
        "6": ("6011111111111117", "6011000990139424"),
    }
)
_BANKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"AT": (20, 5), "CH": (21, 5), "DE": (22, 8), "ES": (24, 8), "FR": (27, 10), "PL": (28, 8)}
)
"""Length of a country's account numbers and of the bank code in them."""

_MAIL = re.compile(r"([a-z]+)\.([a-z]+)[0-9]{2}@example\.(?:com|net|org)")
_TELEPHONE = re.compile(rf"1?(?:{'|'.join(_AREAS)})55501[0-9]{{2}}|(?:44|0)2079460[0-9]{{3}}")
_NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)


class _Draws:
    """Successive numbers below given bounds, out of 256 keyed bits."""

    def __init__(self, seed: bytes) -> None:
        self._rest = int.from_bytes(hmac.digest(seed, b"stanch/fake/v1", "sha256"), "big")

    def below(self, bound: int) -> int:
        self._rest, number = divmod(self._rest, bound)
        return number

    def digits(self, count: int) -> str:
        return f"{self.below(10**count):0{count}}"

    def of(self, items: tuple[str, ...] | list[str]) -> str:
        return items[self.below(len(items))]


@dataclass(frozen=True, slots=True)
class Range:
    """How values of a kind are made up, and how one is known again."""

    make: Callable[[_Draws, str], str]
    owns: Callable[[str], bool]


def fake(key: bytes, kind: str, value: str) -> str:
    """Return the made-up value for a value of one of the kinds in ``FAKES``, in its layout where that fits."""
    folded = fold_text(value).decode("utf-8", "replace")
    draws = _Draws(pseudonym_digest(key, label_name(kind), canonical_value(kind, value)))
    return FAKES[kind].make(draws, folded)


def is_fake(kind: str, value: str) -> bool:
    """Tell whether ``fake`` can have written this value for that kind."""
    return FAKES[kind].owns(fold_text(value).decode("utf-8", "replace").strip())


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _in_layout(layout: str, symbols: str, wanted: str, otherwise: str) -> str:
    """Put ``symbols`` in the places of the ``wanted`` characters of a layout, or return the other form."""
    places = re.findall(wanted, layout)
    rest = iter(symbols)
    return re.sub(wanted, lambda _: next(rest), layout) if len(places) == len(symbols) else otherwise


def _mail(draws: _Draws, _value: str) -> str:
    name = f"{draws.of(_GIVEN)}.{draws.of(_FAMILY)}".lower()
    return f"{name}{draws.digits(2)}@example.{draws.of(['com', 'net', 'org'])}"


def _owns_mail(value: str) -> bool:
    match = _MAIL.fullmatch(value.lower())
    return match is not None and match[1].title() in _GIVEN and match[2].title() in _FAMILY


def _telephone(draws: _Draws, value: str) -> str:
    digits = _digits(value)
    if value.lstrip().startswith("+44") or digits.startswith("0"):
        last = draws.digits(3)
        number = f"442079460{last}" if digits.startswith("44") else f"02079460{last}"
        return _in_layout(value, number, "[0-9]", f"+44 20 7946 0{last}")
    area, last = draws.of(_AREAS), draws.digits(2)
    number = f"{area}55501{last}"
    if len(digits) == 11 and digits.startswith("1"):
        number = f"1{number}"
    return _in_layout(value, number, "[0-9]", f"+1 {area} 555 01{last}")


def _card(draws: _Draws, value: str) -> str:
    digits = _digits(value)
    number = draws.of(_CARDS.get(digits[:1], _CARDS["4"]))
    return _in_layout(value, number, "[0-9]", number)


def _account(draws: _Draws, value: str) -> str:
    compact = re.sub(r"[^0-9A-Z]", "", value.upper())
    country = compact[:2] if compact[:2] in _BANKS else "DE"
    size, bank = _BANKS[country]
    body = "0" * bank + draws.digits(size - 4 - bank)
    number = f"{country}{98 - _mod97(f'{body}{country}00'):02}{body}"
    spaced = " ".join(number[at : at + 4] for at in range(0, size, 4))
    return spaced if " " in value.strip() else number


def _owns_account(value: str) -> bool:
    compact = re.sub(r"[ -]", "", value.upper())
    size, bank = _BANKS.get(compact[:2], (0, 0))
    body = compact[4:]
    whole = len(compact) == size and compact[2:].isdigit() and body.startswith("0" * bank)
    return whole and _mod97(body + compact[:4]) == 1


def _mod97(text: str) -> int:
    return int("".join(str(int(symbol, 36)) for symbol in text)) % 97


def _security_number(draws: _Draws, value: str) -> str:
    number = f"98765432{draws.below(10)}"
    return _in_layout(value, number, "[0-9]", f"987-65-432{number[-1]}")


def _address(draws: _Draws, value: str) -> str:
    if ":" in value:
        return f"2001:db8::{draws.below(1 << 16):x}:{draws.below(1 << 16):x}"
    network = draws.of(["192.0.2", "198.51.100", "203.0.113"])
    return f"{network}.{draws.below(256)}"


def _owns_address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return any(address in network for network in _NETWORKS)


def _hardware(draws: _Draws, value: str) -> str:
    number = f"00005e0053{draws.below(256):02x}"
    number = number.upper() if value.upper() == value else number
    return _in_layout(value, number, "[0-9A-Fa-f]", "-".join(number[at : at + 2] for at in range(0, 12, 2)))


def _person(draws: _Draws, _value: str) -> str:
    return f"{draws.of(_GIVEN)} {draws.of(_FAMILY)}"


def _owns_person(value: str) -> bool:
    match value.split():
        case [given, family]:
            return given in _GIVEN and family in _FAMILY
    return False


FAKES: Mapping[str, Range] = MappingProxyType(
    {
        "email": Range(_mail, _owns_mail),
        "phone": Range(_telephone, lambda value: _TELEPHONE.fullmatch(_digits(value)) is not None),
        "payment-card": Range(_card, lambda value: any(_digits(value) in numbers for numbers in _CARDS.values())),
        "iban": Range(_account, _owns_account),
        "us-ssn": Range(_security_number, lambda value: _digits(value)[:8] == "98765432" and len(_digits(value)) == 9),
        "ip-address": Range(_address, _owns_address),
        "mac-address": Range(_hardware, lambda value: re.sub(r"[^0-9a-f]", "", value.lower())[:10] == "00005e0053"),
        "person": Range(_person, _owns_person),
    }
)
"""The kinds whose values can be made up."""
