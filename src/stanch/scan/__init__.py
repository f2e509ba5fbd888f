"""One engine that finds secrets, personal data and known texts in files and streams, and redacts them.

A :class:`Policy` says what to look for and what to do with it; a :class:`Scanner` does it. The same policy gives the
same answer for a whole text and for a stream, however the stream is cut. :class:`SpanIndex` finds training text.

Example:
    >>> from stanch.scan import Policy, Scanner
    >>> scanner = Scanner(Policy())
    >>> scanner.redact("Write to ana.diaz@correo.es today.").text
    'Write to <EMAIL> today.'
    >>> session = scanner.open_stream()
    >>> [session.feed(part).text for part in ("Write to ana.di", "az@correo", ".es today.")]
    ['Write to ', '', '<EMAIL> ']
    >>> session.finish().text
    'today.'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
