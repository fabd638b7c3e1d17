"""The HTTP server against clients as they should not be."""

import contextlib
import random
import socket
import threading
import time

import pytest
from refusals import refused
from serving import wait_for

from jetson import net
from jetson.errors import BadInput, UsageError
from jetson.web import listener, server
from jetson.web.http import BadRequest, Response, parse_request


def handle(request):
    if request.path == "/stream":
        return Response(200, b"", "x", topic="t", latest_only=True)
    if request.path == "/events":
        return Response(200, b"hello", "x", topic="t")
    if request.path == "/once":
        return Response(200, b"", "x", topic="t", once=True)
    if request.path == "/big":
        return Response(200, b"x" * 5000000)
    if request.path == "/fault":
        raise ZeroDivisionError("a fault")
    return Response(200, b"ok " + request.path.encode())


def health(request):
    return Response(200, b"well\n")


@pytest.fixture
def running():
    made = server.Server(handle, headers={"X-Test": "1"}).start()
    entrance = listener.Door("127.0.0.1", 0, health, made.admit, {"X-Test": "1"}).start()
    made.port = entrance.port
    yield made
    entrance.stop()
    made.stop()


def talk(port, data, timeout=10.0):
    """Send bytes; all that comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def read_all(sock):
    parts = []
    try:
        while True:
            part = sock.recv(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    except (ConnectionResetError, socket.timeout):
        return b"".join(parts)


def get(port, path="/", timeout=10.0):
    return talk_close(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), timeout)


def talk_close(port, data, timeout=10.0):
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(data)
        return read_all(sock)


def test_answers(running):
    reply = get(running.port, "/a%20b?c=d")
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n") and reply.endswith(b"\r\n\r\nok /a b") and b"X-Test: 1" in reply


def test_keep_alive_and_pipelining(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
        sock.sendall(b"".join(f"GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for n in range(100)))
        data = b""
        while data.count(b"ok /") < 100:
            part = sock.recv(65536)
            assert part
            data += part
        assert data.index(b"ok /7") < data.index(b"ok /8")


def test_head_has_no_body(running):
    reply = talk_close(running.port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 4" in reply and reply.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n bad\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", 400),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", 400),
        (b"A" * 9000, 431),
        (b"GET /fault HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 500),
    ],
)
def test_what_is_not_http_is_refused(running, request_bytes, status):
    assert talk_close(running.port, request_bytes).split(b" ")[1] == str(status).encode()
    assert get(running.port).startswith(b"HTTP/1.1 200")


def test_many_malformed_requests(running):
    """2,000 mutations of a good request, on real sockets; afterwards it still serves."""
    draw = random.Random(5)
    good = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nConnection: close\r\n\r\n"
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            kind, at = draw.randint(0, 3), draw.randrange(len(data) + 1)
            if kind == 0:
                data[at:at] = bytes([draw.randrange(256)])
            elif kind == 1:
                del data[at : at + draw.randint(1, 10)]
            elif kind == 2 and at < len(data):
                data[at] = draw.randrange(256)
            else:
                data[at:at] = draw.choice([b"\r\n", b"\n", b"\0", b"Content-Length: 9\r\n", b":", b" "])
        reply = talk(running.port, bytes(data))
        assert reply == b"" or reply.startswith(b"HTTP/1.1 "), data
        assert b" 500 " not in reply[:16], data
    assert get(running.port).startswith(b"HTTP/1.1 200")
    assert running.counts()["connections"] <= 2


def test_dripping_sockets_do_not_keep_others_out(running):
    """200 requests that come byte by byte and never end, for the page and for the health."""
    sockets = []
    stop = threading.Event()
    try:
        for _ in range(200):
            sockets.append(socket.create_connection(("127.0.0.1", running.port), timeout=10))

        def drip():
            for step in range(1000):
                for number, sock in enumerate(sockets):
                    text = b"GET /page HTTP/1.1\r\nX: " if number % 2 else b"GET /healthz HTTP/1.1\r\nX: "
                    with contextlib.suppress(OSError):
                        sock.send((text + b"x" * 1000)[step : step + 1])
                if stop.wait(0.1):
                    return

        threading.Thread(target=drip, daemon=True).start()
        for _ in range(20):
            assert get(running.port).endswith(b"ok /") and get(running.port, "/healthz").endswith(b"well\n")
            assert running.counts()["connections"] <= server.CONNECTIONS
            time.sleep(0.1)
        for sock in sockets:  # none is kept for longer than a head may take
            sock.settimeout(server.HEAD_S + listener.HEAD_S + 20)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(10) == b""
    finally:
        stop.set()
        for sock in sockets:
            sock.close()


def test_stalled_viewers_are_dropped_and_others_served(running):
    viewers = []
    for number in range(8):
        sock = socket.socket()
        if number < 4:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", running.port))
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        viewers.append(sock)
    wait_for(lambda: running.counts()["streams"] == 8, "8 viewers")
    got = [0] * 8
    stop = threading.Event()

    def read(number):
        while not stop.is_set():
            try:
                data = viewers[number].recv(65536)
            except OSError:
                return
            if not data:
                return
            got[number] += len(data)

    threads = [threading.Thread(target=read, args=(n,), daemon=True) for n in range(4, 8)]
    for thread in threads:
        thread.start()
    part = b"p" * 300000
    end = time.monotonic() + server.STALL_S + 30
    while running.counts()["streams"] > 4 and time.monotonic() < end:
        running.publish("t", part)
        time.sleep(0.05)
    assert running.counts()["streams"] == 4 and running.counts()["dropped"] >= 4
    before = list(got)
    running.publish("t", part)
    wait_for(lambda: all(got[n] - before[n] >= len(part) for n in range(4, 8)), "the picture at the others")
    stop.set()
    for sock in viewers:
        sock.close()


def test_once_gets_the_next_part_or_an_end(running):
    sock = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    sock.sendall(b"GET /once HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_for(lambda: running.counts()["streams"] == 1, "the waiter")
    running.publish("t", b"picture")
    assert read_all(sock).endswith(b"Content-Length: 7\r\n\r\npicture")
    sock.close()
    assert get(running.port, "/once").startswith(b"HTTP/1.1 503")


def test_a_request_that_comes_while_a_picture_is_waited_for_is_answered_after_it(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
        sock.sendall(b"GET /once HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: running.counts()["streams"] == 1, "the waiter")
        sock.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(0.3)
        running.publish("t", b"picture")
        data = read_all(sock)
    assert data.index(b"\r\n\r\npicture") < data.index(b"ok /next")


def test_a_viewer_whose_network_is_gone_is_asked(running):
    """The kernel's keepalive timer runs (`02`, proc_net_tcp.txt), where nothing is sent and the peer may be dead."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: running.counts()["streams"] == 1, "the viewer")
        theirs = f"{sock.getsockname()[1]:04X}"

        def timer():
            with open("/proc/net/tcp") as file:
                rows = [line.split() for line in file]
            return next(row[5] for row in rows if row[2].endswith(":" + theirs))

        wait_for(lambda: timer().startswith("02:"), "the keepalive timer")
        assert int(timer().partition(":")[2], 16) <= 30 * 100  # in 1/100 s


