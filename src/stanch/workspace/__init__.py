"""The only place that knows order, permission and record: the life of a model as verbs.

Each verb decides (:mod:`stanch.access`), writes the intent (:mod:`stanch.ledger`), calls the stage, and writes the
outcome; see :class:`stanch.workspace.door.Door`. Stage packages know none of this and can be used alone.

Example:
    >>> with Workspace.open() as workspace:                                       # doctest: +SKIP
    ...     report = scan_data(workspace, dataset, scanner)
"""

from stanch.workspace.act import Done, Request
from stanch.workspace.door import Door
from stanch.workspace.keyring import Keyring
from stanch.workspace.opening import Workspace, find_workspace
from stanch.workspace.people import People

__all__ = ["Done", "Door", "Keyring", "People", "Request", "Workspace", "find_workspace"]
