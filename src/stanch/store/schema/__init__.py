"""All table definitions of the project, one module per owner; each column says whether it holds personal data.

Column tags: ``column.info["personal"]`` is true where the value may name or describe a person. Erasure clears
each of them, which a test tries, and vacuums the tables that have one.
"""

from stanch.store.schema import access, alerts, console, gateway, ledger, watch, workspace
from stanch.store.schema.column import METADATA, REVISION, schema_revision

__all__ = [
    "METADATA", "REVISION", "access", "alerts", "console", "gateway", "ledger", "schema_revision", "watch", "workspace",
]  # fmt: skip
