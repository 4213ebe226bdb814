"""An addon that gives mitmproxy the same work: a fixed token, and a local upstream for any name."""

from mitmproxy import ctx


def load(loader):
    loader.add_option("token", str, "", "the value of Authorization")
    loader.add_option("upstream_h1", int, 0, "the upstream's port")
    loader.add_option("upstream_h2", int, 0, "the port of the gRPC upstream")


def server_connect(data):
    host, _ = data.server.address
    data.server.sni = host
    data.server.address = ("127.0.0.1", ctx.options.upstream_h2 if host.startswith("grpc-") else ctx.options.upstream_h1)


def request(flow):
    flow.request.headers["authorization"] = ctx.options.token
