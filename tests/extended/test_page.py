"""The status page in headless Chromium: content, behaviour and isolation. target/extended/page has screenshots."""

import base64
import http.server
import json
import threading
import urllib.parse

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from stage import TIMEOUT, WORK, Emulator, Sidecar

PICTURES = WORK / "page"
AXE = WORK / "clients" / "node_modules" / "axe-core" / "axe.min.js"
# Name, width, dark.
LOOKS = [("light", 1280, False), ("dark", 1280, True), ("narrow", 360, False), ("narrow-dark", 360, True)]
# Disables Chromium's own background requests, which it otherwise sends at every start.
QUIET = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-default-apps --hide-scrollbars --lang=en""".split()
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


class Browser:
    """One page in one browser, with its console and its requests."""

    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in [*QUIET, f"--user-data-dir={folder}"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_script_timeout(TIMEOUT)

    def open(self, address, width=1280, dark=False):
        """Opens the page of this admin port, and waits for its data."""
        self.address = address
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(f"http://{address}/")
        self.until(lambda: "Seen at" in self.text("updated"))
        return self

    def until(self, wanted):
        return WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.1).until(lambda _: wanted())

    def find(self, id):
        return self.driver.find_element(By.ID, id)

    def text(self, id):
        return self.find(id).text

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, id):
        for _ in range(40):
            webdriver.ActionChains(self.driver).send_keys(Keys.TAB).perform()
            if self.driver.switch_to.active_element.get_attribute("id") == id:
                return
        raise AssertionError(f"the keyboard does not reach {id}")

    def picture(self, name, height=None):
        """Takes a screenshot of the whole page, or of its upper part."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        width, whole = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        height = height or whole
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def assert_accessible(self):
        found = self.driver.execute_async_script(
            AXE.read_text() + "; const done = arguments[0]; axe.run(document).then((r) => done(r), (e) => done(String(e)));"
        )
        problems = [
            (problem["id"], node["html"], node.get("failureSummary")) for problem in found["violations"] for node in problem["nodes"]
        ]
        assert not problems, problems
        assert len(found["passes"]) > 20

    def assert_at_peace(self):
        """Asserts that the console has no error and no policy violation, and that only the sidecar was called."""
        assert self.driver.get_log("browser") == []
        hosts = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urllib.parse.urlsplit(message["params"]["request"]["url"])
                # chrome: and chrome-untrusted: are Chromium's own first page, which the log may still contain.
                own = url.scheme == "data" or url.scheme.startswith("chrome")
                hosts.add(self.address if own else url.netloc)
        assert hosts <= {self.address}, hosts


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium):
    for log in ("browser", "performance"):
        chromium.driver.get_log(log)
    return chromium


def call(url, proxy=None):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, proxies={"http": f"http://{proxy}"} if proxy else None, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def busy(start):
    """A sidecar after calls, errors, a refusal, and a token that was not accepted."""
    with start(
        "--route", "127.0.0.1:0/billing=https://svc.a.run.app",
        "--rule", "iap.example.com=id,audience=123-x.apps.googleusercontent.com,header=proxy-authorization",
        "--rule", "*.denied.example=deny",
        "--rule", "*.unnamed.example=id",
        "--route", "127.0.0.1:0=https://public.example",
    ) as sidecar:
        for n in range(20):
            call(f"http://{sidecar.routes[0]}/invoices/{n}")
            call("http://storage.googleapis.com/storage/v1/b?secret-query", sidecar.proxy)
        for url in (
            "http://svc.a.run.app/status/403",
            "http://storage.googleapis.com/status/503",
            "http://x.denied.example/",
            "http://a.unnamed.example/",
            "http://a.unnamed.example/",
        ):
            call(url, sidecar.proxy)
        yield sidecar


