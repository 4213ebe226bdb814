"""Prometheus' own linter on what a scraper gets."""

import subprocess
import urllib.error
import urllib.request


def metrics(sidecar):
    with urllib.request.urlopen(f"http://{sidecar.admin}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return answer.read()


def lint(exposition):
    return subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, timeout=60)


def fetch(url, proxy=None):
    handlers = {"http": proxy} if proxy else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(handlers))
    try:
        with opener.open(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_promtool_finds_nothing_before_and_after_traffic_of_every_kind(start):
    with start("--route", "127.0.0.1:0=https://svc.a.run.app", "--rule", "denied.test=deny") as sidecar:
        done = lint(metrics(sidecar))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert fetch(f"http://{sidecar.routes[0]}/") == 200
        proxy = f"http://{sidecar.proxy}"
        assert fetch("http://denied.test/", proxy) == 403
        assert fetch("http://nowhere.invalid/", proxy) == 502
        exposition = metrics(sidecar)
        assert b'error="dns_error"' in exposition
        done = lint(exposition)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_would_find_something():
    done = lint(b"# TYPE requests counter\nrequests 1\n")
    assert done.returncode != 0
