"""Validators: pure functions that judge a value after its shape is confirmed.

A rule of a pack names one of :data:`REGISTRY`. A validator may reject only by a published rule; otherwise it abstains.
"""

from collections.abc import Mapping
from types import MappingProxyType

from stanch.scan.validators.checksum import crc32_base62, luhn, mod97
from stanch.scan.validators.entropy import assignment, cloud_secret, password
from stanch.scan.validators.names import person_name
from stanch.scan.validators.personal import (
    birth_date,
    customer_number,
    email,
    iban,
    ip_address,
    payment_card,
    phone,
    us_ssn,
)
from stanch.scan.validators.tokens import aws_account, aws_key_id, crc62_token, jwt
from stanch.scan.validators.verdict import Outcome, Validator, Verdict

REGISTRY: Mapping[str, Validator] = MappingProxyType(
    {
        "assignment": assignment,
        "aws-key-id": aws_key_id,
        "birth-date": birth_date,
        "cloud-secret": cloud_secret,
        "crc62-token": crc62_token,
        "customer-number": customer_number,
        "email": email,
        "iban": iban,
        "ip-address": ip_address,
        "jwt": jwt,
        "password": password,
        "payment-card": payment_card,
        "person-name": person_name,
        "phone": phone,
        "us-ssn": us_ssn,
    }
)

__all__ = [
    "REGISTRY",
    "Outcome",
    "Validator",
    "Verdict",
    "aws_account",
    "crc32_base62",
    "luhn",
    "mod97",
]
