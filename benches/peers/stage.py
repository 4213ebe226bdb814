"""The environment of the proxies: certificates, two upstreams, the metadata server, and the load."""

import json
import shutil
import subprocess

import install
import nginx
from processes import Failed, Process, free_ports, stop_all

SIZES = [0, 1024, 4096, 16384, 65536, 262144, 1 << 20]


class Stage:
    """The environment is started once. Measured proxies are started in addition."""

    def __init__(self, tool, delay=0, name="run", sidentity=None, stop=True, nginx=True):
        self.tool, self.delay = tool, delay
        self.sidentity = sidentity or install.shipped()
        # Whether nginx, if there is one, serves HTTP/1.1 as the upstream.
        self.nginx = nginx and not delay and install.find("nginx")
        # Whether the end of this stage also ends all other processes.
        self.stop = stop
        self.folder = install.WORK / name
        self.ca = self.folder / "ca.pem"
        self.h1, self.h2, self.metadata = free_ports(3)

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        files = self.folder / "files" / "bytes"
        files.mkdir(parents=True)
        for size in SIZES:
            (files / str(size)).write_bytes(b"x" * size)
        subprocess.run([self.tool, "certificates", self.folder], check=True)
        delayed = [self.tool, "upstream", "--certificates", self.folder, "--delay", self.delay]
        if not self.nginx:
            Process("upstream h1", [*delayed, "--port", self.h1], self.folder, port=self.h1)
        else:
            words = {"FOLDER": self.folder, "PORT": self.h1}
            command = nginx.command("nginx-upstream.conf", self.folder / "nginx-upstream.conf", words)
            Process("upstream h1", command, self.folder, port=self.h1)
        Process("upstream h2", [*delayed, "--port", self.h2], self.folder, port=self.h2)
        emulator = [self.sidentity, "metadata-server", "--listen", f"127.0.0.1:{self.metadata}"]
        Process("metadata server", emulator, self.folder, port=self.metadata)
        return self

    def __exit__(self, *_):
        if self.stop:
            stop_all()

    def load(self, process, arguments, seconds, warm_up=0.5):
        """Runs one round, and returns its cost for the process and its results."""
        pids = ",".join(map(str, process.pids()))
        command = [self.tool, "load", "--seconds", seconds, "--warm-up", warm_up, "--pids", pids, *arguments]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, timeout=seconds + warm_up + 60
        )
        if done.returncode:
            raise Failed(f"the load ended: {done.stderr.strip()[-300:]}")
        result = json.loads(done.stdout)
        if result["errors"] or not result["requests"]:
            raise Failed(f"{result['errors']} errors in {result['requests']} requests, the first: {result['error']}")
        return result

    def hold(self, arguments, warm_up=2):
        """Runs a load that keeps its connections until it is stopped."""
        command = [self.tool, "load", "--seconds", 1, "--warm-up", warm_up, "--hold", *arguments]
        load = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        result = json.loads(load.stdout.readline() or "{}")
        if result.get("errors", 1):
            load.kill()
            raise Failed(f"the load failed: {result.get('error')}")
        return load
