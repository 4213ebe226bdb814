"""Measures the memory of connections that the sidecar keeps, as the growth of its resident memory by many of them, and
what stays resident after a peak."""

import socket
import time

from processes import Failed, free_ports
from proxies import Sidentity
from stage import Stage

PAIRS, IDLE, UNREAD = 1000, 500, 50
# The seconds after which the sidecar has parked idle connections: twice the time between two sweeps, and a spare.
PARKED = 12
# Milliseconds, longer than the measurement: no request ends.
NEVER = 600_000
FUNCTIONS_OF_A_HOST = 20
# More than all buffers on the way hold.
DOWNLOAD = 64 << 20


class Direct(Sidentity):
    """One route without a token, which would count as memory of the connection."""

    def __init__(self, stage):
        super().__init__(stage)
        (self.port,) = free_ports(1)
        self.extra = ["--route", f"{self.port}=https://memory-424242.us-central1.run.app,http=1,credential=none"]
        self.extra += ["--connect-to", f"memory-424242.us-central1.run.app::127.0.0.1:{stage.h2}"]


class Hosts(Sidentity):
    """A forward proxy to many hosts, all with one token."""

    def __init__(self, stage, http):
        super().__init__(stage)
        (self.proxy,) = free_ports(1)
        self.proxy_at = f"127.0.0.1:{self.proxy}"
        self.extra = ["--rule", "*.cloudfunctions.net=access", "--upstream-http", http, "--connect-to", f"*::127.0.0.1:{stage.h2}"]


def measure(stage, tool, say):
    """Returns KiB by the kind of connection, and MiB at a peak of downloads and after it."""
    found = {"idle h1": idle(stage, 1), "idle h2": idle(stage, 2)}
    say("  memory of idle upstream connections")
    found["unread"] = unread(stage)
    say("  memory of unread downloads")
    found["peak"], found["after peak"] = peak(stage)
    say("  memory after a peak")
    with Stage(tool, delay=NEVER, name="held", stop=False) as delayed:
        found["pair"] = pairs(delayed)
    say("  memory of busy pairs")
    return found


def pairs(stage):
    """Returns the memory of a connection of the app and one to the upstream that waits for a response."""
    proxy = Direct(stage)
    process = proxy.start()
    before = settled(process, lambda memory: True)
    load = stage.hold(["--target", f"127.0.0.1:{proxy.port}", "--path", "/bytes/1024", "--connections", PAIRS])
    after = settled(process, lambda memory: memory["descriptors"] >= before["descriptors"] + 2 * PAIRS)
    load.stdin.close()
    load.wait()
    proxy.stop()
    return growth(before, after, PAIRS)


def idle(stage, http):
    """Returns the memory of an idle connection to an upstream. One connection of the app calls one host after another."""
    proxy = Hosts(stage, http)
    process = proxy.start()
    process.listens(proxy.proxy)

    def call(hosts, seconds):
        calls = ["--absolute", "--functions", hosts * FUNCTIONS_OF_A_HOST, "--path", "/bytes/0"]
        load = stage.hold(["--target", f"127.0.0.1:{proxy.proxy}", *calls], warm_up=seconds)
        load.stdin.close()
        load.wait()

    # The first calls also map the program's code, which is not memory of a connection.
    call(1, 1)
    before = settled(process, lambda memory: True)
    call(IDLE, 8)
    time.sleep(PARKED)
    # The first host has its connection already.
    more = IDLE - 1
    after = settled(process, lambda memory: memory["descriptors"] >= before["descriptors"] + more)
    proxy.stop()
    return growth(before, after, more)


def unread(stage):
    """Returns the memory of a download whose response the app does not read."""
    proxy = Direct(stage)
    process = proxy.start()
    before = settled(process, lambda memory: True)
    apps = []
    for _ in range(UNREAD):
        app = socket.socket()
        # Set before the connection is opened: it limits the window that the sidecar may fill.
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        app.connect(("127.0.0.1", proxy.port))
        app.sendall(f"GET /bytes/{DOWNLOAD} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        apps.append(app)
    after = settled(process, lambda memory: memory["descriptors"] >= before["descriptors"] + 2 * UNREAD)
    for app in apps:
        app.close()
    proxy.stop()
    return growth(before, after, UNREAD)


def peak(stage):
    """Returns the resident memory during many downloads at a time, and when all their connections have been closed."""
    proxy = Direct(stage)
    proxy.extra += ["--idle-timeout", "5s"]
    process = proxy.start()
    load = stage.hold(["--target", f"127.0.0.1:{proxy.port}", "--path", "/bytes/65536", "--connections", PAIRS])
    during = process.memory()
    load.stdin.close()
    load.wait()
    # Those of the app and of the upstream. A few may have been opened meanwhile, for tokens.
    after = settled(process, lambda memory: memory["descriptors"] < during["descriptors"] - 2 * PAIRS + 10)
    proxy.stop()
    return during["rss"], after["rss"]


def growth(before, after, count):
    return (after["rss"] - before["rss"]) * 1024 / count


def settled(process, reached, timeout=30):
    """Polls until the state is reached and nothing changes any more, and returns the memory."""
    deadline = time.monotonic() + timeout
    last = None
    while time.monotonic() < deadline:
        memory = process.memory()
        if reached(memory) and last == memory:
            return memory
        last = memory
        time.sleep(0.5)
    raise Failed(f"{process.name} does not reach the state to measure: {last}")
