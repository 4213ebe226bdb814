"""Measures the memory of connections that the sidecar keeps, as the growth of its resident memory by many of them."""

import socket
import time

from processes import Failed, free_ports
from proxies import Sidentity
from stage import Stage

PAIRS, IDLE, UNREAD = 1000, 500, 50
# Milliseconds, longer than the measurement: no request ends.
NEVER = 600_000
# More than all buffers on the way hold.
DOWNLOAD = 64 << 20


class Many(Sidentity):
    """A route and an upstream of its own for each connection. No route has a token, which would count as memory of the
    connection."""

    def __init__(self, stage, http, count):
        super().__init__(stage)
        self.ports = free_ports(count)
        self.extra = ["--connect-to", f"*::127.0.0.1:{stage.h2}"]
        for number, port in enumerate(self.ports):
            url = f"https://host{number}-424242.us-central1.run.app"
            self.extra += ["--route", f"{port}={url},http={http},credential=none"]


def measure(stage, tool, say):
    """Returns KiB by the kind of connection."""
    found = {"idle h1": idle(stage, 1), "idle h2": idle(stage, 2)}
    say("  memory of idle upstream connections")
    found["unread"] = unread(stage)
    say("  memory of unread downloads")
    with Stage(tool, delay=NEVER, name="held", stop=False) as delayed:
        found["pair"] = pairs(delayed)
    say("  memory of busy pairs")
    return found


def pairs(stage):
    """Returns the memory of a connection of the app and one to the upstream that waits for a response."""
    proxy = Many(stage, 1, 1)
    process = proxy.start()
    before = process.memory()
    load = stage.hold(["--target", f"127.0.0.1:{proxy.ports[0]}", "--path", "/bytes/1024", "--connections", PAIRS])
    after = settled(process, lambda memory: memory["descriptors"] >= before["descriptors"] + 2 * PAIRS)
    load.stdin.close()
    load.wait()
    proxy.stop()
    return growth(before, after, PAIRS)


def idle(stage, http):
    """Returns the memory of an idle connection to an upstream after the app has closed its own."""
    proxy = Many(stage, http, IDLE)
    process = proxy.start()
    before = process.memory()
    targets = [part for port in proxy.ports for part in ("--target", f"127.0.0.1:{port}")]
    load = stage.hold([*targets, "--path", "/bytes/1024", "--connections", IDLE])
    load.stdin.close()
    load.wait()
    # Each has a descriptor, and those of the app have none any more.
    after = settled(process, lambda memory: memory["descriptors"] <= before["descriptors"] + IDLE)
    proxy.stop()
    return growth(before, after, IDLE)


def unread(stage):
    """Returns the memory of a download whose response the app does not read."""
    proxy = Many(stage, 1, 1)
    process = proxy.start()
    before = process.memory()
    apps = []
    for _ in range(UNREAD):
        app = socket.socket()
        # Set before the connection is opened: it limits the window that the sidecar may fill.
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        app.connect(("127.0.0.1", proxy.ports[0]))
        app.sendall(f"GET /bytes/{DOWNLOAD} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        apps.append(app)
    after = settled(process, lambda memory: memory["descriptors"] >= before["descriptors"] + 2 * UNREAD)
    for app in apps:
        app.close()
    proxy.stop()
    return growth(before, after, UNREAD)


def growth(before, after, count):
    return (after["rss"] - before["rss"]) * 1024 / count


def settled(process, reached, timeout=30):
    """Polls until the state is reached and the memory no longer changes, and returns the memory."""
    deadline = time.monotonic() + timeout
    last = None
    while time.monotonic() < deadline:
        memory = process.memory()
        if last and reached(memory) and memory["rss"] == last["rss"]:
            return memory
        last = memory
        time.sleep(0.5)
    raise Failed(f"{process.name} does not reach the state to measure: {last}")
