"""The order to write one answer under a tenant's watermark, from a gateway to a model's server, and what it answers.

Both know the root, and no key travels. Either is bound to the bytes of one request, so it is good for no other.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from stanch.crypto import frame, hmac_sha256, sha256
from stanch.errors import VerificationError
from stanch.trace.text_keys import TextRoot

HEADER = "x-stanch-watermark"
"""The header of both: ``<key id>.<HMAC-SHA256 in hex>``."""
_ORDER, _DONE = b"order", b"embedded"


@dataclass(frozen=True, slots=True)
class TakenOrder:
    """An order that a server verified.

    Attributes:
        tenant: Under whose keys the answer is to be written.
        acknowledgement: The header's value in an answer that is written under them.
    """

    tenant: str
    acknowledgement: str


def give_order(root: TextRoot, tenant: str, body: bytes) -> str:
    """Return the header's value for a request with these bytes.

    Raises:
        InvalidInput: The tenant's name is not one; see :meth:`TextRoot.keys`.
    """
    return _signed(root, _ORDER, tenant, body)


def take_order(root: TextRoot, tenants: Iterable[str], value: str, body: bytes) -> TakenOrder:
    """Return the order that came with a request; the keys are ``root.keys(order.tenant)``.

    Raises:
        VerificationError: It is of another tenant, another root or another request.
    """
    for tenant in tenants:
        if hmac.compare_digest(_signed(root, _ORDER, tenant, body).encode(), value.encode()):
            return TakenOrder(tenant, _signed(root, _DONE, tenant, body))
    raise VerificationError(
        "text watermark: this order is not one for this request and one of these tenants",
        next_step="give gateway and server the same text root and the same tenants",
    )


def check_acknowledgement(root: TextRoot, tenant: str, value: str, body: bytes) -> None:
    """Return if a server says that it writes the answer to this request under the tenant's keys.

    Raises:
        VerificationError: It does not, or somebody without the root says so.
    """
    if not hmac.compare_digest(_signed(root, _DONE, tenant, body).encode(), value.encode()):
        raise VerificationError("text watermark: the server did not acknowledge the order for this request")


def _signed(root: TextRoot, what: bytes, tenant: str, body: bytes) -> str:
    key_id = root.key_id(tenant)
    tag = hmac_sha256(root.order_key(), frame(b"stanch/text/v1", what, key_id.encode(), sha256(body)))
    return f"{key_id}.{tag.hex()}"
