"""One bounded HTTP exchange with a provider: a request, and its answer whole or in pieces."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests

from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.calls import Call, under_way
from llmchatlinker.providers.connections import CallAdapter
from llmchatlinker.providers.documents import parse
from llmchatlinker.providers.failures import (
    TRANSPORT_ERRORS,
    broken,
    ended,
    no_document,
    refused,
    too_large,
)
from llmchatlinker.providers.sse import EventReader, ServerEvent
from llmchatlinker.version import __version__

PIECE = 65_536
CONNECTIONS_PER_PROVIDER = 256
#: Providers come and go by other names; so many keep their connections.
SESSIONS = 128
#: What is read, and how long (s), behind the end of an answer, so that the connection can be kept.
REST_PIECES = 4
REST_PATIENCE = 0.2

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept for a provider: its pooled session, and its addresses as they were checked once."""

    url: str
    session: requests.Session
    addresses: dict[tuple[str, str], requests.PreparedRequest] = field(default_factory=dict)


_kept: dict[str, _Kept] = {}
_kept_lock = threading.Lock()


def bearer(endpoint: Endpoint) -> dict[str, str]:
    """The API key as most providers take it."""
    key = endpoint.api_key
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _kept_for(endpoint: Endpoint) -> _Kept:
    """What is kept for the provider, shared by the process's threads."""
    with _kept_lock:
        kept = _kept.pop(endpoint.name, None)
        if kept is None or kept.url != endpoint.url:
            kept = _Kept(endpoint.url, _new_session(endpoint.url))
        _kept[endpoint.name] = kept
        if len(_kept) > SESSIONS:  # the one that was not used for longest
            _kept.pop(next(iter(_kept))).session.close()  # only what is idle; calls go on
        return kept


def _send(
    kept: _Kept,
    method: str,
    url: str,
    body: dict[str, Any] | None,
    headers: Mapping[str, str],
    timeout: tuple[float, float],
) -> requests.Response:
    """What ``requests.Session.request`` does, but an address is checked once, and there is nothing to
    merge: it took as long for that as for the rest of a call.

    A redirect is not followed: it would carry the prompt, and perhaps the key, elsewhere.
    """
    session: Any = kept.session
    address = kept.addresses.get((method, url))
    if address is None:
        address = session.prepare_request(requests.Request(method, url))
        kept.addresses[method, url] = address
    request = requests.PreparedRequest()
    request.method, request.url, request.hooks = address.method, address.url, address.hooks
    request.prepare_headers({**session.headers, **headers})
    if "Authorization" in address.headers:  # a name and a password in the address
        request.headers["Authorization"] = address.headers["Authorization"]
    if body is not None:
        request.body = json.dumps(body, allow_nan=False).encode("utf-8")
        request.headers.setdefault("Content-Type", "application/json")
        request.headers["Content-Length"] = str(len(request.body))
    response: requests.Response = session.get_adapter(url).send(
        request,
        stream=True,
        timeout=timeout,
        verify=session.verify,
        cert=session.cert,
        proxies=session.proxies,
    )
    return response


