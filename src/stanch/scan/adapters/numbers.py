"""National numbers that python-stdnum knows (extra ``ids``): which of them, what they look like, and their words.

The package (LGPL) is imported when the numbers are read. A number with a right check digit needs a word near
it to be a finding: one in ten or eleven arbitrary numbers has a right check digit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from stanch.errors import InvalidInput, MissingExtraError
from stanch.scan.adapters.expression import Expression
from stanch.scan.adapters.foreign import ForeignRules, make_recogniser
from stanch.scan.check import Candidate
from stanch.scan.recogniser import Context, Source
from stanch.scan.validators.verdict import ABSTAIN, REJECT, WEAK, Verdict
from stanch.terms import JsonValue, Severity

ORIGIN = "stdnum"
_SCORE = 0.2


class _Number(NamedTuple):
    shape: str
    words: str


# By module of python-stdnum: the shape of the written number, and the words that announce it.
NUMBERS = MappingProxyType(
    {
        "ar.cuit": _Number(r"\d{2}-?\d{8}-?\d", "cuit cuil"),
        "at.vnr": _Number(r"\d{4} ?\d{6}", "svnr sozialversicherungsnummer versicherungsnummer"),
        "be.nn": _Number(
            r"\d{2}\.?\d{2}\.?\d{2}[-.]?\d{3}[-.]?\d{2}", "rijksregisternummer niss insz nationalregister"
        ),
        "bg.egn": _Number(r"\d{10}", "egn eгн"),
        "ch.ssn": _Number(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ahv avs ahvnr ahvn13 sozialversicherungsnummer"),
        "cl.rut": _Number(r"\d{1,2}\.?\d{3}\.?\d{3}-?[\dkK]", "rut run"),
        "cn.ric": _Number(r"\d{17}[\dXx]", "id identity resident shenfenzheng"),
        "cz.rc": _Number(r"\d{6}/?\d{3,4}", "rc rodné rodne císlo cislo"),
        "dk.cpr": _Number(r"\d{6}-?\d{4}", "cpr personnummer"),
        "ec.ci": _Number(r"\d{9}-?\d", "cedula cédula identidad"),
        "ee.ik": _Number(r"[1-6]\d{10}", "isikukood"),
        "fi.hetu": _Number(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", "hetu henkilötunnus henkilotunnus"),
        "gr.amka": _Number(r"\d{11}", "amka αμκα"),
        "hr.oib": _Number(r"\d{11}", "oib"),
        "ie.pps": _Number(r"\d{7}[A-W][A-IW]?", "pps ppsn"),
        "il.idnr": _Number(r"\d{8}-?\d", "teudat zehut id"),
        "is_.kennitala": _Number(r"\d{6}-?\d{4}", "kennitala kt"),
        "kr.rrn": _Number(r"\d{6}-?\d{7}", "rrn jumin resident"),
        "lt.asmens": _Number(r"[1-6]\d{10}", "asmens kodas"),
        "mx.curp": _Number(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", "curp"),
        "no.fodselsnummer": _Number(r"\d{6} ?\d{5}", "fødselsnummer fodselsnummer personnummer"),
        "pt.nif": _Number(r"\d{3} ?\d{3} ?\d{3}", "nif contribuinte"),
        "ro.cnp": _Number(r"[1-9]\d{12}", "cnp"),
        "sk.rc": _Number(r"\d{6}/?\d{3,4}", "rc rodné rodne číslo cislo"),
        "th.pin": _Number(r"\d-?\d{4}-?\d{5}-?\d{2}-?\d", "id citizen pin"),
        "tr.tckimlik": _Number(r"[1-9]\d{10}", "tckn tc kimlik"),
        "ua.rntrc": _Number(r"\d{10}", "rntrc ipn іпн рнокпп"),
        "za.idnr": _Number(r"\d{6} ?\d{4} ?\d{3}", "id identity"),
    }
)


def read_numbers(names: Iterable[str] = tuple(NUMBERS)) -> ForeignRules:
    """Return recognisers of national numbers, by the name of their module in python-stdnum such as ``pt.nif``.

    Raises:
        InvalidInput: A number is not in :data:`NUMBERS`.
        MissingExtraError: The extra ``ids`` is not installed.
    """
    rules = []
    for name in names:
        if name not in NUMBERS:
            raise InvalidInput(f"unknown number {name[:40]!r}", next_step=f"use one of {', '.join(NUMBERS)}")
        number = NUMBERS[name]
        _module(name)
        expression = Expression(rf"(?:^|[^0-9A-Za-z.+/-])({number.shape})(?:[^0-9A-Za-z/-]|$)", 1)
        rule = make_recogniser(name, expression, NumberCheck(name), looks_around=False, source=_SOURCE)
        words = frozenset(word.casefold() for word in number.words.split())
        rules.append(
            replace(
                rule,
                family="personal",
                score=_SCORE,
                severity=Severity.MEDIUM,
                context=Context(near=words, fields=words),
            )
        )
    return ForeignRules(ORIGIN, tuple(rules))


_SOURCE = Source(f"{ORIGIN} check of the installed package", "https://pypi.org/project/python-stdnum/", "never")


@dataclass(frozen=True, slots=True)
class NumberCheck:
    """The check of one number by python-stdnum, which looks nothing up."""

    name: str

    def judge(self, candidate: Candidate) -> Verdict:
        """Reject a number whose parts or check digit are wrong."""
        try:
            return WEAK if _module(self.name).is_valid(candidate.value.decode("latin-1")) else REJECT
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return ABSTAIN  # the package stumbles over some numbers, such as those of dissolved counties

    def facts(self) -> JsonValue:
        """Return the name of the number."""
        return {"number": self.name}


@cache
def _module(name: str) -> Any:  # noqa: ANN401 - a module of the package
    try:
        return import_module(f"stdnum.{name}")
    except ImportError as error:
        raise MissingExtraError("ids") from error
