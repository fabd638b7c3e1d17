"""jetson/web/openapi.json against the real server: every path, its answer, and what it takes."""

import http.client
import json
import os
import runpy

import jsonschema
import pytest
from serving import Serving, wait_for

from jetson.events.store import Store
from jetson.monitor.journal import Journal, stamp
from jetson.monitor.status import Status
from jetson.web import access, history, picture, server, site
from jetson.web import http as message

WEB = os.path.dirname(os.path.abspath(site.__file__))
with open(os.path.join(WEB, "openapi.json"), encoding="utf-8") as _file:
    SPEC = json.load(_file)
OPERATIONS = [(path, method) for path, item in SPEC["paths"].items() for method in item]


@pytest.fixture(scope="module")
def serving(tiny_bundle, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    zones = folder / "zones"
    zones.write_text("line 0 door 0.5,0 0.5,1\npolygon 0 queue 0.1,0.1 0.5,0.1 0.5,0.9\n")
    store = Store(str(folder / "events.sqlite3"), days=36500).start()
    store.add({"at": stamp(1.8e9), "kind": "enter", "camera": "gate", "label": "with_mask", "person": 1})
    assert store.flush()
    store.close()
    options = ["--zones", str(zones), "--history", str(folder / "events.sqlite3"), "--history-days", "3650"]
    with Serving(tiny_bundle, clip, options=options) as made:
        wait_for(lambda: made.state()["results"], "a result")
        yield made


def validator(schema):
    return jsonschema.Draft202012Validator(dict(schema, components=SPEC["components"]))


def test_every_route_of_the_server_is_described_and_no_other():
    made = history.History(None, lambda topic, body: None)
    told = server.Server(lambda request: message.Response())
    studio = picture.Studio(0, lambda *args: None)
    status = Status(None, None, None)
    routes = site.Site(status, Journal(), access.Access(), told, picture.Pictures(told), studio, made)
    try:
        pages = {path for path, (name, _) in site.FILES.items() if name == "index.html"}
        assets = {path for path, (name, _) in site.FILES.items() if name.endswith((".js", ".css", ".svg"))}
        others = set(site.FILES) - pages - assets
        served = set(routes.answers) | set(made.answers) | others | {"/", access.CODE_PATH, "/api/crops/{key}"}
        served |= {history.MEDIA_PATH + "{name}"}
        served |= {path for _, path in message.CHANGES}
        assert served == set(SPEC["paths"])
        changing = {(method.upper(), path) for path, method in OPERATIONS if method != "get"}
        assert changing == set(message.CHANGES)
    finally:
        made.close()
        studio.stop()


@pytest.mark.parametrize("path, method", OPERATIONS)
def test_an_answer_is_as_described(serving, path, method):
    told = SPEC["paths"][path][method]
    body, headers = None, {}
    if method == "put":
        # Taken before it is sent: what the description allows, the server must take.
        body = {"zones": [{"kind": "zone", "name": "area", "points": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.8]]}]}
        validator(told["requestBody"]["content"]["application/json"]["schema"]).validate(body)
        body, headers = json.dumps(body), {"Content-Type": "application/json"}
    elif method == "post":
        body, headers = json.dumps({"receiver": "office"}), {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
    query = "?camera=0" if any(p["name"] == "camera" for p in told["parameters"]) else ""
    connection.request(method.upper(), path.replace("{key}", "0-1").replace("{name}", "x.jpg") + query, body, headers)
    answer = connection.getresponse()
    described = told["responses"].get(str(answer.status))
    assert described is not None, (answer.status, answer.read())
    kinds = described.get("content", {})
    if kinds:
        assert answer.getheader("Content-Type") in kinds
    if answer.getheader("Content-Type") == "application/json":
        validator(kinds["application/json"]["schema"]).validate(json.loads(answer.read().decode()))
    connection.close()


@pytest.mark.parametrize(
    "path", [path for path, method in OPERATIONS if method == "get" and path.startswith("/api/v1/") and "{" not in path]
)
def test_every_parameter_is_taken(serving, path):
    """A value that its schema allows is no bad request."""
    values = {"camera": "0", "since": "2026-12-01", "until": "2026-12-02T08:00Z", "before": "5", "count": "3"}
    for one in SPEC["paths"][path]["get"]["parameters"]:
        value = one["schema"].get("enum", [values.get(one["name"], "x")])[-1]
        extra = "&until=2026-12-02" if one["name"] == "since" else ""
        assert serving.get(f"{path}?{one['name']}={value.replace(' ', '%20')}{extra}")[0] == 200, one["name"]


def test_the_description_is_well_formed():
    for name, schema in SPEC["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert name in json.dumps(SPEC["paths"]) or f"schemas/{name}" in json.dumps(SPEC["components"]), name
    assert SPEC["openapi"].startswith("3.1")


def test_the_reference_is_up_to_date():
    root = os.path.dirname(os.path.dirname(WEB))
    done = runpy.run_path(os.path.join(root, "docs", "http_reference.py"))
    with open(os.path.join(root, "docs", "reference", "http.md"), encoding="utf-8") as file:
        assert done["text_of"]() == file.read(), "python docs/http_reference.py"
