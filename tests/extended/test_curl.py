"""curl through a route and through the forward proxy."""

import hashlib
import json

import pytest

from conftest import AUDIENCE, run
from stage import Emulator
from upstream import pattern

VERSIONS = ["--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge"]
MEGABYTES = 24 * 1024 * 1024


def curl(*args):
    return run("curl", "-sS", "--max-time", "90", *args)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "body"
    path.write_bytes(pattern(1024 * 1024) * 24)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_private_service_answers_through_a_route(route, version):
    seen = json.loads(curl(version, f"{route}/hello?x=%20y"))
    assert (seen["audience"], seen["email"]) == (AUDIENCE, Emulator.EMAIL)
    assert (seen["path"], seen["query"], seen["host"]) == ("/hello", "x=%20y", "svc.a.run.app")


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_a_private_service_answers_through_the_proxy(proxy, version):
    seen = json.loads(curl(version, "-x", proxy, "http://other.a.run.app/hello"))
    assert (seen["audience"], seen["host"]) == ("https://other.a.run.app", "other.a.run.app")


def test_a_tunnel_to_port_80_carries_a_token(proxy):
    seen = json.loads(curl("-p", "-x", proxy, "http://svc.a.run.app/hello"))
    assert (seen["audience"], seen["host"]) == (AUDIENCE, "svc.a.run.app")


def test_a_google_api_gets_an_access_token_through_the_proxy(proxy):
    seen = json.loads(curl("-x", proxy, "http://storage.googleapis.com/b"))
    assert seen["token"].startswith("Bearer ya29.")


# HTTP/1.0 has no request body without a length (RFC 9112, 6.1), so curl sends none.
UPLOADS = [(version, True) for version in VERSIONS] + [(version, False) for version in VERSIONS[1:]]


@pytest.mark.parametrize(
    "version, told", UPLOADS, ids=[f"{version}-length-{'told' if told else 'untold'}" for version, told in UPLOADS]
)
def test_an_upload_arrives_complete(route, version, told, file):
    source = [str(file)] if told else ["-"]
    with file.open() as stdin:
        seen = json.loads(run("curl", "-sS", version, "-T", *source, f"{route}/put", stdin=stdin))
    assert (seen["method"], seen["length"]) == ("PUT", MEGABYTES)
    assert seen["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("told", ["&length", ""], ids=["length-told", "length-untold"])
def test_a_download_arrives_complete(route, version, told, tmp_path):
    out = tmp_path / "out"
    curl(version, "-o", out, f"{route}/down?bytes={MEGABYTES}{told.replace('length', 'length=1')}")
    expected = pattern(64 * 1024) * (MEGABYTES // (64 * 1024))
    assert hashlib.sha256(out.read_bytes()).hexdigest() == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
def test_responses_without_a_body_end_at_once(route, version):
    for status in (204, 304, 404):
        assert curl(version, "-o", "/dev/null", "-w", "%{http_code}", f"{route}/status/{status}") == str(status)
    head = curl(version, "-I", f"{route}/head")
    assert "content-length: " in head.lower() and head.rstrip().split()[1] == "200"


# With prior knowledge, curl 7.88 never reuses a connection.
@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_redirect_is_rewritten_to_the_route(route, version):
    seen = json.loads(curl(version, "-L", f"{route}/redirect"))
    assert (seen["path"], seen["query"], seen["audience"]) == ("/landed", "from=redirect", AUDIENCE)


@pytest.mark.parametrize("version", VERSIONS[1:-1])
def test_two_calls_share_a_connection(route, version):
    counts = curl(version, "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", f"{route}/1", f"{route}/2")
    assert counts.split() == ["1", "0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_compressed_responses_are_unchanged(route, version):
    assert curl(version, "--compressed", f"{route}/gzip") == "squeezed " * 1000


def test_headers_pass_in_their_order_and_both_cookies_come_back(route):
    answer = curl("-i", "-H", "X-One: 1", "-H", "X-Two: a", "-H", "X-Two: b", f"{route}/headers")
    head, body = answer.split("\n\n", 1)
    assert [line.split(": ")[1].strip() for line in head.splitlines() if line.startswith("set-cookie")] == [
        "one=1",
        "two=2",
    ]
    mine = [pair for pair in json.loads(body)["headers"] if pair[0].startswith("x-")]
    assert mine == [["x-one", "1"], ["x-two", "a"], ["x-two", "b"]]


def test_a_call_through_a_blind_tunnel_is_refused_by_the_service(proxy, certificates):
    refused = curl("-x", proxy, "--cacert", certificates.ca, "https://svc.a.run.app/tunnel")
    assert json.loads(refused)["refused"]


def test_a_route_on_a_unix_socket_answers(start, tmp_path):
    path = tmp_path / "route.sock"
    with start("--route", f"unix:{path}=https://svc.a.run.app"):
        seen = json.loads(curl("--unix-socket", path, "http://localhost/unix"))
    assert seen["audience"] == AUDIENCE


def test_a_denied_call_gets_a_problem_document(start):
    with start("--unmatched", "deny") as sidecar:
        answer = curl("-i", "-x", f"http://{sidecar.proxy}", "http://www.example.com/")
    assert answer.startswith("HTTP/1.1 403 ")
    assert "proxy-status: sidentity; error=http_request_denied" in answer.lower()
    assert json.loads(answer.split("\n\n", 1)[1])["status"] == 403


def test_without_a_metadata_server_the_call_fails_with_the_reason(start, upstream):
    class Gone:
        address = "127.0.0.1:1"

    import stage

    with stage.Sidecar(
        Gone, "--route", "127.0.0.1:0=https://svc.a.run.app", "--token-timeout", "1s"
    ) as sidecar:
        answer = curl("-i", f"http://{sidecar.routes[0]}/no-token")
    assert answer.startswith("HTTP/1.1 503 ") and "retry-after: " in answer.lower()
    assert "127.0.0.1:1" in json.loads(answer.split("\n\n", 1)[1])["detail"]
    assert upstream.counts["/no-token"] == 0
