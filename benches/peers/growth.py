"""Measures how cost grows with load: one plot for each quantity, of the sidecar and, if possible, of the bare hop."""

import chart
import report
from processes import Failed
from proxies import OurPool, Routes, Sidentity
from rows import GET, Figures, per_request
from stage import SIZES, Stage


def measure(tool, only, rounds, seconds, say):
    """Measures the plots of these names, and returns the text that shows them."""
    parts = []
    with Stage(tool) as stage:
        for name in only:
            if name != "latency":
                parts.append(_plot(stage, *PLOTS[name](stage), rounds, seconds, say))
    if "latency" in only:
        parts.append(latency(tool, rounds, seconds, say))
    return "\n".join(parts)


def connections(stage):
    points = {}
    for proxy in _both(stage):
        for count in (1, 8, 64, 256, 1000):
            points[proxy.name, count] = (proxy, [*_to(proxy.h1), *GET, "--connections", count])
    return "connections", "connections of the app", points


def streams(stage):
    points = {}
    for proxy in _both(stage):
        for count in (1, 10, 50, 100, 200):
            call = ["--grpc", "--path", "/token/bench.Echo/Call", "--streams", count]
            points[proxy.name, count] = (proxy, [*_to(proxy.h2), *call])
    return "streams", "streams at a time on one connection of the app, gRPC", points


def routes(stage):
    points = {}
    for count in (1, 10, 50, 200):
        proxy = Routes(stage, count)
        proxy.start()
        targets = [part for port in proxy.ports for part in _to(port)]
        points["sidentity", count] = (proxy, [*targets, *GET, "--connections", 200])
    return "routes", "routes, each with an upstream and an audience of its own; 200 connections", points


def audiences(stage):
    proxy = Routes(stage, 1)
    proxy.start()
    points = {}
    for count in (1, 20, 200, 1000):
        calls = [*_to(proxy.proxy), "--absolute", "--functions", count, *GET, "--connections", 64]
        # Each audience is fetched once before the measurement.
        stage.load(proxy.process, calls, 1, warm_up=5)
        points["sidentity", count] = (proxy, calls)
    return "audiences", "audiences through the forward proxy, 20 at a host", points


def headers(stage):
    points = {}
    for proxy in _both(stage):
        for size in (0, 1024, 4096, 8192, 16384):
            points[proxy.name, size] = (proxy, [*_to(proxy.h1), *GET, "--header", size, "--connections", 64])
    return "headers", "bytes of a header more", points


def bodies(stage):
    points = {}
    for proxy in _both(stage):
        for size in SIZES:
            get = ["--path", f"/token/bytes/{size}", "--connections", 16]
            points[proxy.name, size] = (proxy, [*_to(proxy.h1), *get])
    return "bodies", "bytes of the answer's body", points


def workers(stage):
    points = {}
    for count in (1, 2):
        proxy = Sidentity(stage, workers=count)
        proxy.start()
        points["sidentity", count] = (proxy, [*_to(proxy.h1), *GET, "--connections", 64])
    return "workers", "workers, each on a core; the load and the upstream share the second", points


def latency(tool, rounds, seconds, say):
    """Measures with a slow upstream. CPU time has steps of 10 ms, so there are more connections than elsewhere."""
    stages, points = [], {}
    for delay in (0, 5, 50):
        stage = Stage(tool, delay=delay, name=f"run-{delay}").__enter__()
        stages.append(stage)
        # nginx serves as the upstream without a delay.
        upstream = stage.h2
        for proxy in _both(stage, h1=upstream):
            points[proxy.name, delay] = (proxy, [*_to(proxy.h1), *GET, "--connections", 256])
    plot = ("latency", "ms until the upstream answers; 256 connections", points)
    return _plot(stages[0], *plot, rounds, seconds, say)


PLOTS = {
    plot.__name__: plot for plot in (connections, streams, routes, audiences, headers, bodies, workers, latency)
}


def _to(port):
    return ["--target", f"127.0.0.1:{port}"]


def _both(stage, **upstream):
    for peer in (Sidentity, OurPool):
        proxy = peer(stage, **upstream)
        proxy.start()
        yield proxy


def _plot(stage, name, label, points, rounds, seconds, say):
    """Measures the points in turn, round by round, and stops the proxies."""
    figures = {key: Figures() for key in points}
    for number in range(rounds):
        for key, (proxy, calls) in points.items():
            try:
                result = stage.load(proxy.serving("h2" if name == "streams" else name), calls, seconds)
                figures[key].values.append(per_request(result))
            except Failed as failure:
                figures[key].failed = str(failure)
                say(f"  {name} {key}: {failure}")
        say(f"  {name}: round {number + 1} of {rounds}")
    for proxy in {id(proxy): proxy for proxy, _ in points.values()}.values():
        proxy.stop()
    series = {}
    for (who, x), found in figures.items():
        if found.values:
            series.setdefault(who, []).append((x, found.median, *found.spread))
    where = report.picture(f"growth-{name}", chart.lines(f"CPU against {name}", label, "µs a request", series))
    text = [f"### {name.capitalize()}", "", f"![CPU a request against {name}]({where})", ""]
    xs = sorted({x for _, x in figures})
    text += [f"| {label} | " + " | ".join(f"{x:,}" for x in xs) + " |", "|---|" + "---:|" * len(xs)]
    for who in series:
        cells = [report.of(figures[who, x]) if (who, x) in figures else "" for x in xs]
        text.append(f"| {who}, µs | " + " | ".join(cells) + " |")
    return "\n".join([*text, ""])
