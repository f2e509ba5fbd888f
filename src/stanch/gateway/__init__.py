"""The door between programs and a model's server: an OpenAI-compatible proxy that decides, records and guards.

Nothing of the model server's bytes is passed on. The gateway reads them (:mod:`~stanch.gateway.sse`,
:mod:`~stanch.gateway.dialect`), puts each string through the guard (:mod:`~stanch.gateway.rebuild`), and writes frames
of its own. A request is authenticated, decided about, charged to a budget and recorded before it is forwarded, and its
last frame leaves after its outcome is durable.

Example:
    >>> app = Gateway(desk, upstream, settings)                                   # doctest: +SKIP
    >>> run_server(app, listen)                                                   # doctest: +SKIP
"""
