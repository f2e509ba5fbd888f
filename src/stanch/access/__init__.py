"""Permission: who somebody is (a registered key) and what they may do (Cedar policies over facts).

``decide`` is a pure function of facts and policies, and an act is allowed only when Cedar says so without any error.
:class:`Authority` decides for a node: it confirms the policies in force again and again. Nothing here writes to the
log: the workspace records what was decided. Tokens (:mod:`~stanch.access.token`), the code flow
(:mod:`~stanch.access.oidc`), client certificates (:mod:`~stanch.access.mtls`), browser sessions
(:mod:`~stanch.access.sessions`) and the one way in for programs (:mod:`~stanch.access.authenticator`) are imported from
their modules.

Example:
    >>> directory = Directory(tables, origin="example.com/stanch")                         # doctest: +SKIP
    >>> login = sign_session(key, directory.origin, directory.challenge(), now_ms)         # doctest: +SKIP
    >>> facts = directory.facts(directory.session(login))                                  # doctest: +SKIP
    >>> decide(facts, "data:add", WORKSPACE, Context(team=False), default_policies()).require()  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
