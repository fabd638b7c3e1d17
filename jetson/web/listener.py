"""The listening socket, in a thread of its own: it answers /healthz itself and hands every other client to the server.

So health is told from the loop's heartbeat whatever the server is doing: busy, full of viewers, or standing still. Only
the first bytes of a connection are looked at here; they go along with it.
"""

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from typing import Callable, Dict, Optional

from jetson.net import listen
from jetson.web.http import BadRequest, Request, Response, compose, parse_request

_log = logging.getLogger(__name__)

HEAD_BYTES = 8192
HEAD_S = 5.0
WAITING = 128
# The absolute form too: what it asks for is known when the line is whole.
_OURS = (b"GET /healthz", b"HEAD /healthz", b"GET http", b"HEAD http")


class _Caller:
    """A connection that has not yet said what it wants."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.received = bytearray()
        self.deadline = time.monotonic() + HEAD_S


class Door:
    """Listens on an address from the start; from `start()` on, `health(request)` answers GET and HEAD of /healthz.

    `admit(sock, peer, received)` gets the others, with what they have said so far. Both are called in this thread and
    must not wait. BadInput or UsageError when the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        health: Callable[[Request], Response],
        admit: Callable[[socket.socket, str, bytes], None],
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        self._health = health
        self._admit = admit
        self._headers = headers or {}
        self._listener = listen(host, port)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._callers: Dict[int, _Caller] = {}
        self._pause_until = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)

    def start(self) -> "Door":
        """Begin to accept."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the listener and those who wait."""
        self._stop = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes its thread
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._listener.close()

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select(0.25 if self._callers or self._pause_until else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd in self._callers:
                    self._listen_to(self._callers[key.fd])
            now = time.monotonic()
            for caller in [c for c in self._callers.values() if now > c.deadline]:
                self._let_go(caller).close()
            if self._pause_until and now > self._pause_until:
                self._pause_until = 0.0
                self._selector.register(self._listener, selectors.EVENT_READ)
        for caller in list(self._callers.values()):
            self._let_go(caller).close()

    def _accept(self) -> None:
        for _ in range(32):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    # Out of descriptors: the listener would be ready for ever and the loop would spin.
                    self._selector.unregister(self._listener)
                    self._pause_until = time.monotonic() + 0.5
                return
            sock.setblocking(False)
            if len(self._callers) >= WAITING:
                self._let_go(min(self._callers.values(), key=lambda c: c.deadline)).close()
            caller = self._callers[sock.fileno()] = _Caller(sock, str(address[0]))
            self._selector.register(sock, selectors.EVENT_READ)
            self._listen_to(caller)

    def _let_go(self, caller: _Caller) -> socket.socket:
        del self._callers[caller.sock.fileno()]
        self._selector.unregister(caller.sock)
        return caller.sock

    def _listen_to(self, caller: _Caller) -> None:
        try:
            data = caller.sock.recv(HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._let_go(caller).close()
            return
        caller.received += data
        said = bytes(caller.received)
        if not any(said.startswith(ours) or ours.startswith(said) for ours in _OURS):
            self._admit(self._let_go(caller), caller.peer, said)
        elif b"\r\n\r\n" in said or len(said) > HEAD_BYTES:
            self._answer(caller, said)

    def _answer(self, caller: _Caller, said: bytes) -> None:
        request = None
        try:
            if len(said) > HEAD_BYTES:
                raise BadRequest(431, "the request's head is too long")
            end = said.index(b"\r\n\r\n")
            request = parse_request(said[:end], caller.peer)
            if request.path != "/healthz" or len(said) > end + 4:  # another page, or more than one request at once
                self._admit(self._let_go(caller), caller.peer, said)
                return
            response = self._health(request)
        except BadRequest as error:
            response = Response(error.status, (str(error) + "\n").encode())
        except Exception as error:  # whatever is wrong there: no answer would look like a dead process
            _log.error("fault in /healthz: %s: %s", type(error).__name__, error)
            response = Response(500, b"a fault in this server; its log tells more\n")
        sock = self._let_go(caller)
        # A few hundred bytes always fit into the buffer of a new socket.
        with contextlib.suppress(OSError):
            sock.send(compose(response, self._headers, request, keep=False))
            sock.shutdown(socket.SHUT_WR)
        sock.close()
