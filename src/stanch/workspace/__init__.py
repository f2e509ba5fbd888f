"""The only place that knows order, permission and record: the life of a model as verbs.

Each verb decides (:mod:`stanch.access`), writes the intent (:mod:`stanch.ledger`), calls the stage, and writes the
outcome; see :class:`stanch.workspace.door.Door`. Stage packages know none of this and can be used alone.

Example:
    >>> with Workspace.open() as workspace:                                       # doctest: +SKIP
    ...     report = scan_data(workspace, dataset, scanner)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
