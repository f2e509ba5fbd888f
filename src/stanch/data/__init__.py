"""Private datasets: open, scan, describe, de-duplicate, plant canaries, split, index.

Example:
    >>> from stanch.audit import AuditParams, preregister
    >>> from stanch.data import open_dataset, find_near_duplicates, drop_duplicates, plan_canaries, inject
    >>> dataset = open_dataset("train.jsonl")  # doctest: +SKIP
    >>> distinct = drop_duplicates(dataset, find_near_duplicates(dataset), Path("distinct.jsonl"))  # doctest: +SKIP
    >>> registered = preregister(AuditParams()).to_json()  # doctest: +SKIP
    >>> plan = plan_canaries(distinct, CanarySpec(n=512), preregistration=registered)  # doctest: +SKIP
    >>> injected = inject(distinct, plan, committed=entry, out=Path("planted.jsonl"))  # doctest: +SKIP

No torch, no transformers: a tokenizer is handed in as :class:`ChatTokenizer`. No message, representation or report of
this package quotes a row.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
