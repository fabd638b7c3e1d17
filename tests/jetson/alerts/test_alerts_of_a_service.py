"""From outside: a running service tells a web server who wears no mask, and a test button works."""

import json

from serving import Serving, wait_for


def test_a_service_tells_of_a_person_without_a_mask(tiny_bundle, clip, takes, tmp_path):
    server = takes()
    config = {
        "cameras": {"gate": {"source": clip, "zones": {"all": [[0, 0], [1, 0], [1, 1], [0, 1]]}}},
        "engine": {"variant": "t-320x192-fp32"},
        "compare": {"variants": "off"},
        "alerts": {
            "rules": [{"name": "anybody", "when": "no_mask > 0.1 s in zone all", "cool_down": "1 h"}],
            "receivers": {"office": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/x"}},
            "outbox": str(tmp_path / "alerts.sqlite3"),
        },
    }
    path = tmp_path / "jetmask.json"
    path.write_text(json.dumps(config))
    with Serving(tiny_bundle, options=["--config", str(path)]) as made:
        wait_for(lambda: server.got, "an alert")
        body = json.loads(server.got[0][2].decode())
        assert (body["rule"], body["camera"], body["zone"], body["label"]) == ("anybody", "gate", "all", "without_mask")
        status, headers, told = made.get("/api/v1/alerts")
        told = json.loads(told.decode())
        assert status == 200 and told["alerts"][0]["id"] == body["id"] and told["receivers"][0]["name"] == "office"
        assert made.post("/api/v1/alerts/test", {"receiver": "office"})[0] == 202
        wait_for(lambda: json.loads(server.got[-1][2].decode())["test"], "a test")
        assert made.post("/api/v1/alerts/test", {"receiver": "nobody"})[0] == 404
        assert (
            b'jetmask_alerts_sent_total{receiver="office"}' in made.get("/metrics")[2] or made.get("/metrics")[0] == 501
        )
        events = json.loads(made.get("/api/state")[2].decode())
        assert events["alerts"]["told"] >= 1
