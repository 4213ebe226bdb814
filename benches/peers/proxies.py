"""The measured proxies with equal work: HTTP/1.1 to TLS HTTP/1.1 on one port, h2c to TLS h2 on another. Each verifies
the upstream, reuses connections, adds a token, uses one core, and writes no access log. Only `Relay` does less."""

import json

import install
import nginx
from envoy_config import configuration
from install import HERE
from processes import OTHERS, PROXY, Process, free_ports

# The host names of the upstream. The sidecar treats them as Cloud Run services.
H1 = "plain-424242.us-central1.run.app"
H2 = "grpc-424242.us-central1.run.app"
# The length of Google's ID tokens.
TOKEN = "Bearer " + "x" * 900


class Proxy:
    """A proxy that can be started repeatedly."""

    name = ""
    program = ""
    # It fetches its token itself.
    fetches = False
    # A path that is answered with 200.
    path = "/token/bytes/1024"
    # What the load adds, because the proxy cannot.
    caller = ()

    def __init__(self, stage, workers=1, h1=None):
        self.stage, self.workers = stage, workers
        self.upstream_h1, self.upstream_h2 = h1 or stage.h1, stage.h2
        self.process = None
        self.h1, self.h2 = free_ports(2)

    def start(self, wait=True):
        command = self.command()
        env = self.env()
        self.process = Process(self.name, command, self.stage.folder, self.cores(), env, self.h1 if wait else None)
        return self.process

    def stop(self):
        self.process.stop()

    def cores(self):
        return PROXY if self.workers == 1 else PROXY | OTHERS

    def serving(self, row):
        """Returns the process that does this row's work."""
        return self.process

    def env(self):
        return None

    def file(self, suffix):
        return self.stage.folder / f"{self.program}-{self.h1}{suffix}"

    def write(self, suffix, text):
        path = self.file(suffix)
        path.write_text(text)
        return path

    @classmethod
    def available(cls):
        return install.find(cls.program) is not None


class Sidentity(Proxy):
    name = "sidentity"
    program = "sidentity"
    fetches = True
    # The defaults, including logging and metrics. These options only set addresses.
    extra = ()
    proxy_at = "off"
    # For tools that write files from inside the process.
    settings = {}

    @classmethod
    def available(cls):
        return True

    def binary(self):
        return self.stage.sidentity

    def command(self):
        (admin,) = free_ports(1)
        stage = self.stage
        return [
            self.binary(), "run", "--workers", self.workers, "--proxy", self.proxy_at, "--admin", f"127.0.0.1:{admin}",
            "--route", f"{self.h1}=https://{H1},http=1", "--route", f"{self.h2}=https://{H2},http=2",
            "--connect-to", f"{H1}::127.0.0.1:{self.upstream_h1}", "--connect-to", f"{H2}::127.0.0.1:{self.upstream_h2}",
            *self.extra,
        ]

    def env(self):
        # Like the other proxies, it trusts this file alone, and reads no store of the system.
        trusted = {"SSL_CERT_FILE": str(self.stage.ca)}
        return {"GCE_METADATA_HOST": f"127.0.0.1:{self.stage.metadata}", "PATH": install.PATH} | trusted | self.settings


class Plain(Sidentity):
    """The binary that `cargo build --release` builds: dynamic, and without a profile."""

    name = "sidentity, plain release"

    def binary(self):
        return install.plain()


class Routes(Sidentity):
    """Fifty routes, and the forward proxy."""

    name = "sidentity, 50 routes"

    def __init__(self, stage, routes=50):
        super().__init__(stage)
        self.ports = free_ports(routes)
        (self.proxy,) = free_ports(1)
        self.extra = []
        for number, port in enumerate(self.ports):
            self.extra += ["--route", f"{port}=https://route{number}-424242.us-central1.run.app"]
        self.proxy_at = f"127.0.0.1:{self.proxy}"
        self.extra += ["--upstream-http", "1", "--connect-to", f"*::127.0.0.1:{stage.h1}"]


class Intercepting(Sidentity):
    """The proxy terminates TLS, with one protocol on both sides."""

    def __init__(self, stage, http):
        super().__init__(stage)
        self.name = f"sidentity, intercepting h{http}"
        (self.proxy,) = free_ports(1)
        self.folder = stage.folder / f"ca-{http}"
        self.folder.mkdir(exist_ok=True)
        self.ca = self.folder / "ca.pem"
        self.authority = f"{H2 if http == 2 else H1}:443"
        self.proxy_at = f"127.0.0.1:{self.proxy}"
        self.extra = ["--intercept", "--ca-dir", self.folder, "--upstream-http", http]


