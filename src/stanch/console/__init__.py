"""The control API and the web pages: what a workspace holds, shown to people and programs who may see it.

One table (:data:`stanch.console.routes.ROUTES`) names for each address the handler and the Cedar action that permits
it. The same handlers answer people with pages and programs with JSON. Every page works without a script.

Example:
    >>> from stanch.console.app import build_app                                         # doctest: +SKIP
    >>> app = build_app(workspace, address="http://127.0.0.1:8402")                       # doctest: +SKIP
"""
