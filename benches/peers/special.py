"""Measurements outside of rows: many destinations, interception, starts, open connections, sizes."""

import json
import subprocess

import callgrind
import install
import proxies
from processes import Failed
from proxies import Hop, Intercepting, Mitmproxy, Plain, Routes, Sidentity
from rows import GET, GRPC, Figures, per_request

FUNCTIONS = 1000


def _interleaved(stage, loads, rounds, seconds, say, title, warm_up=0.5):
    """Runs rounds of several loads, each on its own process. Returns results by name."""
    figures = {name: Figures() for name in loads}
    for number in range(rounds):
        for name, (process, arguments) in loads.items():
            kept = figures[name]
            if kept.failed:
                continue
            try:
                result = stage.load(process, arguments, seconds, warm_up)
            except Failed as failure:
                kept.failed = str(failure)
                continue
            kept.values.append(per_request(result))
            kept.busy.append(result["cpu"] / result["seconds"])
            kept.rate.append(result["requests"] / result["seconds"])
        say(f"  {title}: round {number + 1} of {rounds}")
    return figures


def many(stage, rounds, seconds, say):
    """Compares one route with fifty routes, and with a thousand audiences through the forward proxy."""
    one, all_routes = Sidentity(stage), Routes(stage)
    one.start()
    all_routes.start()
    route = ["--target", f"127.0.0.1:{one.h1}", *GET]
    fifty = [part for port in all_routes.ports for part in ("--target", f"127.0.0.1:{port}")]
    audiences = ["--target", f"127.0.0.1:{all_routes.proxy}", "--absolute", "--functions", FUNCTIONS, *GET]
    loads = {
        "one route, 64 connections": (one.process, [*route, "--connections", 64]),
        "one route, 1,000 connections": (one.process, [*route, "--connections", 1000]),
        "50 routes, 1,000 connections": (all_routes.process, [*fifty, *GET, "--connections", 1000]),
        "forward proxy, 1,000 audiences at 50 hosts, 1,000 connections": (
            all_routes.process, [*audiences, "--connections", 1000]),
    }
    # The first calls fetch a thousand tokens.
    stage.load(all_routes.process, [*audiences, "--connections", 64], 1, warm_up=5)
    figures = _interleaved(stage, loads, rounds, seconds, say, "many destinations", warm_up=1.5)
    one.stop()
    all_routes.stop()
    return figures


def workers(stage, rounds, seconds, say):
    """Compares one worker with two. The second shares its core with the load and the upstream."""
    loads, started = {}, []
    for count, word in ((1, "one worker"), (2, "two workers")):
        proxy = Sidentity(stage, workers=count)
        process = proxy.start()
        started.append(proxy)
        loads[f"GET, {word}"] = (process, ["--target", f"127.0.0.1:{proxy.h1}", *GET, "--connections", 64])
        loads[f"gRPC, {word}"] = (process, ["--target", f"127.0.0.1:{proxy.h2}", *GRPC])
        channel = ["--grpc", "--path", "/token/bench.Echo/Call", "--connections", 1, "--streams", 10]
        loads[f"gRPC channel, {word}"] = (process, ["--target", f"127.0.0.1:{proxy.h2}", *channel])
    figures = _interleaved(stage, loads, rounds, seconds, say, "workers")
    for proxy in started:
        proxy.stop()
    return figures


