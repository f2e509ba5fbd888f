"""Targets of the scan: rules, policies, dictionaries, the span index, the vault, and any text."""

import functools
import hmac
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fuzz_harness import Counting, QuickPassphrase, Target, as_file, corpus, scratch
from fuzz_means import INPUT, KEY, WRONG, own_identity

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.kdf import hkdf_sha256
from stanch.errors import VerificationError
from stanch.scan.adapters.gitleaks import parse_gitleaks
from stanch.scan.anchor import parse_anchor, parse_byte_set
from stanch.scan.dictionary import MAGIC as DICTIONARY_MAGIC
from stanch.scan.dictionary import Dictionary
from stanch.scan.hold import parse_hold
from stanch.scan.pack import parse_pack
from stanch.scan.policy import Policy
from stanch.scan.policy_bytes import PolicySecrets, policy_from_bytes, policy_to_bytes
from stanch.scan.policy_file import parse_policy
from stanch.scan.scanner import Scanner
from stanch.scan.spans.index import SpanIndex
from stanch.scan.spans.params import STANDARD
from stanch.scan.validators.names import MAGIC as NAMES_MAGIC
from stanch.scan.validators.names import Gazetteer, name_digest
from stanch.scan.vault import FORMAT as VAULT_FORMAT
from stanch.scan.vault import Vault, open_vault

# scan


PACK = b"""format: stanch-pack/1
name: ours
recognisers:
  - id: acme-token
    kind: acme-token
    version: 1
    family: secret
    anchor: "acme_"
    before: 5
    after: 20
    confirm: "acme_[a-z0-9]{16}"
    hold: "run:[a-z0-9_]:40"
    score: 0.9
    severity: high
    context: {near: [key], required: false}
    examples: ["acme_0123456789abcdef"]
    counterexamples: []
    source: {title: ours, url: "", read: never}
"""
POLICY = b"""format = "stanch/scan-policy/v1"
kinds = ["email"]
min_score = 0.6
[operators]
email = "label"
[keys]
report = "file:key"
[[dictionaries]]
file = "terms.dict"
severity = "high"
"""
GITLEAKS = b"""title = "ours"
[extend]
disabledRules = ["x"]
[allowlist]
regexes = ['''example''']
[[rules]]
id = "acme"
regex = '''acme_[a-z0-9]{16}'''
keywords = ["acme"]
entropy = 2.5
secretGroup = 0
[[rules.allowlists]]
condition = "AND"
regexTarget = "match"
regexes = ['''x+''']
stopwords = ["test"]
"""


def _parse_pack(data: bytes) -> object:
    return parse_pack(data, name="ours")


def _policy_bytes() -> bytes:
    return policy_to_bytes(Policy(recognisers=parse_pack(PACK, name="ours"), report_key=KEY))


def _policy_again(data: bytes) -> object:
    policy = policy_from_bytes(data, PolicySecrets(KEY))
    return policy.digest(), policy.kinds, policy.min_score


def _dictionary() -> bytes:
    path = scratch() / "terms.dict"
    Dictionary.build(["project falcon", "blue heron works"], key=KEY, label="terms").save(path)
    return path.read_bytes()


def _read_dictionary(data: bytes) -> object:
    found = Dictionary.parse(data, what="terms", key=KEY)
    return found.label, found.words, found.lengths, found.digests


def _read_coded_dictionary(data: bytes) -> object:
    """Read a dictionary of any body, with the right code behind it: what whoever holds the key could write."""
    body = DICTIONARY_MAGIC + data
    code = hmac.digest(hkdf_sha256(KEY, info=b"stanch/dict-mac/v1", length=32), body, "sha256")
    Dictionary.parse(body + code, what="terms", key=KEY).find("the project falcon is here")
    return None


def _span_index() -> SpanIndex:
    params = replace(STANDARD, boilerplate_after=5)
    return SpanIndex.build(["the quick brown fox jumps over the lazy dog " * 4], key=KEY, params=params)


@functools.cache
def _made_index() -> bytes:
    return _span_index().to_bytes()


def _read_index(data: bytes) -> object:
    found = SpanIndex.from_buffer(memoryview(data), KEY)
    return found.header, found.to_bytes()


def _read_coded_index(data: bytes) -> object:
    """Read an index whose header is ``data``, with the right code behind the file."""
    whole = corpus("span-index")[0]
    head = (whole[:8] + len(data).to_bytes(4, "little") + data)[:4096].ljust(4096, b"\x00")
    body = head + whole[4096:-32]
    salt = bytes.fromhex(str(parse_json(_header_of(whole), what="header")["salt"]))
    code = hmac.digest(hkdf_sha256(KEY, info=b"stanch/index-mac/v1", length=32, salt=salt), body, "sha256")
    return SpanIndex.from_buffer(memoryview(body + code), KEY).header


def _header_of(whole: bytes) -> bytes:
    return whole[12 : 12 + int.from_bytes(whole[8:12], "little")]


def _make_vault() -> Iterable[bytes]:
    path = scratch() / "made.vault"
    path.unlink(missing_ok=True)
    vault = Vault(path, [own_identity().recipient, QuickPassphrase("open", rng=Counting("vault"))], rng=Counting("box"))
    vault.add("email", "p1", "ana@example.org")
    vault.add("person", "p2", "Ana Diaz")
    vault.save()
    yield path.read_bytes()


def _open_vault(data: bytes) -> object:
    opened = open_vault(as_file(data, "x.vault"), own_identity())
    return {name: (kind, opened.reveal(name)) for name, kind in opened.kinds.items()}


