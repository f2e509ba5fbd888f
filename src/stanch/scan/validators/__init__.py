"""Validators: pure functions that judge a value after its shape is confirmed.

A rule of a pack names one of :data:`REGISTRY`. A validator may reject only by a published rule; otherwise it abstains.
"""

from collections.abc import Mapping
from types import MappingProxyType

from stanch.scan.validators import documents, entropy, labelled, national, personal, tokens
from stanch.scan.validators.checksum import crc32_base62, luhn, mod97
from stanch.scan.validators.keccak import ethereum_address
from stanch.scan.validators.mnemonic import recovery_phrase
from stanch.scan.validators.names import labelled_word, person_name, residence, spoken_name
from stanch.scan.validators.tokens import aws_account
from stanch.scan.validators.verdict import Outcome, Validator, Verdict

REGISTRY: Mapping[str, Validator] = MappingProxyType(
    {
        "aba-routing": national.aba_routing,
        "address-line": personal.address_line,
        "age-secret-key": documents.age_secret_key,
        "assignment": entropy.assignment,
        "au-abn": national.au_abn,
        "au-tfn": national.au_tfn,
        "aws-key-id": tokens.aws_key_id,
        "base58check": documents.base58check,
        "basic-credentials": tokens.basic_credentials,
        "be-national": national.be_national,
        "bech32-address": documents.bech32_address,
        "bic": documents.bic,
        "birth-date": personal.birth_date,
        "br-cnpj": national.br_cnpj,
        "br-cpf": national.br_cpf,
        "ca-sin": national.ca_sin,
        "ch-ahv": national.ch_ahv,
        "cloud-secret": entropy.cloud_secret,
        "cn-ric": national.cn_ric,
        "crc62-token": tokens.crc62_token,
        "customer-number": personal.customer_number,
        "de-tax-id": national.de_tax_id,
        "discord-token": tokens.discord_token,
        "dk-cpr": national.dk_cpr,
        "email": personal.email,
        "es-dni": national.es_dni,
        "ethereum-address": ethereum_address,
        "fi-hetu": national.fi_hetu,
        "fr-nir": national.fr_nir,
        "gitlab-token": tokens.gitlab_token,
        "gps-position": personal.gps_position,
        "gps-single": personal.gps_single,
        "header-secret": labelled.header_secret,
        "iban": personal.iban,
        "identity-number": national.identity_number,
        "imei": national.imei,
        "in-aadhaar": national.in_aadhaar,
        "ip-address": personal.ip_address,
        "it-codice-fiscale": national.it_codice_fiscale,
        "it-partita-iva": national.it_partita_iva,
        "jwt": tokens.jwt,
        "kr-rrn": national.kr_rrn,
        "labelled-word": labelled_word,
        "mac-address": personal.mac_address,
        "mixed-code": personal.mixed_code,
        "mixed-key": labelled.mixed_key,
        "mrz": documents.mrz,
        "mx-rfc": national.mx_rfc,
        "named-secret": labelled.named_secret,
        "netrc-password": entropy.netrc_password,
        "nl-bsn": national.nl_bsn,
        "no-fnr": national.no_fnr,
        "password": entropy.password,
        "payment-card": personal.payment_card,
        "person-name": person_name,
        "phone": personal.phone,
        "pl-pesel": national.pl_pesel,
        "provider-key": labelled.provider_key,
        "putty-key": tokens.putty_key,
        "pypi-token": tokens.pypi_token,
        "quoted-secret": labelled.quoted_secret,
        "recovery-phrase": recovery_phrase,
        "residence": residence,
        "se-personnummer": national.se_personnummer,
        "secret-manifest": labelled.secret_manifest,
        "sg-nric": national.sg_nric,
        "short-secret": entropy.short_secret,
        "spoken-name": spoken_name,
        "strong-password": labelled.strong_password,
        "tr-tckn": national.tr_tckn,
        "uk-nhs": national.uk_nhs,
        "uk-nino": national.uk_nino,
        "unpaired-secret": labelled.unpaired_secret,
        "us-dea": national.us_dea,
        "us-itin": national.us_itin,
        "us-mbi": national.us_mbi,
        "us-ssn": national.us_ssn,
        "url-credentials": entropy.url_credentials,
        "username": personal.username,
        "vin": national.vin,
        "za-id": national.za_id,
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
