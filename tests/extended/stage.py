"""Runs the two servers of the binary as processes: the metadata server's emulator and the sidecar."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "debug" / "sidentity"
WORK = ROOT / "target" / "extended"
TIMEOUT = 30


class Process:
    """A child process whose output is read line by line. It ends with its `with` block."""

    def __init__(self, args, env, stream):
        self.lines = []
        self._news = threading.Condition()
        self._ended = False
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: subprocess.PIPE}
        self.child = subprocess.Popen(
            [str(BINARY), *map(str, args)], stdin=subprocess.DEVNULL, text=True, env=env, **pipes
        )
        reader = threading.Thread(target=self._read, args=(getattr(self.child, stream),), daemon=True)
        reader.start()

    def _read(self, stream):
        for line in stream:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, wanted):
        """Waits for the first line for which `wanted` returns a true value, and returns the value."""

        def found():
            return next(filter(None, map(wanted, self.lines)), None) or self._ended

        with self._news:
            result = self._news.wait_for(found, TIMEOUT)
        assert result and result is not True, f"that line did not come: {self.lines}"
        return result

    def assert_alive(self):
        assert self.child.poll() is None, f"it ended with {self.child.returncode}: {self.lines[-20:]}"
        panics = [line for line in self.lines if "panicked" in line]
        assert not panics, panics

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise


class Emulator(Process):
    """`sidentity metadata-server` on a free port."""

    EMAIL = "emulator@example-project.iam.gserviceaccount.com"

    def __init__(self, *args):
        super().__init__(["metadata-server", "--listen", "127.0.0.1:0", *args], {}, "stdout")
        found = self.wait_for(lambda line: re.search(r"GCE_METADATA_HOST=(\S+)", line))
        self.address = found.group(1)

    def url(self, path):
        return f"http://{self.address}{path}"


class Sidecar(Process):
    """`sidentity run` on free ports."""

    def __init__(self, emulator, *args):
        env = {"GCE_METADATA_HOST": emulator.address, "PATH": os.environ["PATH"]}
        defaults = ["--admin", "127.0.0.1:0", "--log-format", "json"]
        if "--proxy" not in args:
            defaults += ["--proxy", "127.0.0.1:0"]
        super().__init__(["run", *defaults, *args], env, "stderr")
        # The admin port's line is the last one of the start.
        self.admin = self.wait_for(lambda line: self._address(line, "admin"))
        self.proxy = next(filter(None, (self._address(line, "proxy") for line in self.lines)), None)
        entries = map(self._entry, self.lines)
        # `http://ADDRESS/PREFIX` or `unix:PATH`, in the order of the command line.
        self.routes = [
            entry["address"].removeprefix("http://")
            for entry in entries
            if "address" in entry and entry["listener"] not in ("proxy", "admin")
        ]

    @staticmethod
    def _entry(line):
        try:
            return json.loads(line)
        except ValueError:
            return {}

    def _address(self, line, listener):
        entry = self._entry(line)
        return entry.get("address") if entry.get("listener") == listener else None

    def metric(self, name):
        """Returns the sum of a metric's samples."""
        import requests

        with requests.Session() as session:
            session.trust_env = False
            text = session.get(f"http://{self.admin}/metrics", timeout=TIMEOUT).text
        pattern = re.compile(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", re.M)
        return sum(float(value) for value in pattern.findall(text))
