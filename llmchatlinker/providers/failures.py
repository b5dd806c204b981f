"""The one mapping from what goes wrong with a provider to our errors.

``details`` of each error have ``provider`` and ``reason``, and where there are any ``http_status``,
``retry_after`` (seconds) and ``provider_code`` (the provider's own word for it). Reasons:
``unreachable``, ``connect_timeout``, ``tls``, ``bad_address``, ``first_token_timeout``,
``read_timeout``, ``total_timeout``, ``broken_off``, ``http_status``, ``reported`` (an error in place
of an answer, or in the middle of one), ``too_large``, ``unusable``, ``aborted``.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3.exceptions

from llmchatlinker.errors import Cancelled, LLMChatLinkerError, ProviderError, ProviderTimeout
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean, parse

QUOTE_LENGTH = 300

#: What requests and urllib3 raise; ValueError for what is no address.
TRANSPORT_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,60}")


def failure(endpoint: Endpoint, reason: str, what: str, **details: Any) -> ProviderError:
    """Provider … ``what``."""
    kind = ProviderTimeout if reason.endswith("_timeout") else ProviderError
    return kind(
        f"Provider {endpoint.name!r} {what}.",
        {"provider": endpoint.name, "reason": reason} | details,
    )


def unusable(endpoint: Endpoint, why: str) -> ProviderError:
    """It answered with a document that ``why``."""
    return failure(endpoint, "unusable", f"answered with a document that {why}", http_status=200)


def broken(endpoint: Endpoint, call: Call, error: Exception) -> LLMChatLinkerError:
    """The connection could not be made or did not last."""
    if call.aborted:
        return ended(endpoint, call)
    if isinstance(error, requests.ConnectTimeout):
        what = f"did not accept a connection within {call.elapsed:.1f} s"
        return failure(endpoint, "connect_timeout", what)
    timed_out = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
    if timed_out or "timed out" in str(error):  # a body's read timeout comes as ConnectionError
        if not call.connected:
            return failure(endpoint, "connect_timeout", "did not finish the TLS handshake in time")
        what = f"said nothing for {endpoint.read_timeout:.1f} s"
        return failure(endpoint, "read_timeout", what)
    reason = "broken_off" if call.connected else "unreachable"
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLError) and not call.connected:
        reason = "tls"
    elif isinstance(cause, ValueError) and not call.connected:
        reason = "bad_address"
    what = f"could not be reached, or broke off: {_plain(cause)}"
    return failure(endpoint, reason, what)


def ended(endpoint: Endpoint, call: Call) -> LLMChatLinkerError:
    """The call was broken off by ourselves."""
    if call.cancelled:
        return Cancelled(
            f"The call of provider {endpoint.name!r} was cancelled.", {"provider": endpoint.name}
        )
    reason = call.reason or "aborted"
    what = {
        "first_token_timeout": f"had not begun to answer after {call.elapsed:.1f} s",
        "read_timeout": f"said nothing more for {endpoint.read_timeout:.1f} s",
        "total_timeout": f"had not answered after {call.elapsed:.1f} s",
    }.get(reason, f"was answering when the call was broken off after {call.elapsed:.1f} s")
    return failure(endpoint, reason, what)


def cut_short(endpoint: Endpoint) -> ProviderError:
    """A streamed answer ended without saying so."""
    return failure(endpoint, "broken_off", "broke off in the middle of its answer", http_status=200)


def too_large(endpoint: Endpoint) -> ProviderError:
    """It did not stop talking."""
    return failure(endpoint, "too_large", f"answered with more than {endpoint.answer_bytes} bytes")


def no_document(endpoint: Endpoint, text: bytes) -> ProviderError:
    """It answered with a page, or with half a document."""
    shape = "HTML" if text.lstrip()[:1] == b"<" else "something that is no whole JSON document"
    what = f"answered with {shape} ({len(text)} bytes)"
    return failure(endpoint, "unusable", what, http_status=200)


def refused(
    endpoint: Endpoint, status: int, text: bytes, headers: Mapping[str, str]
) -> ProviderError:
    """It answered with a status that is no 200."""
    details: dict[str, Any] = {
        "provider": endpoint.name,
        "reason": "http_status",
        "http_status": status,
    }
    if status in (401, 403):
        # What it says here may quote the key.
        return ProviderError(
            f"Provider {endpoint.name!r} refused the API key (HTTP {status}); "
            "LLM_PROVIDER_UPDATE sets another.",
            details,
        )
    wait = _wait(headers)
    if wait is not None:
        details["retry_after"] = wait
    words, code = _words(endpoint, _parsed(text))
    if code is not None:
        details["provider_code"] = code
    message = f"Provider {endpoint.name!r} answered with HTTP {status}" + (
        f": {words}" if words else "."
    )
    return (ProviderTimeout if status in (408, 504) else ProviderError)(message, details)


def reported(endpoint: Endpoint, document: Any, status: int | None = None) -> ProviderError:
    """It sent an error where an answer, or the rest of one, should have been."""
    words, code = _words(endpoint, document)
    details: dict[str, Any] = {"provider": endpoint.name, "reason": "reported"}
    if status is None and code is not None and re.fullmatch("[45][0-9][0-9]", code):
        status = int(code)
    if status is not None:
        details["http_status"] = status
    if code is not None:
        details["provider_code"] = code
    return ProviderError(
        f"Provider {endpoint.name!r} reported an error" + (f": {words}" if words else "."), details
    )


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider wants to be left alone; RFC 9110, section 10.2.3."""
    milliseconds = headers.get("retry-after-ms", "")
    if _SECONDS.fullmatch(milliseconds):
        return float(milliseconds) / 1_000
    given = headers.get("Retry-After", "")
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        seconds = parsedate_to_datetime(given).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return round(seconds, 3) if seconds > 0 else None


def _parsed(text: bytes) -> Any:
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return None


def _words(endpoint: Endpoint, document: Any) -> tuple[str, str | None]:
    """The provider's own words and code where it has any: its JSON error, never a page of HTML."""
    said = document.get("error", document) if isinstance(document, dict) else document
    code = None
    if isinstance(said, dict):
        code = next((str(said[k]) for k in ("code", "type") if _is_code(said.get(k))), None)
        said = said.get("message", said.get("detail", ""))
    if not isinstance(said, str):
        return "", code
    for secret in (endpoint.api_key, *endpoint.headers.values()):
        if secret:
            said = said.replace(secret, "***")
    return clean(re.sub(r"\s+", " ", said)).strip()[:QUOTE_LENGTH], code


def _is_code(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9
    return whole or (isinstance(value, str) and _CODE.fullmatch(value) is not None)


def _innermost(error: BaseException) -> BaseException:
    # requests' own text repeats the URL and the object's address; the innermost cause says it best.
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None or inner is error:
            return error
        error = inner


def _plain(cause: BaseException) -> str:
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return clean(re.sub(r"\s+", " ", text)).rstrip(".")[:QUOTE_LENGTH]
