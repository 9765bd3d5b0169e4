"""Failed requests to a store: tried again if the store asks for fewer requests, and described in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import SystemRandom
from typing import TypeVar

from restore_cli.errors import OutputError, RestoreError, StorageError

__all__ = ["classify_error", "make_request", "read_error_code"]

T = TypeVar("T")

THROTTLE_DELAYS = (1, 2, 4, 8, 16, 32, 60)
"""seconds to wait between requests, after those that the client of the store has tried again by itself"""
THROTTLED = {
    "SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException",
    "Throttling", "ThrottlingException", "ServerBusy", "429", "503",
}  # fmt: skip
"""codes of answers that ask for fewer requests"""
INVALID_CREDENTIALS = {
    "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "RequestExpired", "AuthFailure", "AuthenticationFailed", "InvalidAuthenticationInfo",
    "401", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "ClientAuthenticationError",
    "DefaultCredentialsError", "RefreshError",
}  # fmt: skip
"""codes of answers, and exceptions of clients that found no valid credentials"""
WEB = ("http:", "https:")
RENEW = "renew the credentials (for S3: aws sso login, AWS_PROFILE or AWS_SESSION_TOKEN), then the same command again"


def make_request(request: Callable[[], T], url: str, failure: str, kind: type[RestoreError]) -> T:
    """Return what a request returns. If the store asks for fewer requests, try again after longer and longer waits.

    `failure` says what could not be done. Raises `kind`, or StorageError if it would happen to every other file too.
    """
    delays = iter(THROTTLE_DELAYS)
    while True:
        try:
            return request()
        except Exception as error:  # file systems raise their own errors
            delay = next(delays, None) if is_throttled(error, url) else None
            if delay is None:
                raise classify_error(error, url, failure, kind) from None
        time.sleep(delay * SystemRandom().uniform(0.5, 1))  # so that workers do not come back together


def is_throttled(error: Exception, url: str) -> bool:
    """Whether a store asks for fewer requests. A web server means only this URL, and perhaps that it is down."""
    return read_error_code(error) in THROTTLED and not url.startswith(WEB)


def classify_error(error: Exception, url: str, failure: str, kind: type[RestoreError]) -> RestoreError:
    """Return the error of a failed request with what to do about it."""
    code = read_error_code(error)
    if code in INVALID_CREDENTIALS and not url.startswith(WEB):
        return StorageError(f"{url}: {failure}: the credentials have expired or are not valid ({code})", RENEW)
    if is_throttled(error, url):
        line = f"{url}: {failure}: the server still asks for fewer requests after many attempts ({code})"
        return StorageError(line, "the same command again later, or with fewer workers")
    hint = "-o with another folder" if kind is OutputError else None
    return kind(f"{url}: {failure}: {describe_storage_error(error)}", hint)


def read_error_code(error: Exception) -> str:
    """Return the code with which a store has answered, such as SlowDown or 503, or the name of the exception."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):  # botocore
        return str(response.get("Error", {}).get("Code", ""))
    codes = (getattr(cause, name, None) for name in ("error_code", "status_code", "status", "code"))
    return next((str(code) for code in codes if isinstance(code, int | str)), type(cause).__name__)


def describe_storage_error(error: Exception) -> str:
    """Return the error as one line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines[0] else type(error).__name__