def _new_session(url: str) -> requests.Session:
    session = requests.Session()
    # Proxies and certificates are the environment's, but looked up once: requests would do so for
    # every call, for a third of a millisecond, and read ~/.netrc as well.
    environment = session.merge_environment_settings(url, {}, True, None, None)
    session.trust_env = False
    session.proxies, session.verify = environment["proxies"], environment["verify"]
    session.headers["User-Agent"] = f"llmchatlinker/{__version__}"
    # One turn's cookie is no business of the next one's.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = CallAdapter(pool_connections=4, pool_maxsize=CONNECTIONS_PER_PROVIDER)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class Answer:
    """An answer with status 200, as it arrives. Reading it raises what ``failures`` makes of it."""

    def __init__(self, endpoint: Endpoint, call: Call, response: requests.Response) -> None:
        self._endpoint = endpoint
        self._call = call
        self._raw = response.raw
        self._ahead = b""

    def pieces(self) -> Iterator[bytes]:
        """The body, each piece as soon as it is there."""
        size = 0
        while piece := self._next():
            size += len(piece)
            if size > self._endpoint.answer_bytes:
                raise too_large(self._endpoint)
            yield piece

    def events(self) -> Iterator[ServerEvent]:
        """The body as server-sent events."""
        reader = EventReader()
        for piece in self.pieces():
            for event in reader.feed(piece):
                self._still_wanted()
                yield event
        yield from reader.end()

    def lines(self) -> Iterator[tuple[bytes, bool]]:
        """The body as lines, without the empty ones, and whether each has an end."""
        rest: list[bytes] = []
        for piece in self.pieces():
            *whole, last = piece.split(b"\n")
            for line in whole:
                text = b"".join([*rest, line]).strip()
                rest.clear()
                if text:
                    self._still_wanted()
                    yield text, True
            rest.append(last)
        text = b"".join(rest).strip()
        if text:
            yield text, False

    def document(self) -> Any:
        """The whole body as JSON."""
        text = b"".join(self.pieces())
        try:
            return parse(text)
        except (ValueError, RecursionError):
            raise no_document(self._endpoint, text) from None

    def first_byte(self) -> bytes:
        """The first byte that is no white space, left where it is; nothing of an empty answer."""
        while not (start := self._ahead.removeprefix(_BOM).lstrip()):
            piece = self._next(fresh=True)
            if not piece:
                return b""
            self._ahead += piece
            if len(self._ahead) > self._endpoint.answer_bytes:
                raise too_large(self._endpoint)
        return start[:1]

    def rest(self) -> None:
        """Behind the end of what was said: read what is left, if it is little and comes soon."""
        self._call.patience(REST_PATIENCE)
        with suppress(*TRANSPORT_ERRORS):
            for _ in range(REST_PIECES):
                if not self._raw.read1(PIECE):
                    return

    def _next(self, *, fresh: bool = False) -> bytes:
        if self._ahead and not fresh:
            piece, self._ahead = self._ahead, b""
            return piece
        try:
            piece = self._raw.read1(PIECE, decode_content=True) or b""
        except TRANSPORT_ERRORS as error:
            raise broken(self._endpoint, self._call, error) from None
        self._still_wanted()  # one without a length, broken off, looks like one that has ended
        return piece

    def _still_wanted(self) -> None:
        if self._call.aborted:
            raise ended(self._endpoint, self._call)


@contextmanager
def answering(
    endpoint: Endpoint,
    method: str,
    url: str,
    body: dict[str, Any] | None,
    call: Call,
    headers: dict[str, str],
    *,
    streamed: bool = False,
) -> Iterator[Answer]:
    """Send one request; the answer to read, once its status and headers are there.

    ``headers`` go before the endpoint's own. A streamed answer has until ``first_token_timeout`` to
    begin; whoever reads it says to ``call.allow`` how long it may take from there.
    """
    with under_way(call, endpoint.total_timeout):
        if call.aborted:
            raise ended(endpoint, call)
        if streamed:
            call.allow(endpoint.first_token_timeout, "first_token_timeout")
        sent = {**endpoint.headers, **headers, "Accept": "application/json"}
        if streamed:
            sent["Accept"] = "text/event-stream, application/x-ndjson, application/json"
            sent["Accept-Encoding"] = "identity"  # a compressor holds pieces back
        try:
            patience = endpoint.total_timeout if streamed else endpoint.read_timeout
            timeout = (endpoint.connect_timeout, patience)
            response = _send(_kept_for(endpoint), method, url, body, sent, timeout)
        except TRANSPORT_ERRORS as error:
            raise broken(endpoint, call, error) from None
        with response:
            answer = Answer(endpoint, call, response)
            if response.status_code != 200:
                text = b"".join(answer.pieces())
                raise refused(endpoint, response.status_code, text, response.headers)
            yield answer


def exchange(
    endpoint: Endpoint,
    method: str,
    url: str,
    body: dict[str, Any] | None,
    call: Call,
    headers: dict[str, str],
) -> Any:
    """Send one request and return the JSON document that came back."""
    with answering(endpoint, method, url, body, call, headers) as answer:
        return answer.document()
