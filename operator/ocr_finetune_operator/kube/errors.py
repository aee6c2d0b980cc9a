"""What can go wrong with an API request, by what the caller can do about it."""

from __future__ import annotations


class ApiError(Exception):
    """The API server refused a request.

    Attributes:
        code: HTTP status.
        reason: Kubernetes' reason, such as `Invalid`.
        message: What it said.
        retry_after: Seconds to wait, if it said so.
    """

    def __init__(self, *, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """There is no such object (404, 410)."""


class ConflictError(ApiError):
    """The object exists already, or is no longer what the request took it for (409)."""


class ForbiddenError(ApiError):
    """The operator lacks a right (401, 403)."""


class InvalidError(ApiError):
    """The request will never be accepted as it is (400, 413, 422)."""


class BusyError(ApiError):
    """The API server is overloaded or starting (429, 5xx)."""


class UnreachableError(Exception):
    """The API server could not be reached, or did not answer in time."""


def error_of(code: int) -> type[ApiError]:
    """The class of an HTTP status."""
    if code in (404, 410):
        return NotFoundError
    if code == 409:
        return ConflictError
    if code in (401, 403):
        return ForbiddenError
    if code in (400, 413, 415, 422):
        return InvalidError
    return BusyError if code == 429 or code >= 500 else ApiError
