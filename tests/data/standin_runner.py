"""A runner for tests of installing: answers /healthz for the bundle it is started on, or fails as its name says.

usage: standin_runner.py BUNDLE PORT. A bundle called "dies" ends at once, "sick" answers 503, "fades" turns sick,
"builds" says for 2.5 s that its engine is being opened, "builds for ever" does not end to.
"""

import http.server
import json
import os
import sys
import time

BUNDLE, PORT = sys.argv[1], int(sys.argv[2])
with open(os.path.join(BUNDLE, "manifest.json")) as file:
    NAME = json.load(file)["name"]
BEGAN = time.monotonic()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = NAME != "sick" and not (NAME == "fades" and time.monotonic() - BEGAN > 1)
        building = NAME == "builds for ever" or (NAME == "builds" and time.monotonic() - BEGAN < 2.5)
        self.send_response(200 if good and not building else 503)
        self.end_headers()
        starting = b'{"ok": false, "status": "starting", "reason": "the engine is being opened"}'
        self.wfile.write(starting if building else NAME.encode())

    def log_message(self, *_):
        pass


if NAME == "dies":
    sys.exit("this bundle cannot be served")
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
