"""A real Prometheus scrapes a real sidecar: each panel of the dashboard has data, and each alert can be evaluated."""

import itertools
import json
import math
import re
import subprocess
import threading
import time

import pytest
import requests

from stage import TIMEOUT
from test_deploy_alerts import ALERTS, PANELS, RULES, resolved

# Labels that a scraper adds. The dashboard and the alerts group by them.
TARGET = {"namespace": "shop", "job": "sidentity"}


class Prometheus:
    """Debian's Prometheus on a free loopback port, with one target and a short retention."""

    def __init__(self, folder, target):
        config = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "sidentity", "static_configs": [{"targets": [target], "labels": TARGET}]}],
        }
        # JSON is valid YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.child = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        self.session = requests.Session()
        self.session.trust_env = False
        self.said = []
        for line in self.child.stderr:
            self.said.append(line)
            if found := re.search(r'"Listening on".* address=(\S+)', line):
                self.address = found[1]
            if "Server is ready" in line:
                break
        else:
            raise AssertionError(f"it ended: {self.said}")
        threading.Thread(target=lambda: self.said.extend(self.child.stderr), daemon=True).start()

    def get(self, path, **params):
        answer = self.session.get(f"http://{self.address}/api/v1/{path}", params=params, timeout=TIMEOUT).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expr):
        """Returns the current values of an expression with their labels. NaN is omitted."""
        found = [(sample["metric"], float(sample["value"][1])) for sample in self.get("query", query=expr)["result"]]
        return [(labels, value) for labels, value in found if math.isfinite(value)]

    def until(self, wanted):
        deadline = time.monotonic() + TIMEOUT
        while not (found := wanted()):
            assert time.monotonic() < deadline, self.said[-5:]
            time.sleep(0.2)
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait(TIMEOUT)


@pytest.fixture(scope="module")
def prometheus(start, tmp_path_factory):
    """Prometheus that scrapes a sidecar with continuous calls, errors and faults."""
    route = ("--route", "127.0.0.1:0=https://svc.a.run.app")
    with start(*route) as sidecar, Prometheus(tmp_path_factory.mktemp("prometheus"), sidecar.admin) as prometheus:
        over = threading.Event()

        def live():
            proxies = {"http": f"http://{sidecar.proxy}"}
            with requests.Session() as session:
                session.trust_env = False
                for n in itertools.takewhile(lambda _: not over.wait(0.05), itertools.count()):
                    # Each service that was not called before needs its own token.
                    new = f"svc-{n}.a.run.app/"
                    for url in (new, "svc.a.run.app/status/403", "storage.googleapis.com/status/503", "nowhere.invalid/"):
                        session.get(f"http://{url}", proxies=proxies, timeout=TIMEOUT)
                    own = {"Authorization": "Bearer the-apps-own"}
                    session.get("http://storage.googleapis.com/", proxies=proxies, headers=own, timeout=TIMEOUT)

        app = threading.Thread(target=live)
        app.start()
        yield prometheus
        over.set()
        app.join(TIMEOUT)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_of_the_dashboard_has_data(prometheus, panel):
    for target in panel["targets"]:
        expr = resolved(target["expr"])
        samples = prometheus.until(lambda: prometheus.query(expr))
        named = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        for labels, value in samples:
            assert named <= set(labels), f"{named} of {labels}"
            assert value >= 0, f"{expr}: {value}"


def test_the_dashboard_shows_the_real_numbers(prometheus):
    exprs = {panel["title"]: resolved(panel["targets"][0]["expr"]) for panel in PANELS}

    def value(panel):
        ((_, value),) = prometheus.until(lambda: prometheus.query(exprs[panel]))
        return value

    # One of five calls ends with the upstream's 503, one with the sidecar's own 502.
    assert prometheus.until(lambda: 0.3 < value("5xx") < 0.5)
    assert 0 < value("First token expires in") <= 3600
    reasons = prometheus.until(lambda: prometheus.query(exprs["Sent without the token of their destination"]))
    assert [labels["reason"] for labels, _ in reasons] == ["existing"]
    errors = prometheus.until(lambda: prometheus.query(exprs["Errors of the sidecar"]))
    assert [labels["error"] for labels, _ in errors] == ["dns_error"]


def test_each_alert_is_evaluated_and_due_ones_are_pending(prometheus):
    def rules():
        found = {rule["name"]: rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]}
        return found if all(rule["health"] == "ok" for rule in found.values()) else None

    found = prometheus.until(rules)
    assert set(found) == {alert["alert"] for alert in ALERTS}
    due = {"SidentityIdentityRejected", "SidentityErrorRate", "SidentityUpstreamUnreachable"}
    assert prometheus.until(lambda: {name for name, rule in rules().items() if rule["state"] != "inactive"} >= due)


def test_prometheus_scrapes_without_warnings(prometheus):
    (target,) = prometheus.until(lambda: prometheus.get("targets")["activeTargets"])
    prometheus.until(lambda: prometheus.query("up") == [({"__name__": "up", "instance": target["labels"]["instance"], **TARGET}, 1.0)])
    metadata = prometheus.get("metadata")
    names = prometheus.get("label/__name__/values")
    for name in names:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if name.startswith(("sidentity_", "process_")):
            assert metadata[family][0]["help"], name
    # No label of the sidecar conflicts with one of the scraper.
    assert not [label for label in prometheus.get("labels") if label.startswith("exported_")]
