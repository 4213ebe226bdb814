"""Compares measurements with their goals."""

US, PLAIN = "sidentity", "sidentity, plain release"
HOP, ENVOY = "bare hyper hop, our pool", "Envoy, gcp_authn"
FEW, ONE, FIFTY = "one route, 64 connections", "one route, 1,000 connections", "50 routes, 1,000 connections"
AUDIENCES = "forward proxy, 1,000 audiences at 50 hosts, 1,000 connections"

# Limits relative to other proxies, as a factor.
RATIOS = [
    ("small", "1 KB GET, HTTP/1.1 → TLS HTTP/1.1: CPU a request", US, {"nginx": 0.97, "HAProxy": 0.95, ENVOY: 0.5, HOP: 1.03}),
    ("h2", "gRPC, h2c → TLS h2: CPU a call", US, {ENVOY: 0.7, "HAProxy": 1.15}),
    ("down", "1 MiB down: CPU a GB", US, {"nginx": 0.7, ENVOY: 0.95}),
    ("up", "1 MiB up: CPU a GB", US, {"nginx": 0.27, ENVOY: 0.76}),
    ("p50", "latency at one connection, p50", US, {"nginx": 1.0, "HAProxy": 1.0}),
    ("p99", "latency at one connection, p99", US, {"nginx": 1.0, "HAProxy": 1.0}),
    ("many", "1,000 connections: CPU a request", ONE, {FEW: 1.5}),
    ("many", "50 routes, 1,000 connections: CPU a request", FIFTY, {ONE: 1.15}),
    ("many", "1,000 audiences, 1,000 connections: CPU a request", AUDIENCES, {ONE: 1.15}),
    ("workers", "two workers, 64 connections: CPU a request", "GET, two workers", {"GET, one worker": 1.02}),
    ("workers", "two workers, 10 connections of gRPC: CPU a call", "gRPC, two workers", {"gRPC, one worker": 1.02}),
    ("workers", "two workers, one channel of gRPC: CPU a call", "gRPC channel, two workers", {"gRPC channel, one worker": 1.46}),
    ("intercept", "intercepted, HTTP/1.1: CPU a request", "sidentity, intercepted, h1", {"mitmproxy, h1": 0.5, "sidentity, not intercepted, h1": 2.2}),
    ("intercept", "intercepted, gRPC: CPU a call", "sidentity, intercepted, gRPC", {"mitmproxy, gRPC": 0.5, "sidentity, not intercepted, gRPC": 2.2}),
    ("accepted", "start to the first connection", US, {ENVOY: 0.1}),
    ("answered", "start to the first 200 with a token", US, {ENVOY: 0.25}),
]

# Absolute limits of the sidecar.
LIMITS = [
    ("instructions", "a 1 KB GET, instructions in user space", 45000, ""),
    ("allocations", "a 1 KB GET, allocations", 22, ""),
    ("pair", "memory of a busy pair of connections", 40, "KiB"),
    ("idle h1", "memory of an idle HTTP/1.1 connection to an upstream", 16, "KiB"),
    ("idle h2", "memory of an idle HTTP/2 connection to an upstream", 28, "KiB"),
    ("unread", "memory of a download that the app does not read", 300, "KiB"),
    ("idle", "resident memory, idle", 8.5, "MiB"),
    ("after", "resident memory after the load", 13, "MiB"),
    ("accepted", "start to the first connection", 5, "ms"),
    ("answered", "start to the first 200 with a token", 5, "ms"),
    ("size", "the binary, stripped", 9, "MB"),
    ("token", "a token hit on a static route", 60, "ns"),
]


def table(found):
    """`found`: medians by name for each key, or one value for a limit."""
    text = ["### The goals", "", "| work | goal | measured | met | plain release |", "|---|---:|---:|---|---:|"]
    for key, work, ours, others in RATIOS:
        medians = found.get(key, {})
        for other, most in others.items():
            theirs = medians.get(other)
            if key in found:
                name = other.removeprefix("sidentity, ")
                mine = [medians.get(each) for each in ([US, PLAIN] if ours == US else [ours])]
                text.append(_line(work, f"≤ {most:g} × {name}", [each and theirs and each / theirs for each in mine], most))
    for key, work, most, unit in LIMITS:
        if key in found:
            figures = [found[key].get(US), found[key].get(PLAIN)] if isinstance(found[key], dict) else [found[key]]
            text.append(_line(work, f"≤ {most:,} {unit}".strip(), figures, most))
    return "\n".join([*text, ""])


def _line(work, goal, figures, most):
    """The first value counts. A second one is of the plain release."""
    figure, plain = (*figures, None)[:2]
    if figure is None:
        return f"| {work} | {goal} | not measured | | |"
    met = "yes" if figure <= most else "**no**"
    return f"| {work} | {goal} | {_number(figure)} | {met} | {'' if plain is None else _number(plain)} |"


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