@pytest.fixture(scope="module")
def cursed(certificates):
    """A sidecar whose metadata server answers with markup instead of tokens."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("Metadata-Flavor", "Google")
            self.end_headers()
            self.wfile.write(HOSTILE.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"127.0.0.1:{server.server_port}"
    with Sidecar(server, "--route", "127.0.0.1:0=https://svc.a.run.app") as sidecar:
        call(f"http://{sidecar.routes[0]}/")
        yield sidecar
    server.shutdown()


@pytest.mark.parametrize(("name", "width", "dark"), LOOKS)
def test_the_page_of_a_busy_sidecar_is_complete(browser, busy, name, width, dark):
    browser.open(busy.admin, width, dark)
    browser.until(lambda: Emulator.EMAIL in browser.text("facts"))
    assert browser.text("state") == "Serving, with errors"
    wanted = "failed in the last 15 minutes. Most frequent error: The upstream's certificate is not valid (2 calls)."
    assert wanted in browser.text("verdict"), browser.text("verdict")
    assert "p50: half within" in browser.text("figures") and "p99: 99 % within" in browser.text("figures")
    assert "calls to https://public.example get no token" in browser.text("warnings")
    assert "example-project" in browser.text("facts")
    figures = browser.text("figures")
    assert "Requests\n45" in figures and "a second in the last minute" in figures and "ms" in figures, figures
    assert "\n0 a second" not in figures
    errors = browser.text("errors")
    for words in (
        "The upstream forbids the call to this account",
        "What to do: Grant roles/run.invoker",
        "The destination is denied",
        "The upstream's certificate is not valid",
        "The upstream answered with an error",
        "2 calls",
        "--upstream-ca",
    ):
        assert words in errors, errors
    tokens = browser.text("tokens")
    for words in ("Access token", "ID token", "for https://svc.a.run.app", "59 min"):
        assert words in tokens, tokens
    assert len(browser.find("tokens").find_elements(By.TAG_NAME, "progress")) == 3
    routes = browser.text("routes")
    for words in ("/billing", "https://svc.a.run.app/", "by built-in *.run.app", "Token ready", "20"):
        assert words in routes, routes
    rules = browser.text("rules")
    for words in ("iap.example.com", "123-x.apps.googleusercontent.com", "in proxy-authorization", "Refused (403)", "*.googleapis.com"):
        assert words in rules, rules
    assert all(words in browser.text("listeners") for words in ("Forward proxy", busy.proxy, busy.admin, "p50 ", "p99 "))
    assert "p50 " in routes and "p99 " in routes
    drawn = browser.run("return document.querySelectorAll('#requests-plot .fine, #latency-plot .half').length")
    assert drawn >= 2
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it has to be scrolled sideways"
    browser.picture(name)
    browser.assert_accessible()
    browser.assert_at_peace()


def test_the_page_has_no_secrets(browser, busy):
    browser.open(busy.admin)
    said = browser.run("return document.documentElement.outerHTML") + call(f"http://{busy.admin}/status").text
    for secret in ("ya29.", "eyJ", "secret-query", "Bearer "):
        assert secret not in said


def test_the_page_of_an_idle_sidecar_explains_what_to_expect(browser, start):
    with start("--route", "127.0.0.1:0=https://svc.a.run.app") as idle:
        browser.open(idle.admin)
        browser.until(lambda: browser.text("state") == "Serving")
        quiet = browser.text("quiet")
        assert quiet.startswith("No request was received so far: if the app has sent calls, they bypassed the sidecar."), quiet
        # The page, the log and /status use the same text.
        assert quiet.lower() == requests.get(f"http://{idle.admin}/status", timeout=TIMEOUT).json()["unused"].lower() + "."
        assert browser.text("verdict") == "No request was received so far."
        assert f"HTTP_PROXY=http://{idle.proxy}" in quiet and f"http://{idle.routes[0]}" in quiet
        assert "None since the start" in browser.text("no-errors")
        browser.picture("idle")
        browser.assert_accessible()
        # The page shows a new event without a reload, and keeps typed text.
        browser.find("url").send_keys("half a URL")
        call(f"http://{idle.routes[0]}/")
        browser.until(lambda: "Requests\n1" in browser.text("figures"))
        assert browser.find("url").get_attribute("value") == "half a URL"
        browser.assert_at_peace()


def test_hostile_text_is_not_rendered_as_markup(browser, cursed):
    browser.open(cursed.admin)
    assert browser.text("state") == "Serving, not ready"
    assert HOSTILE in browser.text("errors")
    assert "What to do: Attach a service account" in browser.text("errors")
    assert HOSTILE in browser.text("tokens")
    assert browser.run("return [window.hacked ?? null, document.scripts.length, document.images.length]") == [None, 1, 0]
    browser.picture("not-ready")
    browser.assert_accessible()
    browser.assert_at_peace()


def test_a_url_can_be_explained_by_keyboard(browser, busy):
    browser.open(busy.admin)
    browser.tab_to("url")
    browser.press("canary---svc-1.us-central1.run.app/x", Keys.ENTER)
    browser.until(lambda: "ID token for https://svc-1.us-central1.run.app" in browser.text("explained"))
    assert f"HTTP_PROXY=http://{busy.proxy}" in browser.text("explained")
    browser.picture("explained")
    browser.assert_accessible()
    browser.assert_at_peace()
    browser.press(Keys.CONTROL, "a")
    browser.press("https://<script>alert(1)</script>/", Keys.ENTER)
    browser.until(lambda: "refused" in browser.run("return document.querySelector('#explained > *').className"))
    assert len(browser.text("explained")) > 10


def test_a_chart_can_be_read_by_keyboard(browser, busy):
    browser.open(busy.admin)
    browser.tab_to("requests-plot")
    browser.press(Keys.END)
    browser.until(lambda: browser.text("readout").startswith("Now: "))
    browser.press(Keys.ARROW_LEFT)
    browser.until(lambda: browser.text("readout").startswith("10 s ago: "))
    assert browser.find("requests-plot").get_attribute("aria-valuetext") == browser.text("readout")
    browser.press(Keys.HOME)
    browser.until(lambda: browser.text("readout").startswith("14 min ago: 0 requests"))


def test_a_hidden_page_sends_no_requests(browser, busy):
    browser.open(busy.admin)
    asked = "return performance.getEntriesByName(new URL('status', location).href).length"
    before = browser.run(asked)
    browser.until(lambda: browser.run(asked) >= before + 2)
    browser.run(
        "Object.defineProperty(document, 'hidden', { configurable: true, get: () => arguments[0] });"
        "document.dispatchEvent(new Event('visibilitychange'))".replace("arguments[0]", "true")
    )
    # A response in progress still arrives. Then two intervals pass without a request.
    settled = browser.driver.execute_async_script(
        "const count = () => performance.getEntriesByName(new URL('status', location).href).length, done = arguments[0];"
        "setTimeout(() => { const first = count(); setTimeout(() => done(count() - first), 5000); }, 1000)"
    )
    assert settled == 0
    browser.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    hidden = browser.run(asked)
    browser.until(lambda: browser.run(asked) > hidden)


def test_the_page_reports_a_sidecar_that_has_ended(browser, start):
    with start() as sidecar:
        browser.open(sidecar.admin)
    browser.until(lambda: browser.text("state") == "No response")
    assert "it may have stopped" in browser.text("lost")
    browser.assert_accessible()


def test_without_scripts_the_page_links_to_other_sources(browser, busy):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(f"http://{busy.admin}/")
        assert "/status as JSON" in browser.driver.find_element(By.TAG_NAME, "noscript").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# Adds a quarter of an hour of traffic, and the names of a real deployment, to what the sidecar answers.
WITH_A_PAST = """
const real = window.fetch;
window.fetch = async (...request) => {
  const answer = await real(...request);
  if (String(request[0]) !== "status") return answer;
  const names = {
    [location.host]: "127.0.0.1:9090", "127.0.0.1:0/billing": "8081/billing", "127.0.0.1:0": "8082", "svc.a.run.app": "billing-424242.us-central1.run.app",
    "a.unnamed.example": "ledger.corp.example", "*.unnamed.example": "*.corp.example", "*.denied.example": "*.ads.example",
    "x.denied.example": "x.ads.example", "public.example": "api.example.com", "emulator@": "shop-runner@",
  };
  let text = await answer.text();
  const status = JSON.parse(text);
  names[status.metadata_server] = "169.254.169.254:80";
  const port = (address) => new URL(address).port;
  names[`127.0.0.1:${port(status.listeners.find((l) => l.kind === "proxy").address)}`] = "127.0.0.1:3128";
  for (const [index, route] of status.routes.entries()) names[`127.0.0.1:${port(route.address)}`] = `127.0.0.1:${8081 + index}`;
  for (const [name, other] of Object.entries(names)) text = text.replaceAll(name, other);
  text = text.replace(/at 127\\.0\\.0\\.1:\\d+: its certificate/g, "at 10.12.0.7:443: its certificate");
  const shown = JSON.parse(text), history = shown.history;
  shown.started = shown.since = new Date(Date.parse(shown.now) - 42 * 60e3).toISOString();
  const wave = (column, period) => Math.sin(column * 2 * Math.PI / period);
  const columns = [...Array(90).keys()];
  history.requests = columns.map((c) => Math.round(120 + 70 * wave(c, 80) + 25 * wave(c, 7)));
  history.upstream_errors = columns.map((c) => (c > 55 && c < 78 ? 2 : 0));
  history.rejected = columns.map((c) => (c === 30 ? 1 : 0));
  history.failed = columns.map((c) => (c % 40 === 9 ? 1 : 0));
  history.p50 = columns.map((c) => 0.0022 + 0.0003 * wave(c, 11));
  history.p90 = columns.map((c) => 0.0057 + 0.002 * wave(c, 5));
  history.p99 = columns.map((c) => 0.035 + 0.012 * wave(c, 9));
  const sum = (list) => list.reduce((a, b) => a + b);
  const counts = {502: sum(history.failed), 503: sum(history.upstream_errors), 403: 1};
  history.total = {requests: sum(history.requests), errors: counts[502] + counts[503] + 1, p50: 0.0022, p90: 0.0057, p99: 0.038};
  shown.errors = shown.errors.filter((error) => error.error !== "http_request_denied");
  for (const error of shown.errors) error.count = error.calls = error.recent_calls = counts[error.status];
  return new Response(JSON.stringify(shown), {headers: answer.headers});
};
"""


@pytest.mark.parametrize(("name", "width", "dark"), [("status", 1280, False), ("status-dark", 1280, True)])
def test_a_picture_for_the_documents_is_taken(browser, busy, name, width, dark):
    """Copy target/extended/page/status.png and status-dark.png to docs/ when the page has changed."""
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITH_A_PAST})
    try:
        browser.open(busy.admin, width, dark)
        browser.until(lambda: "shop-runner@" in browser.text("facts"))
        assert "44 calls" in browser.text("verdict"), browser.text("verdict")
        browser.picture(name, 1190)
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
