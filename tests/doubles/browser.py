"""A real browser (Chromium without a screen) on a page, spoken to by its DevTools protocol over a WebSocket."""

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import urllib.request

from serving import wait_for


class Browser:
    """The page `url` until the block ends."""

    def __init__(self, url):
        self.folder = tempfile.TemporaryDirectory(prefix="browser")
        self.process = subprocess.Popen(
            [
                shutil.which("chromium") or shutil.which("chromium-browser"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                "--user-data-dir=" + self.folder.name,
                "--window-size=1100,900",
                url,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            tab = wait_for(self._tab, "the browser's page")
            host, path = tab["webSocketDebuggerUrl"][len("ws://") :].split("/", 1)
            self._sock = socket.create_connection(host.split(":"), timeout=60)
            self._sock.sendall(
                "GET /{} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n".format(
                    path, host, base64.b64encode(os.urandom(16)).decode()
                ).encode()
            )
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self._read(1)
        except BaseException:
            self.close()
            raise
        self._number = 0
        try:
            # What is done to the empty page before it is lost.
            wait_for(lambda: url.startswith(self.js("location.origin") or "nowhere"), "the page's address")
        except BaseException:
            self.close()
            raise

    def _tab(self):
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(self.folder.name, "DevToolsActivePort")) as file:
                port = int(file.readline())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                tabs = json.loads(answer.read().decode())
            return next((tab for tab in tabs if tab["type"] == "page"), None)

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            assert part, "the browser is gone"
            data += part
        return data

    def js(self, expression):
        """The value of a JavaScript expression on the page; None before it has one."""
        self._number += 1
        text = json.dumps(
            {
                "id": self._number,
                "method": "Runtime.evaluate",
                "params": {"expression": expression, "returnByValue": True, "awaitPromise": True},
            }
        ).encode()
        size = bytes((128 | len(text),)) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text) & 0xFFFF)
        if len(text) > 0xFFFF:
            size = b"\xff" + struct.pack(">Q", len(text))
        self._sock.sendall(b"\x81" + size + bytes(4) + text)  # RFC 6455; a mask of zeros changes nothing
        while True:
            length = self._read(2)[1]
            if length >= 126:
                length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
            message = json.loads(self._read(length).decode())
            if message.get("id") == self._number:
                # No result: the page is not there yet.
                return message["result"]["result"].get("value") if "result" in message else None

    def close(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()
        self.close()
