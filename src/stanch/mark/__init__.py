"""Whose copy is this? Each recipient's copy gets its own invisible direction in weight space.

A mark is planned from the unmarked original, its keys are committed to before any copy exists, a copy is marked while
it is read, and a suspect is compared with the original later, with a bound on ever naming an innocent recipient::

    plan = plan_mark(original)                                  # what is marked, how strongly; refusals
    root = MarkRoot.generate()                                  # one secret a release
    batch = commit(plan, root, [RecipientSlot("acme"), RecipientSlot("globex")])
    # batch.root goes into the ledger; the first checkpoint that contains it is the beacon
    key = copy_key(batch, "acme", beacon=beacon)
    source = MarkedSource(original, plan, key)                  # sealed as it is read; embed() writes a directory
    keys = mark_keys([(batch, beacon)], root)
    found = detect(Originals(original, base), suspect, keys, ScorePlan.default(plan.kind, n=10_000))
    found.accused                                               # each with z and log10 p

Without a workspace, :class:`KeyFolder` keeps a release's keys (``stanch mark``); :func:`rehearse` measures on the real
model what treatments leave of a mark. Plain functions: no ledger, no users, no clock. What a finding proves is *this
copy or a derivative of it*, never *this person*. The formats are in ``docs/spec/mark.md``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
