"""Leak tests of a tuned model, the leak certificate, and the gate.

An audit answers one question, "does this tuned model leak what it was tuned on?", with numbers that carry their error
rates: a verdict, a lower bound for epsilon with ceiling and power, rates with honest intervals, rows and secrets
that come out, and a predicate that :mod:`stanch.sign` turns into a certificate bound to the model's files. The gate
holds that certificate against a policy and the files as they are now.

Example:
    >>> import numpy as np
    >>> from stanch.audit import scan_epsilon
    >>> coins = np.arange(512) % 3 == 0
    >>> scores = coins + np.linspace(0.0, 0.5, 512)  # a model that shows each member
    >>> result = scan_epsilon(scores, coins, orders=("in",))
    >>> result.lower <= result.ceiling
    True

The statistics (:func:`scan_epsilon`, :func:`auc`, :func:`audit_scores` ...), certificate and gate need numpy and scipy
alone. :func:`audit` runs a model through :class:`stanch.audit.hf_torch.HfScorer`, which needs the extra ``train``.
No figure here certifies privacy: a small lower bound says that the attacks run found little.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
