"""Addresses of this machine: to listen on, and to tell others."""

import contextlib
import errno
import socket

from jetson.errors import BadInput, JetmaskError, UsageError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a port in use, a foreign address and a refused port are told as such."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0]
    except (socket.gaierror, OverflowError, UnicodeError) as error:
        raise UsageError(
            f"not an address to listen on: {error}",
            f"{host}:{port}",
            "an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        ) from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise BadInput(
                "the port is in use",
                where,
                "a free port",
                "end the other program (`ss -ltnp` shows it), or choose another with --port",
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError("this machine does not have the address", where, "an address of this machine") from error
        if error.errno == errno.EACCES:
            raise BadInput("this user may not listen on the port", where, "a port of 1024 or more") from error
        raise JetmaskError(f"cannot listen: {error.strerror}", where) from error
    sock.setblocking(False)
    return sock


def loopback(host: str) -> bool:
    """Whether only this machine can reach `host`.

    >>> loopback("127.0.0.1"), loopback("localhost"), loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        found = socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return False
    return all(entry[4][0] == "::1" or str(entry[4][0]).startswith("127.") for entry in found)


def address(host: str) -> str:
    """The address to tell who asks where a server that listens on `host` is: `host` itself, or where that means every
    address of this machine, the one by which it reaches others (of several networks, the one with the default route);
    loopback's where it is on no network. Nothing is sent.

    >>> address("127.0.0.1"), address("10.1.2.3")
    ('127.0.0.1', '10.1.2.3')
    """
    if host not in ("0.0.0.0", "::"):
        return host
    # A datagram socket's connect only looks the route up. Addresses for documentation (RFC 5737, RFC 3849).
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        if host == "0.0.0.0" and family == socket.AF_INET6:
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1"
