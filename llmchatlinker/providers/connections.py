"""Connections that a call can be broken off on at any moment, from the look-up of the name on.

urllib3 resolves a name without any timeout, and connects without telling anybody the socket. So
connecting is done here, in short waits that look at the call in between.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family
from urllib3.util.wait import wait_for_write

from llmchatlinker.providers.calls import Call, current_call
from llmchatlinker.providers.reach import within_reach

#: Seconds between two looks at whether the call is still wanted.
LOOK = 0.1
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class _Noted:
    """A connection that tells the thread's call which socket it depends on."""

    sock: Any
    _call: Call | None = None
    _spare: socket.socket | None = None
    _tls = False

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]  # of HTTPConnection, beside this class
        finally:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
        self._note()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._note()  # a pooled connection is connected already
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def let_go(self) -> None:
        """The call has read its answer to the end: what happens to it is not this one's any more."""
        call, self._call = self._call, None
        if call is not None and call.lets_go():
            self.close()  # type: ignore[attr-defined]

    def _note(self) -> None:
        call = current_call()
        if call is not None and self.sock is not None:
            # Sending has no timeout of its own: urllib3's would be the one for connecting, and a
            # question with images takes its time. The watchdog looks after it.
            self.sock.settimeout(None)
            self._call = call
            call.connected = True
            call.uses(self.sock)

    def _new_conn(self) -> socket.socket:
        call = current_call()
        if call is None:
            made: socket.socket = super()._new_conn()  # type: ignore[misc]
            return made
        host: str = self._dns_host  # type: ignore[attr-defined]
        port: int = self.port  # type: ignore[attr-defined]
        timeout: float | None = self.timeout  # type: ignore[attr-defined]
        this: Any = self
        try:
            proxied = getattr(this, "proxy", None) is not None  # which looks up the name itself
            made = _connected(host.strip("[]"), port, timeout, this.socket_options, call, proxied)
        except socket.gaierror as error:
            raise NameResolutionError(this.host, this, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(this, f"Connection to {this.host} timed out") from error
        except OSError as error:
            raise NewConnectionError(this, f"Failed to establish a connection: {error}") from error
        sys.audit("http.client.connect", self, this.host, port)
        if self._tls:  # the handshake takes the socket's descriptor away from it
            self._spare = made.dup()
        call.uses(self._spare or made)
        return made


def _connected(
    host: str, port: int, timeout: float | None, options: Any, call: Call, proxied: bool
) -> Any:
    end = time.monotonic() + (timeout if timeout is not None else float("inf"))
    failed: OSError = OSError("no address has that name")
    found = _resolved(host, port, end, call)
    for family, kind, protocol, _, address in found if proxied else within_reach(host, found):
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this system does not speak
            failed = error
            continue
        try:
            for option in options or ():
                made.setsockopt(*option)
            made.setblocking(False)
            _check(made.connect_ex(address), *_UNDER_WAY)
            while not wait_for_write(made, LOOK):
                _look(call, end)
            _check(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
            _look(call, float("inf"))
            made.settimeout(timeout)
            return made
        except BaseException as error:
            made.close()
            if not isinstance(error, OSError) or isinstance(error, TimeoutError) or call.aborted:
                raise
            failed = error
    raise failed


def _resolved(host: str, port: int, end: float, call: Call) -> list[Any]:
    """The addresses of the name; it is looked up in another thread, since that can't be broken off."""
    family = allowed_gai_family()
    try:
        return socket.getaddrinfo(
            host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except socket.gaierror:
        pass  # a name
    found: list[Any] = []
    failed: list[Exception] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    while not done.wait(LOOK):
        _look(call, end)
    if failed:
        raise failed[0]
    return found


def _look(call: Call, end: float) -> None:
    if call.aborted:
        raise ConnectionAbortedError("broken off")
    if time.monotonic() > end:
        raise TimeoutError


def _check(code: int, *fine: int) -> None:
    if code not in fine:
        raise OSError(code, os.strerror(code))


class _PlainConnection(_Noted, HTTPConnection):
    pass


class _TlsConnection(_Noted, HTTPSConnection):
    _tls = True


class _PutsBack:
    """A pool whose connections are nobody's while they are in it."""

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.let_go()
        super()._put_conn(conn)  # type: ignore[misc]


class _PlainPool(_PutsBack, HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(_PutsBack, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class CallAdapter(HTTPAdapter):
    """requests' adapter, with connections that can be broken off; through a proxy as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """The same pools, of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The same pools, of our connections."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
