"""One bounded HTTP exchange with a provider, and the one mapping from its failures to our errors."""

from __future__ import annotations

import json
import math
import re
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from llmchatlinker.errors import ProviderError, ProviderTimeout
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.calls import Call, CallAdapter, under_way

PIECE = 65_536
CONNECTIONS_PER_PROVIDER = 256
QUOTE_LENGTH = 300

_sessions: dict[str, requests.Session] = {}
_sessions_lock = threading.Lock()


class _Bearer(AuthBase):
    """The API key, or nothing. With an ``auth`` of our own, requests reads no ~/.netrc."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_key is not None:
            request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _session(endpoint: Endpoint) -> requests.Session:
    """The pooled session of a provider, shared by the process's threads."""
    with _sessions_lock:
        session = _sessions.get(endpoint.name)
        if session is None:
            session = requests.Session()
            # One turn's cookie is no business of the next one's.
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            adapter = CallAdapter(pool_connections=4, pool_maxsize=CONNECTIONS_PER_PROVIDER)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            _sessions[endpoint.name] = session
        return session


def exchange(
    endpoint: Endpoint,
    method: str,
    url: str,
    body: dict[str, Any] | None = None,
    current: Call | None = None,
) -> Any:
    """Send one request and return the JSON document that came back."""
    with under_way(current or Call(), endpoint.total_timeout) as current:
        try:
            # A redirect is not followed: it would carry the prompt, and perhaps the key, elsewhere.
            with _session(endpoint).request(
                method,
                url,
                json=body,
                auth=_Bearer(endpoint.api_key),
                headers={"Accept": "application/json"},
                timeout=(endpoint.connect_timeout, endpoint.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                text = _read(endpoint, response)
                status = response.status_code
                retry_after = response.headers.get("Retry-After")
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            raise _broken(endpoint, current, error) from None
    if current.aborted:  # an aborted answer without a length looks like one that has ended
        raise _too_late(endpoint, current)
    if status != 200:
        raise _refused(endpoint, status, text, retry_after)
    return _document(endpoint, text)


def _read(endpoint: Endpoint, response: requests.Response) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_content(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > endpoint.answer_bytes:
            raise ProviderError(
                f"Provider {endpoint.name!r} answered with more than {endpoint.answer_bytes} bytes.",
                {"provider": endpoint.name},
            )
    return b"".join(pieces)


def _broken(endpoint: Endpoint, current: Call, error: Exception) -> ProviderError:
    if current.aborted:
        return _too_late(endpoint, current)
    if isinstance(error, requests.ConnectTimeout):
        what = f"did not accept a connection within {current.elapsed:.1f} s"
        return ProviderTimeout(_sentence(endpoint, what), {"provider": endpoint.name})
    timed_out = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
    if timed_out or "timed out" in str(error):  # a body's read timeout comes as ConnectionError
        what = f"said nothing for {endpoint.read_timeout:.1f} s"
        return ProviderTimeout(_sentence(endpoint, what), {"provider": endpoint.name})
    what = f"could not be reached, or broke off: {_plain_reason(error)}"
    return ProviderError(_sentence(endpoint, what), {"provider": endpoint.name})


def _too_late(endpoint: Endpoint, current: Call) -> ProviderTimeout:
    what = f"had not answered after {current.elapsed:.1f} s"
    return ProviderTimeout(_sentence(endpoint, what), {"provider": endpoint.name})


def _sentence(endpoint: Endpoint, what: str) -> str:
    return f"Provider {endpoint.name!r} {what}."


def _refused(
    endpoint: Endpoint, status: int, text: bytes, retry_after: str | None
) -> ProviderError:
    details: dict[str, Any] = {"provider": endpoint.name, "http_status": status}
    if status in (401, 403):
        # What it says here may quote the key.
        return ProviderError(
            f"Provider {endpoint.name!r} refused the API key (HTTP {status}); "
            "LLM_PROVIDER_UPDATE sets another.",
            details,
        )
    if retry_after is not None and re.fullmatch("[0-9]{1,9}", retry_after):
        details["retry_after"] = int(retry_after)
    said = _quote(endpoint, text)
    message = f"Provider {endpoint.name!r} answered with HTTP {status}" + (
        f": {said}" if said else "."
    )
    if status in (408, 504):
        return ProviderTimeout(message, details)
    return ProviderError(message, details)


def _quote(endpoint: Endpoint, text: bytes) -> str:
    """The provider's own words where it has any: its JSON error, never a page of HTML."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    words = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(words, dict):
        words = words.get("message", words.get("detail", ""))
    if not isinstance(words, str):
        return ""
    if endpoint.api_key is not None:
        words = words.replace(endpoint.api_key, "***")
    return clean(re.sub(r"\s+", " ", words)).strip()[:QUOTE_LENGTH]


def _document(endpoint: Endpoint, text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        shape = "HTML" if text.lstrip()[:1] == b"<" else "something that is no whole JSON document"
        raise ProviderError(
            f"Provider {endpoint.name!r} answered with {shape} ({len(text)} bytes).",
            {"provider": endpoint.name, "http_status": 200},
        ) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number that is too large")  # and that jsonb could not keep
    return number


def _plain_reason(error: Exception) -> str:
    # requests' own text repeats the URL and the object's address; the innermost cause says it best.
    cause: BaseException = error
    while True:
        inner = cause.__cause__ or cause.__context__
        if inner is None or inner is cause:
            break
        cause = inner
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return clean(re.sub(r"\s+", " ", text)).rstrip(".")[:QUOTE_LENGTH]


def clean(text: str) -> str:
    """``text`` as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)
