r"""Rules and recognisers of other tools, as rules and finders of ours; and ours as one of theirs.

:func:`read_gitleaks` and :func:`read_kingfisher` return :class:`ForeignRules`, whose recognisers join those of a policy
in one database. :func:`read_numbers` does the same for the national numbers of python-stdnum. :class:`PresidioFinder`
and :class:`SpacyFinder` search whole texts. Nothing here opens a connection or downloads anything.

Example:
    >>> from stanch.scan import Policy, Scanner, load_pack
    >>> from stanch.scan.adapters import parse_gitleaks
    >>> rules = parse_gitleaks(b"[[rules]]\nid = 'widget'\nregex = 'wk_[0-9a-z]{12}'", name="mine.toml")
    >>> Scanner(Policy(recognisers=load_pack() + rules.recognisers)).redact("see wk_0a1b2c3d4e5f").text
    'see <GITLEAKS-WIDGET>'
"""

from stanch.scan.adapters.foreign import ForeignRules
from stanch.scan.adapters.gitleaks import parse_gitleaks, read_gitleaks
from stanch.scan.adapters.kingfisher import load_kingfisher, read_kingfisher
from stanch.scan.adapters.numbers import NUMBERS, read_numbers
from stanch.scan.adapters.presidio import PresidioFinder, presidio_recognizer
from stanch.scan.adapters.spacy import SpacyFinder, open_spacy

__all__ = [
    "NUMBERS",
    "ForeignRules",
    "PresidioFinder",
    "SpacyFinder",
    "load_kingfisher",
    "open_spacy",
    "parse_gitleaks",
    "presidio_recognizer",
    "read_gitleaks",
    "read_kingfisher",
    "read_numbers",
]
