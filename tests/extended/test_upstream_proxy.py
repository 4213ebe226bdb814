"""--upstream-proxy with a real proxy, tinyproxy: CONNECT, absolute form, Basic credentials, refusals, the exclusion
list."""

import http.server
import json
import socket
import subprocess
import threading
import time

import grpc
import pytest

from conftest import AUDIENCE, run
from stage import BINARY, TIMEOUT

# tinyproxy accepts only letters and digits.
USER, PASSWORD = "user", "s3cret"
CREDENTIALS = "user:s3%63ret"


class Tinyproxy:
    """tinyproxy on a free port. With `filtered`, it refuses matching hosts."""

    def __init__(self, folder, auth=False, filtered=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "tinyproxy.log"
        lines = [
            f"Port {self.port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 100", "MaxClients 50",
            f'LogFile "{self.log}"', "LogLevel Connect",
        ]
        if auth:
            lines.append(f"BasicAuth {USER} {PASSWORD}")
        if filtered:
            (folder / "filter").write_text(filtered)
            lines += [f'Filter "{folder / "filter"}"', "FilterURLs On"]
        (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
        self.child = subprocess.Popen(["tinyproxy", "-d", "-c", folder / "tinyproxy.conf"], stdout=subprocess.DEVNULL)
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                assert self.child.poll() is None, "tinyproxy ended"
                assert time.monotonic() < deadline, "tinyproxy does not listen"
                time.sleep(0.05)

    def url(self, credentials=""):
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    def asked(self):
        """Returns the clients' requests, as METHOD and TARGET."""
        lines = self.log.read_text().splitlines()
        requests = [line.split("): ", 1)[1].split() for line in lines if "Request (file descriptor" in line]
        return [" ".join(request[:2]) for request in requests]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait(TIMEOUT)


class Plain(http.server.BaseHTTPRequestHandler):
    """A cleartext server that returns its request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def plain():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def proxy(tmp_path):
    with Tinyproxy(tmp_path) as proxy:
        yield proxy


def curl(sidecar, url, *args):
    return run("curl", "-sS", "--max-time", "60", "-x", f"http://{sidecar.proxy}", *args, url)


def test_a_private_service_is_called_through_the_proxy(start, proxy, upstream):
    with start("--route", "127.0.0.1:0=https://svc.a.run.app", "--upstream-proxy", proxy.url()) as sidecar:
        for url in (f"http://{sidecar.routes[0]}/one", f"http://{sidecar.routes[0]}/two"):
            assert json.loads(run("curl", "-sS", url))["audience"] == AUDIENCE
        assert json.loads(curl(sidecar, "http://storage.googleapis.com/b"))["token"].startswith("Bearer ya29.")
    # One tunnel for both calls of the route.
    assert proxy.asked() == [f"CONNECT 127.0.0.1:{upstream.port}"] * 2


def test_grpc_is_called_through_the_proxy(start, proxy, grpc_upstream):
    with start("--route", "127.0.0.1:0=https://grpc.a.run.app", "--upstream-proxy", proxy.url()) as sidecar:
        with grpc.insecure_channel(sidecar.routes[0]) as channel:
            answer = channel.stream_stream("/test.Service/Chat")(iter([b"one", b"two"]), timeout=60)
            assert list(answer) == [b"ONE", b"TWO"]
    assert proxy.asked() == [f"CONNECT 127.0.0.1:{grpc_upstream.port}"]


def test_cleartext_is_forwarded_in_absolute_form(start, proxy, plain):
    with start("--upstream-proxy", proxy.url()) as sidecar:
        seen = json.loads(curl(sidecar, f"http://{plain}/a?b=c", "-H", "Authorization: Bearer own"))
    assert seen["path"] == "/a?b=c"
    assert seen["headers"]["Authorization"] == "Bearer own"
    assert seen["headers"]["Host"] == plain
    assert proxy.asked() == [f"GET http://{plain}/a?b=c"]


def test_a_blind_tunnel_goes_through_the_proxy(start, proxy, upstream, certificates):
    with start("--upstream-proxy", proxy.url(), "--intercept=false") as sidecar:
        url = f"https://localhost:{upstream.port}/hello"
        seen = json.loads(curl(sidecar, url, "--cacert", certificates.ca, "-o", "-", "-k"))
    assert seen["path"] == "/hello"
    assert proxy.asked() == [f"CONNECT localhost:{upstream.port}"]


def test_basic_credentials_are_sent(start, tmp_path, plain):
    with Tinyproxy(tmp_path, auth=True) as proxy:
        with start("--upstream-proxy", proxy.url(CREDENTIALS)) as sidecar:
            assert json.loads(curl(sidecar, "http://svc.a.run.app/"))["audience"] == AUDIENCE
            seen = json.loads(curl(sidecar, f"http://{plain}/"))
            assert "Proxy-Authorization" not in seen["headers"]
        with start("--upstream-proxy", proxy.url("user:wrong")) as sidecar:
            answer = curl(sidecar, "http://svc.a.run.app/", "-i")
            assert answer.startswith("HTTP/1.1 502 "), answer
            assert "error=proxy_internal_response" in answer
            assert "does not accept the credentials" in answer
            # tinyproxy's own 401, which looks like the destination's.
            assert curl(sidecar, f"http://{plain}/", "-i").startswith("HTTP/1.1 401 ")
        with start("--upstream-proxy", proxy.url()) as without:
            for url in ("http://svc.a.run.app/", f"http://{plain}/"):
                answer = curl(without, url, "-i")
                assert answer.startswith("HTTP/1.1 502 "), answer
                assert "407" in answer and "requires credentials" in answer, answer
        assert not any("wrong" in line or PASSWORD in line for line in sidecar.lines)


def test_a_refusal_is_502_with_the_proxys_message(start, tmp_path):
    with Tinyproxy(tmp_path, filtered="127.0.0.1") as proxy, start("--upstream-proxy", proxy.url()) as sidecar:
        answer = curl(sidecar, "http://svc.a.run.app/", "-i")
    assert answer.startswith("HTTP/1.1 502 "), answer
    assert "error=proxy_internal_response" in answer
    assert "403 Filtered" in answer, answer


def test_hosts_on_the_list_are_called_directly(start, proxy, plain):
    options = ("--upstream-proxy", proxy.url(), "--no-upstream-proxy", "*.a.run.app 127.0.0.0/8")
    with start(*options) as sidecar:
        assert json.loads(curl(sidecar, f"http://{plain}/"))["path"] == "/"
        assert json.loads(curl(sidecar, "http://svc.a.run.app/"))["audience"] == AUDIENCE
    assert proxy.asked() == []


def test_exec_adopts_the_callers_https_proxy(emulator, upstream, certificates, tmp_path):
    with Tinyproxy(tmp_path, auth=True) as proxy:
        env = {
            "GCE_METADATA_HOST": emulator.address,
            "PATH": "/usr/bin:/bin",
            "HTTPS_PROXY": proxy.url(CREDENTIALS),
            "NO_PROXY": "intern.example",
        }
        done = subprocess.run(
            [
                BINARY, "exec", "--connect-to", f"*:443:127.0.0.1:{upstream.port}", "--upstream-ca", certificates.ca,
                "--", "curl", "-sS", "https://svc.a.run.app/hello",
            ],
            env=env, capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["audience"] == AUDIENCE
        assert proxy.asked() == [f"CONNECT 127.0.0.1:{upstream.port}"]
    said = [line for line in done.stderr.splitlines() if "HTTPS_PROXY" in line]
    assert len(said) == 1 and f"http://127.0.0.1:{proxy.port}" in said[0], done.stderr
    assert "but not intern.example" in said[0]
    assert PASSWORD not in done.stderr and CREDENTIALS not in done.stderr
