"""Receipts: what a recipient signs when a copy has arrived, so that neither side can later deny or invent it.

A receipt is a Sigstore bundle over an in-toto Statement of type ``urn:stanch:predicate:mark-receipt:v1`` whose subject
is the sealed bundle. It names the leaf of the batch that was committed to before the copy was made.
"""

from dataclasses import dataclass
from datetime import datetime

from stanch.crypto import SigningKey, VerifyKey
from stanch.errors import InvalidInput, VerificationError
from stanch.sign import Bundle, PredicateType, Statement, Subject, TrustedKeys, all_of, sign_statement, verify_bundle
from stanch.terms import Digest
from stanch.trace.custody import utc
from stanch.trace.verifier.verify import RECEIPT


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is acknowledged.

    Attributes:
        batch_root: Root of the batch of keys (hex), as the log has it.
        leaf: Number of the recipient's leaf in it.
        bundle: Digest of the sealed bundle that arrived.
        recipient: The recipient's name in the batch.
    """

    batch_root: str
    leaf: int
    bundle: Digest
    recipient: str


def sign_receipt(receipt: Receipt, signer: SigningKey, *, received: datetime) -> bytes:
    """Return a signed receipt; the recipient makes it.

    Raises:
        InvalidInput: The key is not Ed25519, the one kind that the stand-alone verifier reads, or a field is malformed.
    """
    if signer.kind != "ed25519":
        raise InvalidInput(f"a receipt is signed with an Ed25519 key, found {signer.kind}")
    if len(receipt.batch_root) != 64 or set(receipt.batch_root) - set("0123456789abcdef") or receipt.leaf < 0:
        raise InvalidInput("receipt: expected a batch root of 64 hexadecimal digits and a leaf number from 0")
    statement = Statement(
        (Subject("bundle", receipt.bundle),),
        RECEIPT,
        {
            "batch_root": receipt.batch_root,
            "leaf_index": receipt.leaf,
            "bundle_digest": str(receipt.bundle),
            "recipient": receipt.recipient,
            "received_at": utc(received),
        },
    )
    return sign_statement(statement, signer).to_bytes()


def verify_receipt(data: bytes, key: VerifyKey, expected: Receipt) -> str:
    """Return when the copy was received (``YYYY-MM-DDTHH:MM:SSZ``), if ``key`` signed for exactly this copy.

    Raises:
        VerificationError: Another key signed it, or it is of another copy; what differs is named.
        InvalidInput: It is malformed.
    """
    policy = all_of(TrustedKeys((key,)), PredicateType(RECEIPT))
    statement = verify_bundle(Bundle.parse(data, what="receipt"), policy).statement
    predicate = statement.predicate
    about = {
        "batch_root": expected.batch_root,
        "leaf_index": expected.leaf,
        "bundle_digest": str(expected.bundle),
        "recipient": expected.recipient,
    }
    received = predicate.get("received_at")
    if predicate.keys() != {*about, "received_at"} or not isinstance(received, str) or not _is_time(received):
        raise InvalidInput("receipt: expected the five fields of a mark receipt, with received_at in UTC")
    for name, value in about.items():
        if predicate[name] != value:
            raise VerificationError(
                f"receipt of {expected.recipient}: it is of another copy",
                why=f"{name}: expected {value}, found {str(predicate[name])[:100]}",
                next_step="ask the recipient to sign for the bundle that was delivered",
            )
    if statement.subjects != (Subject("bundle", expected.bundle),):
        raise VerificationError(f"receipt of {expected.recipient}: its subject is another bundle than it names")
    return received


def _is_time(text: str) -> bool:
    try:
        return utc(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")) == text
    except ValueError:
        return False
