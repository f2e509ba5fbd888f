"""Write ``src/stanch/scan/packs/names.bin``: names of people and ordinary words, as digests.

Names come from the person providers of Faker's locales (MIT), from the locales of the npm package ``@faker-js/faker``
(MIT), unpacked at FAKER_JS and read by ``node``, and from the 1990 census lists of the United States (public domain) as
the package ``names`` carries them, unpacked at CENSUS. Words come from the list below and from Faker's text providers.
Needs ``faker`` (extra ``demo``). Run with::

    python tools/make_gazetteer.py CENSUS FAKER_JS [OUT]
"""

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import faker.providers.person

from stanch.scan import fold_text
from stanch.scan.validators.names import MAGIC, name_digest

CAPITALS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TARGET = Path(__file__).resolve().parents[1] / "src/stanch/scan/packs/names.bin"
WORD_LOCALES = ("en_US", "de_DE", "fr_FR", "it_IT", "nl_NL")
FAKER_JS = """
import {allLocales} from %s;
const all = (names) => names ? (Array.isArray(names) ? names : Object.values(names).flat()) : [];
const people = Object.values(allLocales).map((locale) => locale.person ?? {});
const lists = {
  given: people.flatMap((person) => [...all(person.first_name), ...all(person.middle_name)]),
  family: people.flatMap((person) => all(person.last_name)),
};
process.stdout.write(JSON.stringify(lists));
"""
# Given names that texts in English use as words, or programs as names: counted in documentation on a Debian system.
NO_GIVEN_NAMES = """
the to that name arch even due valid trace honor general param pie skipped prune unique si cat abi di come idea du baz
aren gui fine au haven among alone da ca bindir co nil flip ban cam serif green edd tru sim brown ho dies atlas ece ant
avar ace vo liga asan pax elide ke judge blue dalla fedora bars bang ak sa pip esi edi dam ay som ba anal loc libero ala
thai rover parfait gray aster ton sef promise phi nine mine bear typ samba egmont bac aba tin sy sister shade secondo
san salvo ly ky ino dal blessing beg deep as add case doc branch tab run skip var minor link made true less unknown
early prior reason math author emit little colon hence bot press media te beta rand conn worth tui roll dis ran versa
disa fed ab harden con tex ninja french red cap anon unnamed wayland friend sad ceil hunt handy nail fancy
wing bunk steward sing ver ork mat rice ah chip lua ico solver macs elder delle ras raid marshal leaner essence victory
theta orn innocent
banks west cuba iana armenia africa asia europe egypt israel china kenya malta vienna ast zeta valves pleasant melbourne
gang columbia cadence vital uni storm sky peace orange newt berlin arra dax
"""
FAMILY_NAMES = 40_000
"""How many of the most frequent family names of the census are taken."""

# Words that often stand capitalised and are no evidence for a name: openers, salutations, months, places, trades.
WORDS = """
a about account actually after all also although am american an and any apr april are as ask at aug august
australian austrian avenue bank be because before best bill british but by call canadian card case center
central chat city client company contact could court customer data day dear dec december department did do
does drive during each east email english european every faq feb february finance first for france french
friday from general german germany good great group has have he hello help here hey hi high hill his hotline
how however i if in india indian international invoice is it italian italy its jan january jul july jun june
just kind king lake last late lane let limited london madam main manager mar march market may me member
mexican miss monday most mr mrs ms much my national new next no north not note nov november now number oct
october of office ok okay old on once one only or order our over paris park payment phone place platform
please point policy portal press price product project public re really receipt record refund regards
regarding report request return river road royal sales san saturday school second section security see
senior sep september service services shipping should signed since sincerely sir some sorry south spanish
square staff state station still street sunday support sure swiss system team technical thank thanks that
the their then there these they this those three thursday ticket to today tomorrow total tuesday turkish two
under union united university until update upon urgent us user very via was we website wednesday week
welcome well west what when where which while who why will wish with world would year yes yesterday york you
your string str none null true false text char varchar optional value field list integer boolean object
undefined unknown required default sample test testing valued colleague colleagues everyone folks sirs guest
reader developer engineer director president minister chairman professor college institute hospital museum
library church airport hotel restaurant bridge tower valley beach island mountain ocean coast forest garden
house castle palace cathedral stadium theatre theater software hardware server database network python java
javascript linux windows android google microsoft apple amazon facebook twitter github gitlab docker
kubernetes oracle intel nvidia samsung sony internet api http json html xml sql error warning exception
class function method module package version release build file folder directory path input output admin
root northern southern eastern western upper lower inner outer grand saint mount fort port cape gulf bay
spring summer autumn winter morning evening night weekend holiday christmas easter der die das und oder
nicht ein eine mit von auf fuer den dem des ist sind war wir ihr sie er es im zum zur bei nach aus herr frau
damen herren kunde kunden sehr geehrte le la les un une et ou est sont avec pour dans sur par au aux du
clients madame monsieur bonjour merci el los las una unos con por para en del al son cliente clientes senor
senora hola gracias il lo gli uno per nel della clienti signore signora ciao grazie de het een van op te
voor met klant klanten heer mevrouw beste o os um uma com na dos senhor senhora ola obrigado i'm i'll i've
it's that's we're you're don't can't
islands republic kingdom emirates hong kong sierra leone mariana papua guinea verde rico lanka arabia faso zealand
"""


