"""From a copy that surfaced back to its recipient: custody, a plan logged beforehand, a decision, and evidence.

A suspect is taken into custody, what will be analysed is fixed and logged, the suspect is scored, and an accusation is
packed so that an opposing expert re-computes it with Python and numpy::

    case = open_case(folder, suspect, Intake("2027-014", "…", discovered, "a customer", "p_…"), opened=now)
    plan = fix_plan(case, release, epsilon=PER_CASE, budget=ErrorBudget(spent=earlier))
    # plan.digest goes into the log as payload.plan; its entry comes back
    examination = examine(case, VerifiedCasePlan(plan, entry), release, actor="p_…", at=now)
    decision = decide(case, examination, KeyHistory(committed))  # Accused | NothingFound | Inconclusive
    pack(case, decision, examination, release, proofs, out, PackForm(case_key))
    verify_pack(out, key=case_key.public, vkey=log.verifier.vkey)

``release`` is a :class:`ReleaseRecord`: original, mark plan, batch and keys. Nothing here writes the log or knows who
may do what. A finding proves *this copy or a derivative of it*, never *this person*. The format of packs is in
``docs/spec/evidence-pack.md``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
