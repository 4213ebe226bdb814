"""Compares measurements with their goals."""

US, PROFILED = "sidentity", "sidentity, PGO"
HOP, ENVOY = "bare hyper hop, our pool", "Envoy, gcp_authn"
ONE, FIFTY = "one route, 1,000 connections", "50 routes, 1,000 connections"
AUDIENCES = "forward proxy, 1,000 audiences at 50 hosts, 1,000 connections"

# Limits relative to other proxies, as a factor.
RATIOS = [
    ("small", "1 KB GET, HTTP/1.1 → TLS HTTP/1.1: CPU a request", US, {"nginx": 0.95, "HAProxy": 0.95, ENVOY: 0.5, HOP: 1.03}),
    ("h2", "gRPC, h2c → TLS h2: CPU a call", US, {ENVOY: 0.8, "HAProxy": 1.0}),
    ("down", "1 MiB down: CPU a GB", US, {"nginx": 0.75, ENVOY: 1.0}),
    ("up", "1 MiB up: CPU a GB", US, {"nginx": 0.75, ENVOY: 1.0}),
    ("p50", "latency at one connection, p50", US, {"nginx": 1.0, "HAProxy": 1.0}),
    ("p99", "latency at one connection, p99", US, {"nginx": 1.0, "HAProxy": 1.0}),
    ("many", "50 routes, 1,000 connections: CPU a request", FIFTY, {ONE: 1.15}),
    ("many", "1,000 audiences, 1,000 connections: CPU a request", AUDIENCES, {ONE: 1.15}),
    ("intercept", "intercepted, HTTP/1.1: CPU a request", "sidentity, intercepted, h1", {"mitmproxy, h1": 0.5, "sidentity, plain, h1": 2.2}),
    ("intercept", "intercepted, gRPC: CPU a call", "sidentity, intercepted, gRPC", {"mitmproxy, gRPC": 0.5, "sidentity, plain, gRPC": 2.2}),
    ("accepted", "start to the first connection", US, {ENVOY: 0.1}),
    ("answered", "start to the first 200, token and all", US, {ENVOY: 0.25}),
]

# Absolute limits of the sidecar.
LIMITS = [
    ("idle", "resident memory, idle", 8, "MiB"),
    ("after", "resident memory after the load", 16, "MiB"),
    ("accepted", "start to the first connection", 5, "ms"),
    ("answered", "start to the first 200, token and all", 12, "ms"),
    ("size", "the binary, stripped", 9, "MB"),
    ("token", "a token hit on a static route", 60, "ns"),
]


def table(found):
    """`found`: medians by name for each key, or one value for a limit."""
    text = ["### The goals", "", "| work | goal | measured | met | with PGO |", "|---|---:|---:|---|---:|"]
    for key, work, ours, others in RATIOS:
        medians = found.get(key, {})
        for other, most in others.items():
            theirs = medians.get(other)
            if key in found:
                name = other.removeprefix("sidentity, ")
                mine = [medians.get(each) for each in ([US, PROFILED] if ours == US else [ours])]
                text.append(_line(work, f"≤ {most:g} × {name}", [each and theirs and each / theirs for each in mine], most))
    for key, work, most, unit in LIMITS:
        if key in found:
            figures = [found[key].get(US), found[key].get(PROFILED)] if isinstance(found[key], dict) else [found[key]]
            text.append(_line(work, f"≤ {most} {unit}", figures, most))
    return "\n".join([*text, ""])


def _line(work, goal, figures, most):
    """Only the first value counts. A second one is of the binary built with a profile."""
    figure, profiled = (*figures, None)[:2]
    if figure is None:
        return f"| {work} | {goal} | not measured | | |"
    beside = "" if profiled is None else f"{profiled:.2f}{', yes' if profiled <= most < figure else ''}"
    return f"| {work} | {goal} | {figure:.2f} | {'yes' if figure <= most else '**no**'} | {beside} |"
