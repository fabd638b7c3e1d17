"""What ships for Prometheus and Grafana: checked by promtool, scraped by a real Prometheus from a real runner."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import stand_ins
import yaml
from broker import Broker
from serving import Serving, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
FOLDER = os.path.join(ROOT, "jetson", "monitoring")

TOKEN = "a-token-of-more-than-16-characters"


def promtool(*words, folder=FOLDER):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool (Debian: apt-get install prometheus)")
    done = subprocess.run(["promtool", *words], cwd=str(folder), capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return json.load(file) if name.endswith(".json") else yaml.safe_load(file)


def rules():
    return [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]


def dashboard_queries():
    """(panel's title, PromQL) with Grafana's variables filled in."""
    for panel in read("grafana-dashboard.json")["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "monitoring")
    (tmp_path / "monitoring" / "jetmask.token").write_text(TOKEN)
    return tmp_path / "monitoring"


def test_scrape_example_is_right(copy):
    code, text = promtool("check", "config", "prometheus.yml", folder=copy)
    assert code == 0 and "13 rules found" in text, text


def test_alerts_hold_their_examples():
    code, text = promtool("test", "rules", "alerts_test.yml")
    assert code == 0, text


@pytest.mark.parametrize("change", ["never", "at once"])
def test_the_examples_notice_an_alert_that_is_wrong(copy, change):
    """Each alert in turn never fires, or fires without waiting: its own examples must fail."""
    for changed in [rule["alert"] for rule in rules() if change == "never" or "for" in rule]:
        groups = read("alerts.yml")
        rule = next(rule for rule in groups["groups"][0]["rules"] if rule["alert"] == changed)
        if change == "never":
            rule["expr"] = "vector(0) > 1"
        else:
            del rule["for"]
        groups["groups"][0]["rules"] = [rule]
        examples = read("alerts_test.yml")
        for one in examples["tests"]:
            one["alert_rule_test"] = [case for case in one["alert_rule_test"] if case["alertname"] == changed]
        (copy / "alerts.yml").write_text(yaml.safe_dump(groups))
        (copy / "alerts_test.yml").write_text(yaml.safe_dump(examples))
        code, text = promtool("test", "rules", "alerts_test.yml", folder=copy)
        assert code != 0 and changed in text, changed


def test_the_alerts_that_were_promised_are_there():
    assert {"JetmaskCameraLost", "JetmaskFrameAge", "JetmaskThrottled", "JetmaskAgreementFallen"} <= {
        rule["alert"] for rule in rules()
    }
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


def test_dashboard_can_be_imported():
    board = read("grafana-dashboard.json")
    assert board["uid"] == "jetmask" and board["title"] and board["schemaVersion"] >= 36 and "id" not in board
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    taken, ids = {}, set()
    for panel in board["panels"]:
        assert panel["id"] not in ids and panel["type"] in ("stat", "timeseries", "table")
        ids.add(panel["id"])
        place = panel["gridPos"]
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert cell[0] < 24 and cell not in taken, f"{panel['title']} lies over {taken.get(cell)}"
            taken[cell] = panel["title"]
        for target in [panel, *panel["targets"]]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        names = set(re.findall(r"\$\{?(\w+)", json.dumps(panel)))
        assert names <= set(variables) | {"__rate_interval"}, panel["title"]


# -- a real runner and a real Prometheus ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner(tiny_bundle, tmp_path_factory):
    """A runner with everything on: two cameras, a trade-off, MQTT, a token; (Serving, broker)."""
    folder = tmp_path_factory.mktemp("runner")
    (folder / "token").write_text(TOKEN)
    (folder / "mqtt.json").write_text(json.dumps({"spool": "spool"}))
    try:
        broker = Broker(folder).start()
    except stand_ins.Missing as error:
        pytest.skip(str(error))
    options = [
        "--token-file",
        str(folder / "token"),
        "--mqtt",
        broker.url,
        "--mqtt-config",
        str(folder / "mqtt.json"),
        "--budget",
        "30",
        "--score",
        "0.1",
    ]
    with Serving(
        tiny_bundle, "synthetic://?size=160x120&fps=5", "synthetic://?size=160x120&fps=5", options=options
    ) as serving:
        yield serving
    broker.kill()


def exposed(serving):
    status, _, body = serving.get("/metrics", {"Authorization": "Bearer " + TOKEN})
    assert status == 200
    from prometheus_client.parser import text_string_to_metric_families

    names, labels = set(), {}
    for family in text_string_to_metric_families(body.decode()):
        names.add(family.name + ("_total" if family.type == "counter" else ""))
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return names, labels


def names_in(text):
    return set(re.findall(r"\bjetmask_[a-z0-9_]+", text))


def test_every_metric_that_is_asked_for_is_exposed(runner):
    names, labels = exposed(runner)
    for what, query in [*dashboard_queries(), *((rule["alert"], rule["expr"]) for rule in rules())]:
        missing = names_in(query) - names
        assert not missing, f"{what} asks for {missing}, which /metrics does not have"
    assert names_in(json.dumps(read("grafana-dashboard.json"))) <= names
    # The words of alerts speak of labels that are there.
    for rule in rules():
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            first = min(names_in(rule["expr"]) or {""}, key=rule["expr"].find)
            assert label == "instance" or label in labels.get(first, {label}), (rule["alert"], label)


def test_no_metric_of_the_examples_is_made_up(runner):
    names, labels = exposed(runner)
    for test in read("alerts_test.yml")["tests"]:
        for series in test["input_series"]:
            name, _, rest = series["series"].partition("{")
            if name != "up":
                assert name in names, name
                assert set(re.findall(r"(\w+)=", rest)) - {"job", "instance"} <= labels.get(name, set()) or (
                    name not in labels
                ), series["series"]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def prometheus(runner, tmp_path_factory):
    """Prometheus with the example's configuration, but for targets and pace; `ask(path, **query)`."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus") / "monitoring"
    shutil.copytree(FOLDER, folder)
    (folder / "jetmask.token").write_text(TOKEN)
    config = read("prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{runner.port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        cwd=str(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(path, **query):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def scraped():
        with contextlib.suppress(OSError):
            return ask("query", query='up{job="jetmask"} == 1')["result"]

    try:
        wait_for(scraped, "Prometheus has scraped the runner with its token")
        yield ask
    finally:
        process.terminate()
        process.wait(30)


# What this machine or a run of seconds has no figures for.
NO_DATA = {
    "Power by rail",
    "Temperature",
    "How far cameras are from their first week",
    "Persons an hour",
    "Boards that slow themselves down",
}


def test_every_panel_has_data(runner, prometheus):
    wait_for(
        lambda: (
            [
                row["agreement"]
                for row in json.loads(runner.get("/api/state", {"Authorization": "Bearer " + TOKEN})[2].decode())[
                    "tradeoff"
                ]["variants"]
            ].count(None)
            == 0
        ),
        "an agreement",
    )
    for title, query in dashboard_queries():
        if title in NO_DATA:
            prometheus("query", query=query)  # an error would be an HTTP error
        else:
            wait_for(lambda: prometheus("query", query=query)["result"], f"{title}: {query}")  # noqa: B023


def test_the_rules_are_evaluated(prometheus):
    def healths():
        found = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule["health"] for rule in found}

    wait_for(lambda: set(healths().values()) == {"ok"}, "all rules evaluated")
    assert set(healths()) == {rule["alert"] for rule in rules()}
    time.sleep(1.5)
    firing = [alert for alert in prometheus("alerts")["alerts"] if alert["state"] == "firing"]
    assert not [alert for alert in firing if alert["labels"]["severity"] == "critical"], firing
