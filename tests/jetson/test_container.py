"""What the image starts, as far as it can be tried without an image."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from jetson import container

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def listening(path):
    """A daemon's socket at `path`, as nvargus-daemon makes it: the old one goes, a new one comes."""
    if os.path.lexists(path):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen(5)
    return made


def reaches(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def test_argus_is_found_again_after_its_daemon_has_started_anew(tmp_path):
    host, own = str(tmp_path / "host"), str(tmp_path / "own")
    os.mkdir(own)
    assert not container.lead_to_argus(host, own), "without a CSI camera nothing is mounted"
    os.mkdir(host)
    assert container.lead_to_argus(host, own) and container.lead_to_argus(host, own)
    path = os.path.join(own, container.ARGUS)
    assert not reaches(path), "docker may start before the daemon"
    for _ in range(2):
        with listening(os.path.join(host, container.ARGUS)):
            assert reaches(path)
        assert not reaches(path)


@pytest.mark.skipif(
    os.getuid() != 0 or subprocess.call(["unshare", "-m", "true"], stderr=subprocess.DEVNULL) != 0,
    reason="needs root and mount namespaces",
)
def test_a_folder_that_is_mounted_read_only_lets_its_sockets_be_used(tmp_path):
    host = tmp_path / "host"
    host.mkdir()
    (tmp_path / "inside").mkdir()
    with listening(str(host / container.ARGUS)):
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'inside' / container.ARGUS)!r})"
        mounts = f"mount --bind {host} {tmp_path}/inside && mount -o remount,ro,bind {tmp_path}/inside"
        words = f'{mounts} && ! touch {tmp_path}/inside/x 2>/dev/null && exec "$@"'
        subprocess.check_call(["unshare", "-m", "sh", "-c", words, "sh", sys.executable, "-c", code])


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", "localhost"])
def test_health_is_asked_on_loopback_where_the_runner_listens_everywhere(host):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)

        def answer():
            client = server.accept()[0]
            client.recv(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert container.health(server.getsockname()[1], host) == 0
        thread.join()