def intercepted(stage, rounds, seconds, say):
    """Compares intercepted TLS in CONNECT with the sidecar's cleartext path and with mitmproxy."""
    plain = Sidentity(stage)
    plain.start()
    loads = {
        "sidentity, not intercepted, h1": (plain.process, ["--target", f"127.0.0.1:{plain.h1}", *GET, "--connections", 64]),
        "sidentity, not intercepted, gRPC": (plain.process, ["--target", f"127.0.0.1:{plain.h2}", *GRPC]),
    }
    started = [plain]
    for kind, word in ((1, "h1"), (2, "gRPC")):
        proxy = Intercepting(stage, kind)
        proxy.start()
        started.append(proxy)
        loads[f"sidentity, intercepted, {word}"] = (proxy.process, inside(proxy, proxy.ca, kind))
    if Mitmproxy.available():
        proxy = Mitmproxy(stage)
        try:
            # Python needs more time.
            proxy.start()
            started.append(proxy)
            for kind, word in ((1, "h1"), (2, "gRPC")):
                loads[f"mitmproxy, {word}"] = (proxy.process, inside(proxy, proxy.ca, kind))
        except Failed as failure:
            say(f"mitmproxy: {failure}")
    figures = _interleaved(stage, loads, rounds, seconds, say, "intercepted HTTPS", warm_up=1.5)
    for proxy in started:
        proxy.stop()
    return figures


def inside(proxy, ca, kind):
    """Returns the load whose TLS this proxy terminates."""
    host = proxies.H1 if kind == 1 else proxies.H2
    inside = ["--target", f"127.0.0.1:{proxy.proxy}", "--connect", f"{host}:443", "--ca", ca, "--authority", host]
    return [*inside, *(GRPC if kind == 2 else [*GET, "--connections", "64"])]


def starts(stage, times, say):
    """Returns milliseconds from the start to the first connection and to the first 200, with a token if supported."""
    found = {}
    peers = [peer for peer in proxies.PEERS if peer.available() and not issubclass(peer, Hop)]
    for number in range(times):
        for peer in peers:
            proxy = peer(stage)
            accepted, answered = found.setdefault(peer.name, (Figures(), Figures()))
            try:
                process = proxy.start(wait=False)
                accepted.values.append(process.listens(proxy.h1) * 1000)
                answered.values.append(process.answers(proxy.h1, proxy.path, f"127.0.0.1:{proxy.h1}") * 1000)
            except Failed as failure:
                accepted.failed = answered.failed = str(failure)
            finally:
                proxy.stop()
    say(f"  starts: {times} of each")
    return found


def connections(stage, count=1000):
    """Returns the memory and descriptors of the sidecar, without and with open connections."""
    proxy = Sidentity(stage)
    process = proxy.start()
    process.answers(proxy.h1, "/token/bytes/1024", f"127.0.0.1:{proxy.h1}")
    before = process.memory()
    load = stage.hold(["--target", f"127.0.0.1:{proxy.h1}", *GET, "--connections", count])
    with_them = process.memory()
    load.stdin.close()
    load.wait()
    proxy.stop()
    return {"count": count, "before": before, "with": with_them}


def size():
    """Returns the size in MB of the shipped binary and of the plain release."""
    binaries = {Sidentity: install.shipped(), Plain: install.plain()}
    return {peer.name: path.stat().st_size / 1e6 for peer, path in binaries.items()}


def counts(tool):
    """Returns the instructions of a GET in the shipped binary and the plain release, and the allocations of the latter."""
    request = {"get": callgrind.GET}
    binaries = {Sidentity: install.shipped(), Plain: install.plain()}
    executed = {
        peer.name: min(callgrind.windows(tool, path, request, callgrind.instructions)["get"]) for peer, path in binaries.items()
    }
    return executed, min(callgrind.windows(tool, install.plain(), request, callgrind.allocations)["get"])


def token_hit(say):
    """Returns the median nanoseconds of a token hit, measured by criterion."""
    command = ["cargo", "bench", "--locked", "--bench", "token", "--", "token/hit$", "--warm-up-time", "1"]
    done = subprocess.run(command, cwd=install.ROOT, capture_output=True, text=True, check=False)
    estimates = install.ROOT / "target/criterion/token_hit/new/estimates.json"
    if done.returncode or not estimates.exists():
        say(f"  token hit: {done.stderr.strip()[-300:]}")
        return None
    say("  token hit")
    return json.loads(estimates.read_text())["median"]["point_estimate"]
