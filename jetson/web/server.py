"""A small HTTP/1.1 server in one thread: no client can hold it up, and none costs a thread.

Its clients come through a door (jetson.web.listener), which listens. All sockets are non-blocking. A request's head
must be whole within 5 s and 8 KiB; a response or stream that makes no progress for 5 s is dropped. A stream (MJPEG,
SSE) has one part under way per viewer; what comes meanwhile is skipped (pictures) or queued up to a limit (events).
When all places are taken, the oldest unfinished request goes.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from typing import Callable, Dict, List, Optional, Set, Tuple, Union

from jetson.web.http import BODY_BYTES, BadRequest, Request, Response, compose, parse_request

_log = logging.getLogger(__name__)

HEAD_BYTES = 8192
HEAD_S = 5.0
IDLE_S = 15.0
STALL_S = 5.0
ONCE_S = 2.0
CONNECTIONS = 128
STREAMS = 32
_QUEUED_PARTS = 64
_SKIPPED_FROM = 20
# s: a viewer whose network is gone says nothing, and where no picture comes nothing is sent to it either: it is asked.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class _Connection:
    """One socket: what it has sent so far, and what it still has to get."""

    def __init__(self, sock: socket.socket, peer: str, now: float) -> None:
        self.sock = sock
        self.peer = peer
        self.received = bytearray()
        self.out: List[memoryview] = []
        self.deadline = now + HEAD_S
        self.close_after = False
        self.topic = ""
        self.latest_only = False
        self.skips = False
        self.pending: Optional[Tuple[Optional[Request], Response]] = None
        self.began = now
        self.mask = selectors.EVENT_READ

    @property
    def waiting(self) -> bool:
        """Whether it is reading a request."""
        return not self.out and not self.topic


class Server:
    """Serves `handle(request) -> Response` to the sockets it is given; `publish` sends parts to a topic's streams.

    `on_viewers(topic, count)` is called in the server's thread when a stream begins or ends.
    """

    def __init__(
        self,
        handle: Callable[[Request], Response],
        on_viewers: Callable[[str, int], None] = lambda topic, count: None,
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        self._handle = handle
        self._on_viewers = on_viewers
        self._headers = headers or {}
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = os.pipe()
        for end in (self._bell, self._ring):
            os.set_blocking(end, False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._open: Dict[int, _Connection] = {}
        self._arrivals: List[Tuple[socket.socket, str, bytes]] = []
        self._inbox: List[Tuple[str, Union[bytes, Response]]] = []
        self._lock = threading.Lock()
        self._stop = False
        self.requests = self.refused = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> "Server":
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close everything."""
        self._stop = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def admit(self, sock: socket.socket, peer: str, received: bytes = b"") -> None:
        """Take over a connection, with what was read from it already; callable from any thread, never waits."""
        with self._lock:
            room = len(self._arrivals) < CONNECTIONS
            if room:
                self._arrivals.append((sock, peer, received))
        if not room:
            self.refused += 1
            sock.close()
        self._wake()

    def publish(self, topic: str, part: Union[bytes, Response]) -> None:
        """Send one part to every stream of `topic`; callable from any thread, never waits.

        To one that waits for one body (`Response.once`), a Response is the whole answer.
        """
        if not self._open and not self._arrivals:
            return  # nobody is here
        with self._lock:
            self._inbox.append((topic, part))
            del self._inbox[:-256]
        self._wake()

    def counts(self) -> Dict[str, int]:
        """Connections and streams now, and what happened so far."""
        connections = list(self._open.values())
        return {
            "connections": len(connections),
            "streams": sum(1 for c in connections if c.topic),
            "requests": self.requests,
            "refused": self.refused,
            "dropped": self.dropped,
        }

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is awake already, or gone
            os.write(self._ring, b"x")

    def _run(self) -> None:
        swept = 0.0
        while not self._stop:
            # Deadlines are of connections; without any, it is woken by the next one.
            for key, mask in self._selector.select(0.5 if self._open else None):
                if key.fd == self._bell:
                    _drain(self._bell)
                else:
                    connection = self._open.get(key.fd)
                    if connection is not None and mask & selectors.EVENT_READ:
                        self._receive(connection)
                    if self._open.get(key.fd) is connection and connection is not None and mask & selectors.EVENT_WRITE:
                        self._send(connection)
                        self._serve(connection)
            self._welcome()
            self._deliver()
            now = time.monotonic()
            if now - swept > 0.25:
                swept = now
                for connection in list(self._open.values()):
                    if now > connection.deadline and connection.pending is not None:
                        self._fulfil(connection, None)
                    elif now > connection.deadline:
                        self.dropped += bool(connection.out or connection.received)
                        self._close(connection)
        for connection in list(self._open.values()):
            self._close(connection)

    def _welcome(self) -> None:
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
        for sock, peer, received in arrivals:
            sock.setblocking(False)
            if len(self._open) >= CONNECTIONS and not self._make_room():
                self.refused += 1
                sock.close()
                continue
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
            connection = _Connection(sock, peer, time.monotonic())
            connection.received += received
            self._open[sock.fileno()] = connection
            self._selector.register(sock, selectors.EVENT_READ)
            self._serve(connection)

    def _make_room(self) -> bool:
        waiting = [c for c in self._open.values() if c.waiting]
        if not waiting:
            return False
        self.refused += 1
        self._close(min(waiting, key=lambda c: c.began))
        return True

    def _close(self, connection: _Connection) -> None:
        number = connection.sock.fileno()
        if self._open.pop(number, None) is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        if connection.topic:
            self._tell(connection.topic)

    def _tell(self, topic: str) -> None:
        self._on_viewers(topic, sum(1 for c in self._open.values() if c.topic == topic))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.topic and connection.pending is None:
            return  # a viewer has nothing more to say
        if not connection.received:
            # The time for a head runs from its first byte; a kept connection may rest longer than that.
            connection.deadline = min(connection.deadline, time.monotonic() + HEAD_S)
            connection.began = time.monotonic()
        connection.received += data
        self._serve(connection)

    def _serve(self, connection: _Connection) -> None:
        """Answer the request that has come in, if it is whole and the last answer is out."""
        # The next request of a pipelining client waits in the buffer, which is bounded too.
        if (connection.out or connection.topic) and len(connection.received) > HEAD_BYTES + BODY_BYTES:
            self._close(connection)
        while not connection.out and not connection.topic and connection.sock.fileno() >= 0:
            while connection.received[:2] == b"\r\n":
                del connection.received[:2]  # RFC 9112, 2.2: an empty line before the request is let pass
            end = connection.received.find(b"\r\n\r\n")
            if end < 0 and len(connection.received) <= HEAD_BYTES:
                return
            head = bytes(connection.received[:end]) if end >= 0 else b""
            used = end + 4 if end >= 0 else len(connection.received)
            request = None
            try:
                if end < 0 or end > HEAD_BYTES:
                    raise BadRequest(431, "the request's head is too long")
                request = parse_request(head, connection.peer)
                length = int(request.headers.get("content-length", "0"))
                if len(connection.received) < used + length:
                    return  # the rest of its body is on the way
                request = request._replace(body=bytes(connection.received[used : used + length]))
                used += length
                response = self._handle(request)
            except BadRequest as error:
                response = Response(
                    error.status,
                    (str(error) + "\n").encode(),
                    headers={"Allow": "GET, HEAD"} if error.status == 405 else {},
                )
                request = None
            except Exception as error:  # a fault in one answer must not end the service
                # What it says is for the log: it may name what a visitor should not see.
                _log.exception("fault in the answer to %r: %s", request.path if request else "", type(error).__name__)
                response = Response(500, b"a fault in this server; its log tells more\n")
            del connection.received[:used]
            self.requests += 1
            self._answer(connection, request, response)

    def _answer(self, connection: _Connection, request: Optional[Request], response: Response) -> None:
        stream = bool(response.topic) and request is not None and request.method == "GET"
        if response.once and response.topic and request is not None and request.method != "HEAD":
            connection.topic, connection.pending = response.topic, (request, response)
            connection.deadline = time.monotonic() + ONCE_S
            return
        if stream and sum(1 for c in self._open.values() if c.topic) >= STREAMS:
            stream, response = False, Response(503, b"too many viewers\n", headers={"Retry-After": "10"})
        keep = request is not None and request.keep_alive and not stream
        data = compose(response, self._headers, request, keep, stream)
        connection.out.append(memoryview(data))
        connection.close_after = not keep and not stream
        connection.deadline = time.monotonic() + STALL_S
        if stream:
            connection.topic, connection.latest_only = response.topic, response.latest_only
            connection.skips = response.skips
            self._tell(connection.topic)
        self._send(connection)

    def _fulfil(self, connection: _Connection, part: Union[bytes, Response, None]) -> None:
        """Give a `once` connection its body; None: there was none in time."""
        if connection.pending is None:
            return
        request, response = connection.pending
        connection.pending, connection.topic = None, ""
        if part is None:
            answer = Response(503, b"no picture came in time\n", headers={"Retry-After": "2"})
        elif isinstance(part, Response):
            answer = part
        else:
            answer = Response(response.status, part, response.kind, response.headers)
        self._answer(connection, request, answer)
        self._serve(connection)

    def _send(self, connection: _Connection) -> None:
        now = time.monotonic()
        try:
            while connection.out:
                count = connection.sock.send(connection.out[0])
                connection.deadline = now + STALL_S
                if count < len(connection.out[0]):
                    connection.out[0] = connection.out[0][count:]
                    break
                connection.out.pop(0)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._close(connection)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        if not connection.out:
            if connection.close_after:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_WR)
                self._close(connection)
                return
            connection.deadline = float("inf") if connection.topic else now + IDLE_S
        if mask != connection.mask:
            connection.mask = mask
            self._selector.modify(connection.sock, mask)

    def _deliver(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, []
        if not inbox:
            return
        newest = {topic: number for number, (topic, _) in enumerate(inbox)}
        topics: Set[str] = set(newest)
        for connection in [c for c in self._open.values() if c.topic in topics]:
            if connection.pending is not None:
                self._fulfil(connection, inbox[newest[connection.topic]][1])
                continue
            for number, (topic, part) in enumerate(inbox):
                if topic != connection.topic or (connection.latest_only and number != newest[topic]):
                    continue
                if connection.latest_only and connection.out:
                    continue  # still sending the last picture: this one is skipped for this viewer
                if isinstance(part, Response) or (connection.skips and len(connection.out) >= _SKIPPED_FROM):
                    continue
                if len(connection.out) > _QUEUED_PARTS:
                    self.dropped += 1
                    self._close(connection)
                    break
                if not connection.out:
                    connection.deadline = time.monotonic() + STALL_S
                connection.out.append(memoryview(part))
            else:
                self._send(connection)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
