"""Measures every proxy, round by round: A B C, A B C."""

import statistics
from dataclasses import dataclass, field

import proxies
from processes import Failed

GET = ["--path", "/token/bytes/1024"]
MEGABYTE = 1 << 20


@dataclass
class Row:
    """One kind of work."""

    key: str
    title: str
    unit: str
    # From the result of one round to the measured value.
    figure: callable
    # From a started proxy to the arguments of the load.
    load: callable


@dataclass
class Figures:
    """The rounds of one proxy in one row."""

    values: list = field(default_factory=list)
    busy: list = field(default_factory=list)
    rate: list = field(default_factory=list)
    failed: str = ""

    @property
    def median(self):
        return statistics.median(self.values) if self.values else None

    @property
    def spread(self):
        return (min(self.values), max(self.values)) if self.values else None


def per_request(result):
    return result["cpu"] / result["requests"] * 1e6


def per_gigabyte(result):
    return result["cpu"] / result["bytes"] * 1e9


def _h1(*more):
    return lambda proxy: ["--target", f"127.0.0.1:{proxy.h1}", *more]


def _h2(*more):
    return lambda proxy: ["--target", f"127.0.0.1:{proxy.h2}", *more]


GRPC = ["--grpc", "--path", "/token/bench.Echo/Call", "--connections", "10", "--streams", "10"]

ROWS = [
    Row("small", "1 KB GET, HTTP/1.1 → TLS HTTP/1.1, 64 connections", "µs of CPU a request", per_request,
        _h1(*GET, "--connections", "64")),
    Row("h2", "gRPC calls, h2c → TLS h2, 10 connections × 10 streams", "µs of CPU a call", per_request, _h2(*GRPC)),
    Row("down", "1 MiB down, TLS upstream, 8 connections", "CPU s a GB", per_gigabyte,
        _h1("--path", f"/token/bytes/{MEGABYTE}", "--connections", "8")),
    Row("up", "1 MiB up, TLS upstream, 8 connections", "CPU s a GB", per_gigabyte,
        _h1("--path", "/token/sink", "--body", str(MEGABYTE), "--connections", "8")),
    Row("p50", "latency of a 1 KB GET, 1 connection, p50", "µs", lambda result: result["p50"],
        _h1(*GET, "--connections", "1")),
    Row("p99", "latency of a 1 KB GET, 1 connection, p99", "µs", lambda result: result["p99"],
        _h1(*GET, "--connections", "1")),
]


def measure(stage, keys, rounds, seconds, say):
    """Measures all rows of these keys. Each proxy is started once. Returns results by row and peer, and memory by
    peer."""
    rows = [row for row in ROWS if row.key in keys]
    running, figures, memory = {}, {}, {}
    for peer in proxies.PEERS:
        if peer.available():
            proxy = peer(stage)
            try:
                process = proxy.start()
                _one_call(stage, proxy)
                memory[peer.name] = {"idle": process.memory()}
                running[peer.name] = proxy
            except Failed as failure:
                say(f"{peer.name}: {failure}")
                memory[peer.name] = {"failed": str(failure)}
    # Both percentiles come from the same rounds.
    groups = [[row for row in rows if row.load(_Anywhere) == load] for load in _loads(rows)]
    for group in groups:
        for row in group:
            figures[row.key] = {name: Figures() for name in running}
        for number in range(rounds):
            for name, proxy in running.items():
                _round(stage, proxy, group, figures, name, seconds)
            say(f"  {group[0].title}: round {number + 1} of {rounds}")
    for name, proxy in running.items():
        memory[name]["after"] = proxy.process.memory()
        proxy.stop()
    return figures, memory


def _round(stage, proxy, group, figures, name, seconds):
    if figures[group[0].key][name].failed:
        return
    try:
        result = stage.load(proxy.serving(group[0].key), [*group[0].load(proxy), *proxy.caller], seconds)
    except Failed as failure:
        for row in group:
            figures[row.key][name].failed = str(failure)
        return
    for row in group:
        kept = figures[row.key][name]
        kept.values.append(row.figure(result))
        kept.busy.append(result["cpu"] / result["seconds"])
        kept.rate.append(result["requests"] / result["seconds"])


def _one_call(stage, proxy):
    proxy.process.answers(proxy.h1, proxy.path, f"127.0.0.1:{proxy.h1}")


class _Anywhere:
    h1 = h2 = 0


def _loads(rows):
    seen = []
    for row in rows:
        load = row.load(_Anywhere)
        if load not in seen:
            seen.append(load)
    return seen
