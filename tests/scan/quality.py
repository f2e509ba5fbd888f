"""Labelled sets in many styles, for measuring what the shipped pack finds: templates of our own, values of Faker.

A template's slots name a kind (``{email}``) and perhaps a form of it (``{ip-address.v6}``), or a value that must stay silent (``{!uuid}``). Templates, locales and
seeds of the ``held-out`` half were never looked at while rules were written.
"""

# ruff: noqa: E501 - a template or a list of values is easier to read on one line

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faker import Faker

from stanch.scan.examples import ExampleMaker

_SLOT = re.compile(r"\{(!?[a-z0-9.-]+)\}")
LOCALES = {
    "tuned": ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES"),
    "held-out": ("en_US", "it_IT", "nl_NL", "pt_PT", "de_AT"),
}


@dataclass(frozen=True)
class Plant:
    """A planted value and its span."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Sample:
    """One text of a style, and what was planted in it; ``secret`` says whether its line holds a secret at all."""

    style: str
    text: str
    plants: tuple[Plant, ...]


TEMPLATES: dict[str, dict[str, list[str]]] = {
    "mail": {
        "tuned": [
            "Hi team,\nmy name is {person} and I can be reached at {email} or {phone}. The order {!order} never came.\nThanks,\n{person}",
            "Sehr geehrte Damen und Herren,\nich bin {person}, geboren am {date-of-birth}. Bitte rufen Sie mich unter der Telefonnummer {phone} an.\nMit freundlichen Grüßen\n{person}",
            "Bonjour,\nje m'appelle {person}. Mon IBAN est {iban} et mon adresse est {postal-address}.\nCordialement,\n{person}",
            "Hola, me llamo {person} y mi correo es {email}. Mi DNI es {es-dni}. El pedido {!order} no ha llegado.",
            "Dear {person}, we charged your card {payment-card} on {!date}. Your ticket is {!ticket}.",
            "Please update my social security number to {us-ssn} and ship everything to {postal-address}.",
            "The login from {ip-address} was not me. My username is {username}, change it please.",
            "> Please send the parcel to\n> {postal-address.lines}\n> and bill my cc {payment-card} exp 09/31.",
            "Hi {person},\nmy social security number is {us-ssn.dotted}, D.O.B. {date-of-birth}. Order {!order}.",
        ],
        "held-out": [
            "Good morning, this is {person}. You can email {email} about invoice {!order} or phone {phone} after five.",
            "Gentile servizio clienti, mi chiamo {person}, il mio codice fiscale è {it-codice-fiscale} e il cellulare {phone}.",
            "Geachte heer, mijn naam is {person}. Mijn BSN is {nl-bsn} en mijn rekeningnummer {iban}.",
            "Olá, meu nome é {person}, o meu email é {email}. O CPF é {br-cpf}.",
            "I was born on {date-of-birth} and my passport number is {passport-number}. Regards, {person}",
            "Refund it to {iban} or to my Visa {payment-card}; reference {!ticket}, tracking {!tracking}.",
            "We moved! Our new address:\n{postal-address.lines}\nYou can reach us at the office: {phone}.",
        ],
    },
    "chat": {
        "tuned": [
            "user: hey can you call me on {phone}?\nagent: sure, is {email} still right?\nuser: yes",
            "A: did {person} send the report v{!version}?\nB: yes, commit {!sha}",
            "me: my password is {password}\nbot: never share it\nme: ok, and my card is {payment-card}",
            "a: my name is {person.small}, mi dni es {es-dni.small}\nb: and you live in {postal-address.city}? PIN {pin-code} was sent, plate {license-plate}",
            "A: what is the server ip? B: {ip-address}, mac {mac-address}",
        ],
        "held-out": [
            "customer: it's {person}, dob {date-of-birth}, ssn {us-ssn}\nagent: thank you, let me look up case {!ticket}",
            "x: wallet is {crypto-address}\ny: sent, trace {!uuid}",
            "guest: text me at {phone} or write {email}\nhost: will do, room 412, isbn {!isbn}",
        ],
    },
    "form": {
        "tuned": [
            "First name: {person}\nE-mail: {email}\nPhone: {phone}\nDate of birth: {date-of-birth}\nCompany: Acme Ltd\nJob title: Engineer",
            "Vorname: {person}\nTelefon: {phone}\nAnschrift: {postal-address}\nIBAN: {iban}\nKundentyp: Standard",
            "Full name: {person}\nAddress: {postal-address}\nSSN: {us-ssn}\nVIN: {vehicle-vin}\nReference: {!ticket}",
            "Username: {username}\nPassword: {password}\nIP address: {ip-address}\nBrowser: {!version}",
            "TC Kimlik No: {tr-tckn}\nRRN: {kr-rrn}\nfødselsnummer: {no-fnr}\nCPR-nummer {dk-cpr}\nSA ID number: {za-id}\n身份证号 {cn-ric}",
            "ID card number: {national-id}\nDriver's license: {driving-licence}\nSocial Security Number: {us-ssn.plain}\nIP: {ip-address.v6}\nEthereum: {crypto-address.eth}",
        ],
        "held-out": [
            "Surname: {person}\nMobile: {phone}\nCard number: {payment-card}\nCVV: {card-security-code}\nOrder: {!order}",
            "Cognome: {person}\nTelefono: {phone}\nCodice fiscale: {it-codice-fiscale}\nPrivato: no",
            "Patient name: {person}\nNHS number: {uk-nhs}\nDOB: {date-of-birth}\nWard: North 4",
            "Licence holder: yes\nDriving licence: {driving-licence}\nNational ID: {national-id}\nIPv6: {ip-address.v6}\nPage: {!number}",
        ],
    },
    "json": {
        "tuned": [
            '{"first_name": "{person}", "email": "{email}", "phone": "{phone}", "id": "{!uuid}", "created": "{!timestamp}"}',
            '{"card_number": "{payment-card}", "iban": "{iban}", "ip": "{ip-address}", "etag": "{!sha}"}',
        ],
        "held-out": [
            '{"user": {"last_name": "{person}", "ssn": "{us-ssn}", "dob": "{date-of-birth}"}, "request_id": "{!uuid}"}',
            '{"client_ip": "{ip-address}", "mac": "{mac-address}", "vin": "{vehicle-vin}", "sha256": "{!sha256}"}',
        ],
    },
    "csv": {
        "tuned": [
            "id,name,email,phone\n{!number},{person},{email},{phone}\n{!number},{person},{email},{phone}",
            "date;iban;bic\n{!date};{iban};COBADEFFXXX",
        ],
        "held-out": [
            "ts,ip,email\n{!timestamp},{ip-address},{email}\n{!timestamp},{ip-address},{email}",
            "name,ssn,iban\n{person},{us-ssn},{iban}",
        ],
    },
    "log": {
        "tuned": [
            '{ip-address} - - [10/Oct/2023:13:55:36 +0000] "GET /v{!version}/items/{!number} HTTP/1.1" 200 2326',
            "{!timestamp} INFO auth user login ok email={email} session={!uuid} took 12.5ms",
        ],
        "held-out": [
            "{!timestamp} WARN sshd[{!number}]: Failed password for root from {ip-address} port 52110 ssh2",
            "{!timestamp} ERROR mail bounce to <{email}> queue={!sha} size=10233",
        ],
    },
    "markup": {
        "tuned": [
            "<applicant><last_name>{person}</last_name><passport>{passport-number}</passport></applicant>",
        ],
        "held-out": [
            "**Passport:** {passport-number}\n**Identity card:** {national-id}\n**Date of birth:** {date-of-birth}\n**Status:** open",
            "<user><ssn>{us-ssn}</ssn><driver_license>{driving-licence}</driver_license><status>active</status></user>",
        ],
    },
    "negative": {
        "tuned": [
            "Bump requests from 2.28.1 to {!version}, see commit {!sha} and issue 4711.",
            "The parcel {!tracking} left on {!date}; invoice {!order}, ISBN {!isbn}.",
            "Marketing Director at Northwind Traders, Sales Department, Quarterly Review on Monday.",
            "integrity sha512-{!sri}== resolved https://registry.npmjs.org/left-pad/-/left-pad-{!version}.tgz",
            "for i in range(0, {!number}): total += values[i] * 3.14159265 # see PEP 8",
            "Running step {!number}/2000 loss=0.{!number} lr=3e-4 uuid {!uuid}",
            "{Address: 0x4a06d1, File: {!number}} requests_to_handle = tasks_2, OID 1.3.6.1.4.1, Copyright (c) 2011-2019, contact us.",
            "0000:0080 4c01 0200 5512 call the loader; a service called Kubernetes; sin({!order}); James URL Wilson",
        ],
        "held-out": [
            "Serial {!tracking} of model X-200, build {!version}, checksum {!sha256}.",
            "The United States and New Zealand signed the Paris Agreement in December 2015.",
            "localhost 127.0.0.1 and 192.168.0.14 answer on port 8080; docs at 2001:db8::1.",
            "Meeting at 10:30 in Conference Room B, agenda item {!number}, deadline {!date}.",
            "SELECT id, created_at FROM orders WHERE id = {!number} AND token = '{!uuid}';",
            "rng = default_rng({!card})  # exp, pay, charge; true: True; keyUsage 2.5.29.15; see file b/{!order}",
        ],
    },
}

SECRET_TEMPLATES = {
    "tuned": [
        'API_KEY = "{}"', "export SERVICE_TOKEN={}", "  secret_key: {}", '"clientSecret": "{}",', "db.password={}",
        "ENV AUTH_TOKEN {}", 'const apiKey = "{}";', 'headers = {"Authorization": "Bearer {}"}', "<password>{}</password>",
        "curl -k \\\n  -H 'Accept: */*' \\\n  --user='ops:{}' https://db.internal", 'System.setProperty("REPO_TOKEN", "{}")',
        '{{"app.env": "CACHE_TOKEN={}\\nDEBUG=1"}}', "<buildToken>\n  {}\n</buildToken>", '\\"deployToken\\": \\"{}\\"',
        "CI_TOKEN ?= {}", '-H "Authorization: Token {}"', "callback?access_token={}&state=7",
        'var acmeToken string = "{}"', "- name: ACME_TOKEN\n  value: {}", "deploy --acme-token {}", 'sentry_key = "{}"',
    ],
    "held-out": [
        "STRIPE_SECRET={}", 'private static final String ACCESS_TOKEN = "{}";', "signing-secret: '{}'",
        'variable "db_password" { default = "{}" }'.replace("{ default", "{{ default").replace('" }', '" }}'),
        'password: "{}"', "curl -H 'X-Api-Key: {}' https://api.internal/v1", "token={}", "$config['secret'] = '{}';",
        'if (apiKey === "{}") {{ run(); }}', 'putenv("VENDOR_API_KEY", "{}");', '$apiToken .= "{}";', "creds => '{}'",
        "machine pkg.internal login ci password {}", "curl -s \\\n -u 'ci':\"{}\" https://repo", "<secret>\n\t{}\n</secret>",
        '{{"compose": "DB_PASSWORD={}\\nTZ=UTC"}}', "--header 'Authorization: Api-Token {}'",
    ],
}  # fmt: skip
SECRET_VALUES = ["{A62:32}", "{hex:32}", "{A62:24}", "{b64url:43}", "{hex:40}", "{A62:12}x7!{A62:3}", "{a36:28}"]
TOKEN_LINES = [
    "use ghp_{A62:30}{crc62} here", "xoxb-{d:12}-{d:13}-{A62:24}", "sk_live_{A62:24}", "AKIA{b32:16}", "glpat-{A62:20}",
    "hf_{A62:34}", "SG.{A62:22}.{A62:43}", "dop_v1_{hex:64}", "AIza{A62:35}", "npm_{A62:30}{crc62}", "r8_{A62:37}",
    "postgres://svc:{A62:16}@db.internal:5432/main", "{jwt}", "shpat_{hex:32}", "{d:10}:AA{A62:33}", "{age}",
    "-----BEGIN RSA PRIVATE KEY-----\n{b64:64}\n{b64:64}", "Authorization: Basic {basic}", "pypi-{pypi}{b64url:90}",
    "ABIA{b32:16}", "pubkey-{hex:32}", "pk.{a36:60}.{a36:22}", "access-sandbox-{hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}",
    "HEROKU_API_KEY={hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}", "kind: Secret\nmetadata:\n  name: a\ndata:\n  key: {b64:24}\n",
    "pw: {A62:6}#4xQ", "비밀번호: {A62:7}4xQ", 'password = "seven copper lanterns"', 'passphrase: "grumbold!"',
]  # fmt: skip
SECRET_NEGATIVES = {
    "tuned": [
        "password = os.environ['DB_PASSWORD']", "token: ${{ secrets.GITHUB_TOKEN }}", "api_key = get_api_key(config)",
        "password: str | None = None", "AWS_KEY = AKIAIOSFODNN7EXAMPLE", "secret: your-secret-here", "commit {hex:40}",
        '"integrity": "sha512-{b64:86}=="', "etag: {hex:32}", "id = {hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}",
        "token_type = 'bearer'", "data:image/png;base64,{b64:160}", "ghp_{A62:36}", "password = changeme", "PASSWORD=********",
        "curl -u test:test https://x.internal", "csrf_token = '{A62:40}'", 'passwordLabel = "Enter your password"',
        'auth_algorithm = "AWS4-HMAC-SHA256"', "secrets.choice('abcdefghijklmnopqrstuvwxyz0123456789')",
        '<input name="csrf_token" value="{A62:32}">', "github://acme:widgets7@main/docs/a.md",
        "secret: V2VaultSecretSource", "machine h login u password letter", "next_page_token: '{A62:32}'",
    ],
    "held-out": [
        "self.password = password", "const token = await fetchToken(user.id)", "secretName: my-app-tls-secret",
        "passwordField.setText(getString(R.string.hint))", "api_key: {{ vault_api_key }}", "TOKEN=<paste your token>",
        "image: nginx@sha256:{hex:64}", "X-Request-Id: {hex:32}", "tokenizer = AutoTokenizer.from_pretrained(name)",
        "npm_{A62:36}", "public_key: {b64:44}", "if (password.length < 12) return false;", "md5sum {hex:32}  file.iso",
        "access_token_url = 'https://auth.internal/oauth/token'", "def test_password_reset_token(client):",
        "curl --user me:[SECRET] https://x.internal", 'publicToken: "{A62:43}"', "xsrf-token={b64:44}",
        'password: "please choose a longer one"', "SECRET_KEY_NAME = 'ORION-MAIN-SIGNING-KEY'", "token_uri: urn:ietf:wg:oauth:2.0:oob:auto",
        "kind: ConfigMap\ndata:\n  word: {b64:24}\n", "password: ${DB_PASSWORD:-}", 'curl -u "$CI_USER:$CI_PASS" https://x',
    ],
}  # fmt: skip


STREETS = ("Otter", "Juniper", "Old Mill", "Harbison", "Kestrel", "St. Anne")
SUFFIXES = ("Street", "Causeway", "Stravenue", "Manors", "Fork", "Trafficway", "Ridge", "Knolls")


class Values:
    """Makes values of every kind for one locale and seed."""

    def __init__(self, locale: str, seed: int) -> None:
        self._faker = Faker(locale, use_weighting=False)
        self._faker.seed_instance(seed)
        self._rng = random.Random(seed)
        self._maker = ExampleMaker(f"{locale}/{seed}")
        self._english = locale == "en_US"

    def make(self, name: str) -> str:
        """Return a value for a slot."""
        faker, rng, fill = self._faker, self._rng, self._maker.fill
        makers: dict[str, Callable[[], str]] = {
            "person": lambda: f"{faker.first_name()} {faker.last_name()}",
            "email": faker.email,
            "phone": self._phone,
            "postal-address": lambda: faker.address().replace("\n", ", "),
            "date-of-birth": self._born,
            "payment-card": lambda: self._grouped(fill(rng.choice(["{luhn:453:16}", "{luhn:52:16}", "{luhn:37:15}"]))),
            "iban": lambda: fill(rng.choice(["{iban:DE}", "{iban:FR}", "{iban:NL}", "{iban:GB}", "{iban:ES}"])),
            "us-ssn": lambda: f"{rng.randint(101, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
            "ip-address": lambda: ".".join(str(rng.randint(33, 99)) for _ in range(4)),
            "mac-address": lambda: ":".join(f"{rng.randint(16, 255):02x}" for _ in range(6)),
            "username": lambda: f"{faker.first_name().split()[0].lower()}{rng.choice('._')}{rng.randint(10, 999)}".replace(" ", ""),
            "password": lambda: fill("{A62:7}") + rng.choice("!#%") + fill("{d:2}") + "Kz",
            "crypto-address": lambda: fill(rng.choice(["{btc}", "{bech32}"])),
            "crypto-address.eth": lambda: fill("0x{hex:40}"),
            "driving-licence": lambda: fill(rng.choice(["{A26:1}{d:7}", "{A26:5}{d:6}{A26:2}{d:1}{A26:2}", "{A26:4}.{d:6}.{d:3}"])),
            "ip-address.v6": lambda: ":".join(f"{rng.randint(0x1000, 0xFBFF):x}" for _ in range(8)),
            "national-id": lambda: fill(rng.choice(["{A26:2}{d:6}{A26:1}", "{d:9}{A26:1}", "{A26:3}{d:6}"])),
            "postal-address.lines": self._lines,
            "us-ssn.dotted": lambda: f"{rng.randint(101, 665)}.{rng.randint(10, 99)}.{rng.randint(1000, 9999)}",
            "us-ssn.plain": lambda: f"{rng.randint(101, 665)}{rng.randint(10, 99)}{rng.randint(1000, 9999)}",
            "!card": lambda: fill("{luhn:453:16}"),
            "passport-number": lambda: fill("{A26:1}{d:8}"),
            "person.small": lambda: self.make("person").lower(), "es-dni.small": lambda: fill("{dni}").lower(),
            "postal-address.city": lambda: rng.choice(["North Benton", "Ellisport", "Lake Marden", "Ostrander"]),
            "pin-code": lambda: fill("{d:4}"), "license-plate": lambda: fill("{A26:2}{d:2}{A26:3}"),
            "tr-tckn": lambda: fill("{tckn}"), "kr-rrn": lambda: fill("{rrn}"), "no-fnr": lambda: fill("{fnr}"),
            "dk-cpr": lambda: fill("{cpr}"), "za-id": lambda: fill("{zaid}"), "cn-ric": lambda: fill("{ric}"),
            "card-security-code": lambda: str(rng.randint(100, 999)),
            "vehicle-vin": lambda: fill("{vin}"), "es-dni": lambda: fill("{dni}"), "nl-bsn": lambda: fill("{bsn}"),
            "it-codice-fiscale": lambda: fill("{cf}"), "br-cpf": lambda: fill("{cpf}"), "uk-nhs": lambda: fill("{nhs}"),
            "!order": lambda: fill("{d:9}"), "!ticket": lambda: fill("CS-{d:7}"), "!tracking": lambda: fill("{d:18}"),
            "!sha": lambda: fill("{hex:40}"), "!sha256": lambda: fill("{hex:64}"), "!sri": lambda: fill("{b64:86}"),
            "!uuid": faker.uuid4, "!isbn": lambda: "978-3-16-148410-0", "!number": lambda: fill("{d:5}"),
            "!version": lambda: f"{rng.randint(0, 20)}.{rng.randint(0, 30)}.{rng.randint(0, 99)}",
            "!date": lambda: f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
            "!timestamp": lambda: f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T10:{rng.randint(10, 59)}:07.123Z",
        }  # fmt: skip
        return makers[name]()

    def _phone(self) -> str:
        if not self._english:
            return self._faker.phone_number()
        line = f"{self._rng.randint(201, 989)}-{self._rng.randint(201, 989)}-{self._rng.randint(1000, 9999)}"
        return self._rng.choice(
            [
                line,
                f"({line[:3]}) {line[4:]}",
                f"+1-{line}",
                line.replace("-", "."),
                f"{line}x{self._rng.randint(10, 999)}",
            ]
        )

    def _lines(self) -> str:
        """Return an address of the United States in two or three lines."""
        rng, city = self._rng, self._rng.choice(["North Benton", "Ellisport", "Lake Marden", "Ostrander"])
        street = f"{rng.randint(1, 99999)} {rng.choice(STREETS)} {rng.choice(SUFFIXES)}"
        unit = rng.choice(["", f" Apt. {rng.randint(1, 999)}", f"\nSuite {rng.randint(1, 999)}"])
        return f"{street}{unit}\n{city}, {rng.choice(['MT', 'OH', 'WA', 'GA'])} {rng.randint(10000, 99999)}"

    def _born(self) -> str:
        date = self._faker.date_of_birth(minimum_age=18, maximum_age=90)
        return self._rng.choice(
            [f"{date:%Y-%m-%d}", f"{date:%d/%m/%Y}", f"{date:%d.%m.%Y}", f"{date:%B} {date.day}, {date.year}"]
        )

    def _grouped(self, card: str) -> str:
        if len(card) == 16 and self._rng.random() < 0.5:
            return " ".join(card[at : at + 4] for at in range(0, 16, 4))
        return card


def personal(half: str, rounds: int) -> Iterator[Sample]:
    """Yield samples of all styles; ``half`` is ``tuned`` or ``held-out``."""
    for number, locale in enumerate(LOCALES[half]):
        values = Values(locale, 1000 * (half == "tuned") + number)
        for _ in range(rounds):
            for style, halves in TEMPLATES.items():
                for template in halves[half]:
                    yield _fill(style, template, values)


def _fill(style: str, template: str, values: Values) -> Sample:
    text, plants, last = "", [], 0
    for match in _SLOT.finditer(template):
        text += template[last : match.start()]
        value = values.make(match[1])
        if not match[1].startswith("!"):
            plants.append(Plant(match[1].partition(".")[0], len(text), len(text) + len(value)))
        text, last = text + value, match.end()
    return Sample(style, text + template[last:], tuple(plants))


def secrets(half: str, rounds: int) -> Iterator[tuple[str, bool]]:
    """Yield lines, and whether each holds a secret."""
    maker = ExampleMaker(f"secrets/{half}")
    for _ in range(rounds):
        for template in SECRET_TEMPLATES[half]:
            for value in SECRET_VALUES:
                yield template.replace("{{", "{").replace("}}", "}").replace("{}", maker.fill(value)), True
        for line in TOKEN_LINES:
            yield maker.fill(line), True
        for line in SECRET_NEGATIVES[half]:
            yield maker.fill(line), False