def folded(names: Iterable[str]) -> list[str]:
    """Return the single words of names as the scanner sees them."""
    return [word.decode() for name in names for word in fold_text(name).split() if len(word) > 1]


def faker_names() -> tuple[list[str], list[str]]:
    """Return given and family names of all of Faker's locales, those in Latin letters where a locale has both."""
    given: list[str] = []
    family: list[str] = []
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"{faker.providers.person.__name__}.{module.name}").Provider
        for attribute in dir(provider):
            names = getattr(provider, attribute)
            if "name" in attribute and isinstance(names, list | tuple | dict):
                # A name of Japan is a tuple: in both scripts, and in Latin letters.
                written = [form for name in names for form in (name if isinstance(name, tuple) else (name,))]
                given += written if attribute.startswith("first") else []
                family += written if attribute.startswith("last") else []
    return folded(given), folded(family)


def faker_js_names(package: Path) -> tuple[list[str], list[str]]:
    """Return given and family names of all locales of ``@faker-js/faker``."""
    source = FAKER_JS % json.dumps(str(package.resolve() / "dist/index.js"))
    command = ["node", "--input-type=module", "-e", source]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own text
    lists = json.loads(done.stdout)
    given, family = (folded(name for name in lists[key] if isinstance(name, str)) for key in ("given", "family"))
    return given, family


def census(path: Path, most: int) -> list[str]:
    """Return the first column of a census list, most frequent names first."""
    return [line.split()[0] for line in path.read_text().splitlines()[:most]]


def digests(words: Iterable[str]) -> list[bytes]:
    """Return the sorted, distinct digests of the words."""
    return sorted({name_digest(word) for word in words})


def main() -> None:
    """Write the gazetteer."""
    folder, package = map(Path, sys.argv[1:3])
    out = Path(sys.argv[3]) if len(sys.argv) > 3 else TARGET
    words, no_names = set(WORDS.split()), set(NO_GIVEN_NAMES.split())
    for locale in WORD_LOCALES:
        words.update(importlib.import_module(f"faker.providers.lorem.{locale}").Provider.word_list)
    given = census(folder / "dist.male.first", 1219) + census(folder / "dist.female.first", 4275)
    family = census(folder / "dist.all.last", FAMILY_NAMES)
    for more_given, more_family in (faker_names(), faker_js_names(package)):
        given += [name for name in more_given if name[0] in CAPITALS and name.lower() not in no_names]
        family += [name for name in more_family if name[0] in CAPITALS]
    lists = [digests(given), digests(family), digests(folded(words))]
    out.write_bytes(
        MAGIC
        + b"".join(len(names).to_bytes(4, "big") for names in lists)
        + b"".join(d for names in lists for d in names)
    )
    sys.stdout.write(f"{[len(names) for names in lists]}\n")


if __name__ == "__main__":
    main()