def test_too_many_viewers_are_told(running):
    sockets = []
    for _ in range(server.STREAMS):
        sock = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.append(sock)
    wait_for(lambda: running.counts()["streams"] == server.STREAMS, "all viewers")
    assert get(running.port, "/events").startswith(b"HTTP/1.1 503")
    assert get(running.port, "/").startswith(b"HTTP/1.1 200")
    for sock in sockets:
        sock.close()


def test_a_slow_reader_gets_all_of_a_large_answer(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        total = 0
        while True:
            data = sock.recv(200000)
            if not data:
                break
            total += len(data)
            time.sleep(0.01)
    assert total > 5000000


def test_health_is_told_while_the_server_stands_still():
    """The server's one thread is held up in an answer, its places are full, and 200 clients drip health requests."""
    let_go = threading.Event()

    def hold(request):
        let_go.wait(60)
        return Response(200, b"late")

    made = server.Server(hold).start()
    entrance = listener.Door("127.0.0.1", 0, health, made.admit).start()
    sockets = []
    try:
        for number in range(400):
            sock = socket.create_connection(("127.0.0.1", entrance.port), timeout=10)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if number < 200 else b"GET /healthz HTTP/1.1\r\nHo")
            sockets.append(sock)
            if number % 40 == 39:
                assert get(entrance.port, "/healthz").endswith(b"\r\n\r\nwell\n")
        let_go.set()
        wait_for(lambda: get(entrance.port).endswith(b"late"), "the server's answer")
    finally:
        let_go.set()
        for sock in sockets:
            sock.close()
        entrance.stop()
        made.stop()


@pytest.mark.parametrize(
    "data, wanted",
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"well\n"),
        (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"\r\n\r\n"),
        (b"GET /healthzz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"ok /healthzz"),
        (b"GET /healthz?a=b HTTP/1.1\r\nHost: x\r\n\r\n", b"well\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"ok /b"),
        (b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n", b"not a header line\n"),
        # Cookies of everything else on that host come along, and what proxies add.
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 4000 + b"\r\n\r\n", b"well\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: " + b"x" * 9000, b"too long\n"),
    ],
    ids=lambda value: str(len(value)),
)
def test_what_the_door_answers_and_what_it_hands_on(running, data, wanted):
    for size in (len(data), 7):
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for at in range(0, len(data), size):
                    sock.sendall(data[at : at + size])
                    time.sleep(0.0005 if size == 7 else 0)
            reply = read_all(sock)
            assert reply.endswith(wanted) or (size == 7 and len(data) > 8192 and not reply), reply


def test_port_in_use_and_foreign_address(running):
    with refused(BadInput, where=f"127.0.0.1:{running.port}", names="--port"):
        net.listen("127.0.0.1", running.port)
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(UsageError):
            net.listen(host, 0)


def test_parse_request_reads_queries_and_joins_headers():
    request = parse_request(b"GET /x?a=1&b=%20 HTTP/1.1\r\nHost: h\r\nAccept: a\r\nAccept: b")
    assert request.query == {"a": "1", "b": " "} and request.headers["accept"] == "a, b" and request.keep_alive
    assert not parse_request(b"GET / HTTP/1.0").keep_alive
    with pytest.raises(BadRequest):
        parse_request(b"")
