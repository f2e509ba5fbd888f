"""What the gateway answers when it does not answer: constants, so that no text of a model or of a log leaves with them.

Bodies have the form that clients of the OpenAI API read: ``{"error": {"type", "code", "message", …}}``.
"""

import orjson

from stanch.errors import (
    ExternalError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    StanchError,
    StoreError,
)


class UpstreamProtocol(ExternalError):
    """The model's server sent what the gateway does not implement; nothing of it was passed on."""


class UpstreamFailed(ExternalError):
    """The model's server could not be reached, refused, stalled, or broke off its answer."""


class UpstreamTimeout(UpstreamFailed):
    """The model's server did not answer in time."""

    http_status = 503


class UpstreamBusy(UpstreamFailed):
    """The model's server answers as much as it can."""

    http_status = 503


class UpstreamRefused(UpstreamFailed):
    """The model's server says that it cannot answer such a request: too long, or for what it lacks."""

    http_status = 400


class QuotaExhausted(NotPermitted):
    """A budget of the principal is used up."""

    http_status = 429

    def __init__(self, budget: str) -> None:
        super().__init__(f"the budget of {budget} is used up", next_step="stanch gateway budgets PRINCIPAL")
        self.budget = budget


class NotReady(StoreError):
    """The gateway cannot record or decide now, or serves too many requests already."""


class RequestTooLarge(InvalidInput):
    """A request's body or headers are too long."""

    http_status = 413


class RequestTooSlow(InvalidInput):
    """A request's body was not there in time."""

    http_status = 408


class UnsupportedMedia(InvalidInput):
    """A request's body is not declared to be JSON."""

    http_status = 415


_CODES: tuple[tuple[type[StanchError], str, str], ...] = (
    (UpstreamProtocol, "upstream_protocol", "The model's server sent something that cannot be checked."),
    (UpstreamTimeout, "upstream_timeout", "The model's server did not answer in time."),
    (UpstreamBusy, "upstream_busy", "The model's server answers as much as it can."),
    (UpstreamRefused, "upstream_refused", "The model's server does not take such a request."),
    (UpstreamFailed, "upstream_failed", "The model's server failed."),
    (QuotaExhausted, "budget_exhausted", "A budget is used up."),
    (NotAuthenticated, "unauthenticated", "Who asks could not be established."),
    (NotPermitted, "not_permitted", "This is not permitted."),
    (RequestTooLarge, "too_large", "The request is too large."),
    (RequestTooSlow, "too_slow", "The request was not there in time."),
    (UnsupportedMedia, "unsupported_media", "Expected content-type: application/json."),
    (NotFound, "not_found", "There is no such endpoint or model."),
    (StoreError, "not_ready", "The request could not be recorded or decided now."),
)


def statuses() -> dict[int, str]:
    """Return what each HTTP status of a failure may mean."""
    meanings = [(kind.http_status, message) for kind, _, message in _CODES]
    meanings += [(InvalidInput.http_status, "The request was refused."), (500, "A failure.")]
    return {status: " ".join(text for other, text in meanings if other == status) for status, _ in sorted(meanings)}


def code_of(error: BaseException) -> str:
    """Return the short name of a failure; whatever nobody raised on purpose is ``internal``."""
    return _described(error)[0]


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a failure."""
    return error.http_status if isinstance(error, StanchError) else 500


def problem_body(error: BaseException, request_id: str) -> bytes:
    """Return the body of a failure. Only what the client itself got wrong is described in words of its request."""
    code, message = _described(error)
    problem = {"type": "stanch_error", "code": code, "message": message, "incident": request_id}
    return orjson.dumps({"error": problem})


def _described(error: BaseException) -> tuple[str, str]:
    for kind, code, message in _CODES:
        if isinstance(error, kind):
            return code, message
    if isinstance(error, InvalidInput):
        return "invalid_request", error.what
    return ("guard_failed", "The answer was ended.") if isinstance(error, StanchError) else ("internal", "A failure.")
