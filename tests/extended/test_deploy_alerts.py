"""deploy/prometheus and deploy/grafana: Prometheus accepts them, and a real sidecar has all metrics that they use."""

import json
import re
import subprocess

import pytest
import requests
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from manifests import DEPLOY
from stage import TIMEOUT, ROOT

RULES = DEPLOY / "prometheus" / "alerts.yaml"
TESTS = DEPLOY / "prometheus" / "alerts_test.yaml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target for panel in PANELS for target in panel["targets"]]


def promtool(*args):
    return subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT)


def test_prometheus_accepts_the_rules_and_their_tests_pass():
    for args in (("check", "rules", "--lint-fatal", RULES), ("test", "rules", TESTS)):
        done = promtool(*args)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [alert["alert"] for alert in ALERTS])
def test_the_rule_tests_detect_an_alert_that_never_or_always_fires(alert, tmp_path):
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    for expr in ("vector(0) > 1", "vector(1)"):
        rules = yaml.safe_load(RULES.read_text())
        (rule,) = [rule for rule in rules["groups"][0]["rules"] if rule["alert"] == alert]
        rule["expr"] = expr
        (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
        assert promtool("test", "rules", tmp_path / TESTS.name).returncode != 0


def test_each_alert_has_a_severity_and_a_valid_runbook_link():
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "operating.md").read_text(), re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"]["summary"] and alert["annotations"]["description"]
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/operating.md") and anchor in anchors


def resolved(expr):
    """Returns a panel's expression as Grafana sends it."""
    return re.sub(r"\$__rate_interval", "2m", re.sub(r"\$(namespace|job)\b", ".*", expr))


def test_the_dashboard_is_valid_for_grafana():
    read = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), default=lambda part: part.to_json()))
    assert (read["uid"], len(read["panels"])) == ("sidentity", len(DASHBOARD["panels"]))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    # Every used variable exists, and no data source is named.
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) <= variables
    assert all(target["datasource"]["uid"] == "${datasource}" for target in TARGETS)


def test_prometheus_accepts_the_expressions_of_the_dashboard(tmp_path):
    rules = [{"record": f"panel:{i}", "expr": resolved(target["expr"])} for i, target in enumerate(TARGETS)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


# A metric's name and its label matchers in braces.
SELECTOR = re.compile(r'\b((?:sidentity|process)_[a-z_]+)(?:\{([^}]*)\})?')
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
# Labels that the scraper adds.
TARGET_LABELS = {"namespace", "job", "instance"}


def selectors(expr):
    for name, matchers in SELECTOR.findall(resolved(expr)):
        yield name, MATCHER.findall(matchers)


def matches(labels, matchers):
    for label, operator, value in matchers:
        if label in TARGET_LABELS:
            continue
        equal = bool(re.fullmatch(value, labels[label])) if "~" in operator else labels[label] == value
        if equal == operator.startswith("!"):
            return False
    return True


@pytest.fixture(scope="module")
def series(start):
    """Returns the series of a sidecar after calls, one of them with an error."""
    with start("--route", "127.0.0.1:0=https://svc.a.run.app") as sidecar, requests.Session() as session:
        session.trust_env = False
        assert session.get(f"http://{sidecar.routes[0]}/", timeout=TIMEOUT).status_code == 200
        proxies = {"http": f"http://{sidecar.proxy}"}
        assert session.get("http://nowhere.invalid/", proxies=proxies, timeout=TIMEOUT).status_code == 502
        text = session.get(f"http://{sidecar.admin}/metrics", timeout=TIMEOUT).text
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels or "")))
    return found


EXPRESSIONS = {alert["alert"]: alert["expr"] for alert in ALERTS} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_queried_metric_label_and_value_exists(name, series):
    expr = EXPRESSIONS[name]
    asked = list(selectors(expr))
    assert asked
    for metric, matchers in asked:
        assert metric in series, f"{name}: there is no {metric}"
        # Each label exists on the metric, and a series could have the value.
        assert any(matches(labels, matchers) for labels in series[metric]), f"{name}: {metric}{matchers}"
    known = {label for metric, _ in asked for labels in series[metric] for label in labels} | TARGET_LABELS | {"le"}
    for labels in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", expr):
        assert set(re.split(r",\s*", labels)) <= known


def test_every_metric_is_used_by_a_dashboard_or_alert(series):
    asked = {metric for expr in EXPRESSIONS.values() for metric, _ in selectors(expr)}
    ours = {name for name in series if name.startswith("sidentity_")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == set()