class Hop(Proxy):
    name = "bare hyper hop"
    program = "hop"
    kind = "hop"
    adds = ("--token", TOKEN)

    @classmethod
    def available(cls):
        return True

    def start(self, wait=True):
        self.second = Process(
            f"{self.name} h2", self._command(self.h2, self.upstream_h2, H2, "--http2"), self.stage.folder, PROXY, None, self.h2
        )
        return super().start(wait)

    def command(self):
        return self._command(self.h1, self.upstream_h1, H1)

    def serving(self, row):
        return self.second if row == "h2" else self.process

    def stop(self):
        super().stop()
        self.second.stop()

    def _command(self, port, upstream, authority, *more):
        return [
            self.stage.tool, self.kind, "--port", port, "--upstream", f"127.0.0.1:{upstream}", "--authority", authority,
            "--certificates", self.stage.folder, *self.adds, *more,
        ]


class OurPool(Hop):
    name = "bare hyper hop, our pool"
    adds = (*Hop.adds, "--ours")


class Relay(Hop):
    """Like ztunnel it copies bytes below HTTP, so it cannot add a token."""

    name = "bare TLS hop, no HTTP"
    kind = "relay"
    adds = ()
    path = "/bytes/1024"
    caller = ("--token", TOKEN)


class Nginx(Proxy):
    name = "nginx"
    program = "nginx"

    def command(self):
        words = {
            "FOLDER": self.stage.folder, "LISTEN_H1": self.h1, "LISTEN_H2": self.h2, "UPSTREAM_H1": self.stage.h1,
            "UPSTREAM_H2": self.stage.h2, "HOST_H1": H1, "HOST_H2": H2, "TOKEN": TOKEN, "CA": self.stage.ca,
        }
        return nginx.command("nginx-proxy.conf", self.file(".conf"), words)


class Haproxy(Proxy):
    name = "HAProxy"
    program = "haproxy"

    def command(self):
        server = f"ssl verify required ca-file {self.stage.ca} pool-max-conn 1024"
        text = f"""global
    nbthread 1
    maxconn 4000
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
        for name, port, to, host, bind, alpn in (
            ("h1", self.h1, self.stage.h1, H1, "", "http/1.1"),
            ("h2", self.h2, self.stage.h2, H2, "proto h2", "h2"),
        ):
            text += f"""frontend {name}
    bind 127.0.0.1:{port} {bind}
    http-request set-header Authorization "{TOKEN}"
    http-request set-header Host {host}
    default_backend {name}_upstream
backend {name}_upstream
    server upstream 127.0.0.1:{to} {server} sni str({host}) verifyhost {host} alpn {alpn}
"""
        return [install.find("haproxy"), "-db", "-f", self.write(".cfg", text)]


class Envoy(Proxy):
    name = "Envoy, gcp_authn"
    program = "envoy"
    fetches = True

    def command(self):
        text = json.dumps(configuration(self), indent=1)
        return [
            install.find("envoy"), "-c", self.write(".json", text), "--concurrency", "1", "--use-dynamic-base-id",
            "--log-level", "error",
        ]


class Pingora(Proxy):
    """pingora is a library. This is the smallest proxy with it."""

    name = "pingora"
    program = "pingora"

    def command(self):
        h1, h2 = (self.h1, self.stage.h1, H1, 1), (self.h2, self.stage.h2, H2, 2)
        return [install.find("pingora"), self.stage.ca, TOKEN, *h1, *h2]


class Mitmproxy(Proxy):
    name = "mitmproxy"
    program = "mitmdump"

    def __init__(self, stage):
        super().__init__(stage)
        self.folder = stage.folder / "mitmproxy"
        self.ca = self.folder / "mitmproxy-ca-cert.pem"
        self.proxy = self.h1

    def command(self):
        return [
            install.find("mitmdump"), "-q", "--listen-host", "127.0.0.1", "-p", self.h1, "-s", HERE / "mitmproxy_token.py",
            "--set", f"confdir={self.folder}", "--set", f"ssl_verify_upstream_trusted_ca={self.stage.ca}",
            "--set", f"token={TOKEN}", "--set", f"upstream_h1={self.stage.h1}", "--set", f"upstream_h2={self.stage.h2}",
            "--set", "flow_detail=0",
        ]


PEERS = [Sidentity, Plain, OurPool, Hop, Relay, Nginx, Haproxy, Envoy, Pingora]
