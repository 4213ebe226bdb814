"""Prometheus' own linter for the metrics that a scraper gets."""

import socket
import subprocess
import time
import urllib.error
import urllib.request

from stage import TIMEOUT


def metrics(sidecar):
    with urllib.request.urlopen(f"http://{sidecar.admin}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return answer.read()


def lint(exposition):
    return subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, timeout=60)


def fetch(url, proxy=None, headers={}):
    handlers = {"http": proxy} if proxy else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(handlers))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            # A client that closes early is counted as cancelled.
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def raw(address, text):
    """Sends bytes on a new connection, reads the beginning of the response, and closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(text.encode())
        return connection.recv(64)


def samples(exposition):
    pairs = (line.rsplit(" ", 1) for line in exposition.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


# The sample that must exist and not be zero after each event.
HAPPENED = [
    'sidentity_requests_total{code="200",credential="id",listener="127.0.0.1:0"}',
    'sidentity_requests_total{code="403",credential="none",listener="proxy"}',
    'sidentity_requests_total{code="503",credential="access",listener="proxy"}',
    *(f'sidentity_proxy_errors_total{{error="{error}"}}' for error in (
        "dns_error", "http_request_denied", "tls_certificate_error", "proxy_internal_error", "destination_not_found", "http_request_error",
    )),
    'sidentity_skipped_total{reason="existing"}',
    'sidentity_skipped_total{reason="api_key"}',
    'sidentity_skipped_total{reason="tunnel"}',
    'sidentity_token_lookups_total{credential="id",outcome="error"}',
    'sidentity_token_fetches_total{credential="id",outcome="error",source="metadata"}',
    'sidentity_upstream_connects_total{outcome="tls"}',
    'sidentity_upstream_auth_rejected_total{code="401"}',
    'sidentity_upstream_auth_rejected_total{code="403"}',
]


def test_promtool_finds_nothing_before_and_after_events_of_every_kind(start):
    args = (
        "--route", "127.0.0.1:0=https://svc.a.run.app", "--route", "127.0.0.2:0/x=https://svc.a.run.app",
        "--rule", "denied.test=deny", "--rule", "strange.test=id",
        "--rule", "nobody.a.run.app=id,account=nobody@example-project.iam.gserviceaccount.com",
    )
    with start(*args) as sidecar:
        done = lint(metrics(sidecar))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        for code in (401, 403, 503):
            assert fetch(f"http://svc.a.run.app/status/{code}", f"http://{sidecar.proxy}") == code
        assert fetch("http://storage.googleapis.com/status/503", f"http://{sidecar.proxy}") == 503
        for url in ("http://strange.test/", "http://nobody.a.run.app/"):
            assert fetch(url, f"http://{sidecar.proxy}") == 502
        fetch("http://storage.googleapis.com/?key=an-api-key", f"http://{sidecar.proxy}")
        fetch("http://storage.googleapis.com/", f"http://{sidecar.proxy}", {"Authorization": "Bearer the-apps-own"})
        assert fetch(f"http://{sidecar.routes[1].split('/')[0]}/elsewhere") == 404
        for text in ("CONNECT svc.a.run.app:443 HTTP/1.1\r\nHost: svc.a.run.app:443\r\n\r\n", "GET http://a.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
            assert raw(sidecar.proxy, text).startswith(b"HTTP/1.1 ")
        raw(sidecar.proxy, "EVIL\"}\\ http://evil.test/ HTTP/1.1\r\n\r\n")
        raw(sidecar.proxy, "M-1 http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert fetch(f"http://{sidecar.routes[0]}/") == 200
        proxy = f"http://{sidecar.proxy}"
        assert fetch("http://denied.test/", proxy) == 403
        assert fetch("http://nowhere.invalid/", proxy) == 502
        # A request is recorded shortly after its response.
        deadline = time.monotonic() + TIMEOUT
        while missing := [sample for sample in HAPPENED if not samples(exposition := metrics(sidecar)).get(sample)]:
            assert time.monotonic() < deadline, missing
            time.sleep(0.05)
        assert b"evil" not in exposition.lower()
        done = lint(exposition)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_finds_a_planted_problem():
    done = lint(b"# TYPE requests counter\nrequests 1\n")
    assert done.returncode != 0
