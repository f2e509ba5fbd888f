"""The watermark under which a model's server writes: what is asked of it, and what it acknowledges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from stanch.config import GatewayModelSection
from stanch.errors import VerificationError
from stanch.terms import JsonValue
from stanch.trace.text_keys import TextRoot
from stanch.trace.text_order import HEADER, check_acknowledgement, give_order

State = Literal["none", "asserted", "requested", "embedded"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """What is asked of a model's server with every request.

    Attributes:
        state: ``none``; ``asserted``: the settings name several tenants, or none, and the server chooses; ``requested``
            for the one tenant that they name.
        root: The secret that the server knows too; none where nothing is requested.
        tenant: Under whose keys it is to write.
    """

    state: State = "none"
    root: TextRoot | None = field(default=None, repr=False)
    tenant: str = ""

    @classmethod
    def of(cls, folder: Path, section: GatewayModelSection) -> Self:
        """Return what the settings of a workspace in ``folder`` say of one model.

        Raises:
            InvalidInput: The root that they name cannot be used.
        """
        if not section.text_root:
            return cls()
        root = TextRoot.load(folder / section.text_root)
        if len(section.tenants) != 1:
            return cls("asserted")
        root.key_id(section.tenants[0])  # a name that has no keys is refused at once
        return cls("requested", root, section.tenants[0])

    def record(self) -> dict[str, JsonValue]:
        """Return what an intent says of it."""
        named: dict[str, JsonValue] = {} if self.root is None else {"watermark_key": self.root.key_id(self.tenant)}
        return {"watermark": self.state} | named

    def headers(self, body: bytes) -> str:
        """Return the line of a request's head that gives the order; empty where nothing is requested."""
        return "" if self.root is None else f"{HEADER}: {give_order(self.root, self.tenant, body)}\r\n"

    def seen(self, values: Sequence[bytes], body: bytes) -> State:
        """Return what the head of an answer makes of it: ``embedded`` where the server acknowledged the order."""
        if self.root is None or len(values) != 1:
            return self.state
        try:
            check_acknowledgement(self.root, self.tenant, values[0].decode("latin-1"), body)
        except VerificationError:
            return self.state
        return "embedded"


NO_WATERMARK = Watermark()