def _open_coded_vault(data: bytes) -> object:
    """Open a vault with any entries and the right code behind them."""
    head = corpus("vault")[0].split(b"\n")[0]
    vault_id = bytes.fromhex(str(parse_json(head, what="header")["id"]))
    from stanch.crypto.stanza import BoundContext, Stanza  # noqa: PLC0415 - for this alone

    stanza = Stanza.from_json(parse_json(head, what="header")["stanzas"][0])
    root = own_identity().unwrap(stanza, BoundContext(vault_id, bytes(32), None, VAULT_FORMAT.encode(), ()))
    body = head + b"\n" + data + b"\n"
    code = hmac.digest(hkdf_sha256(root, info=b"stanch/vault/v1/mac", length=32), body, "sha256")
    return open_vault(as_file(body + canonical_json({"mac": code.hex()}) + b"\n", "y.vault"), own_identity()).kinds


@functools.cache
def _scanner() -> Scanner:
    scanner = Scanner(Policy(report_key=KEY))
    scanner.scan(" " * (1 << 16))  # the patterns for long texts are compiled with the first of them, once a machine
    return scanner


TEXT = (
    "Dear Ana Diaz, your key is AKIAIOSFODNN7EXAMPLE and eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U, mail ana@example.org, IBAN DE89370400440532013000, +49 30 901820, "
    "4111 1111 1111 1111, 2001:db8::1, -----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY-----, "
    "Basic dXNlcjpwYXNz"
)  # fmt: skip


def _gazetteer() -> bytes:
    digests = [sorted(name_digest(name) for name in names) for names in (("ana", "bo"), ("diaz",), ("the", "of"))]
    return NAMES_MAGIC + b"".join(len(d).to_bytes(4, "big") for d in digests) + b"".join(b"".join(d) for d in digests)


TARGETS = (
    Target(name="rule-pack", parser="stanch.scan.pack.parse_pack", reads="a rule pack", kind="plain", run=_parse_pack,
           refuses=INPUT, make=lambda: [PACK]),
    Target(name="gitleaks", parser="stanch.scan.adapters.gitleaks.parse_gitleaks", reads="a rule file of gitleaks",
           kind="plain", run=lambda data: parse_gitleaks(data, name="ours", scanned="src/a.py"), refuses=INPUT,
           make=lambda: [GITLEAKS]),
    Target(name="scan-policy", parser="stanch.scan.policy_file.parse_policy", reads="a scan policy", kind="plain",
           run=lambda data: parse_policy(Path("policy.toml"), data).document, refuses=INPUT, make=lambda: [POLICY]),
    Target(name="policy-bytes", parser="stanch.scan.policy_bytes.policy_from_bytes",
           reads="a policy that another process sent", kind="authentic", run=_policy_again, refuses=INPUT,
           make=lambda: [_policy_bytes()]),
    Target(name="anchor", parser="stanch.scan.anchor.parse_anchor", reads="the anchor of a rule", kind="plain",
           refuses=INPUT, run=lambda data: parse_anchor(data.decode("utf-8", "replace")),
           make=lambda: [b"acme_[a-z0-9]{3}", b"(?:ab|cd)x?", b"[^\\x00-\\x1f]\\.com"]),
    Target(name="byte-set", parser="stanch.scan.anchor.parse_byte_set", reads="the byte set of a rule", kind="plain",
           refuses=INPUT, run=lambda data: parse_byte_set(data.decode("utf-8", "replace")),
           make=lambda: [b"[a-z0-9_]", b"[^\\x00-\\x1f-]"]),
    Target(name="hold", parser="stanch.scan.hold.parse_hold", reads="how much a rule holds back", kind="plain",
           refuses=INPUT, run=lambda data: parse_hold(data.decode("utf-8", "replace")),
           make=lambda: [b"literal", b"run:[a-z]:40:[a-c]", b"capitals:60", b"swallow:[a-z]:end"]),
    Target(name="dictionary", parser="stanch.scan.dictionary.Dictionary.parse", reads="a dictionary of terms",
           kind="authentic", run=_read_dictionary, refuses=(VerificationError,), make=lambda: [_dictionary()]),
    Target(name="dictionary-coded", parser="stanch.scan.dictionary.Dictionary.parse",
           reads="a dictionary by a holder of its key", kind="plain", run=_read_coded_dictionary,
           refuses=(VerificationError,), make=lambda: [_dictionary()[8:-32]]),
    Target(name="span-index", parser="stanch.scan.spans.index_file.parse_index", reads="a span index", kind="authentic",
           run=_read_index, refuses=(VerificationError,), make=lambda: [_made_index()]),
    Target(name="span-index-coded", parser="stanch.scan.spans.index_file.parse_index",
           reads="a span index by a holder of its key", kind="plain", run=_read_coded_index,
           refuses=(VerificationError,), make=lambda: [_header_of(corpus("span-index")[0])]),
    Target(name="vault", parser="stanch.scan.vault.open_vault", reads="a vault of replaced values", kind="authentic",
           run=_open_vault, refuses=WRONG, make=_make_vault),
    Target(name="vault-coded", parser="stanch.scan.vault.open_vault", reads="a vault by a holder of its key",
           kind="plain", run=_open_coded_vault, refuses=WRONG,
           make=lambda: [b"\n".join(corpus("vault")[0].split(b"\n")[1:-2])]),
    Target(name="names", parser="stanch.scan.validators.names.Gazetteer.parse", reads="a gazetteer", kind="plain",
           run=Gazetteer.parse, refuses=INPUT, make=lambda: [_gazetteer()]),
    Target(name="scanned-text", parser="stanch.scan.scanner.Scanner.scan", reads="any text that is searched",
           kind="plain", run=lambda data: len(_scanner().scan(data).findings), refuses=(),
           make=lambda: [TEXT.encode()]),
)  # fmt: skip
