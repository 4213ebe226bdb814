"""Starts pinned processes, measures their resources, and stops them."""

import os
import socket
import subprocess
import time
from pathlib import Path

# One core for the measured process, another for the rest.
PROXY, OTHERS = {0}, {1}

_running = []


class Process:
    """A process and its children. They are stopped together."""

    def __init__(self, name, command, log_dir, cores=OTHERS, env=None, port=None):
        self.name = name
        self.log = Path(log_dir) / f"{name.replace(' ', '-').replace(',', '')}.log"
        # A child inherits the core. taskset would count as a part of its start time.
        os.sched_setaffinity(0, cores)
        try:
            with self.log.open("wb") as log:
                self.began = time.perf_counter()
                self.child = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, OTHERS)
        _running.append(self)
        if port:
            self.listens(port)

    def listens(self, port, timeout=20):
        """Waits for the first connection. Returns the seconds since the start."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return time.perf_counter() - self.began
            except OSError:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{self.name} does not listen on {port}: {self.last_words()}") from None

    def answers(self, port, path, host, timeout=20):
        """Waits for the first 200. Returns the seconds since the start."""
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        deadline = time.monotonic() + timeout
        answer = b""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as connection:
                    connection.sendall(request)
                    answer = connection.recv(4096)
                    if answer[9:12] == b"200":
                        return time.perf_counter() - self.began
            except OSError:
                pass
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name} does not answer: {answer[:200]!r} {self.last_words()}")

    def last_words(self):
        return self.log.read_text(errors="replace")[-500:].strip()

    def pids(self):
        """Returns the process and all its descendants."""
        found, queue = [], [self.child.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += map(int, children.read_text().split())
        return found

    def memory(self):
        """Returns resident, proportional and peak memory in MiB, and the number of descriptors."""
        total = {"rss": 0, "pss": 0, "peak": 0, "descriptors": 0}
        for pid in self.pids():
            status = _fields(f"/proc/{pid}/status")
            total["rss"] += status["VmRSS"] / 1024
            total["peak"] += status["VmHWM"] / 1024
            total["pss"] += _fields(f"/proc/{pid}/smaps_rollup")["Pss"] / 1024
            total["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
        return total

    def stop(self):
        if self in _running:
            _running.remove(self)
        if self.child.poll() is None:
            # Its own session, so that its children get the signal too.
            _signal_group(self.child.pid, 9)
        self.child.wait()


class Failed(Exception):
    """A program does not run as expected. The text says why."""


def stop_all():
    for process in list(reversed(_running)):
        process.stop()


def free_ports(count):
    """Returns ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _signal_group(pid, number):
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def _fields(path):
    """Returns KiB by name."""
    fields = {}
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            fields[name] = int(words[0])
    return fields
