"""Runs a page of docs/recipes: writes its files, and runs its commands in one shell on free ports."""

import os
import re
import shlex
import socket
import subprocess

from stage import BINARY, ROOT, WORK

FOLDER = ROOT / "docs" / "recipes"
# The ports of the pages. Free ports replace them.
PORTS = ("8000", "8080", "8081", "8082", "3128", "8980")
FILE = re.compile(r"^`([^`\n]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.S | re.M)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.S | re.M)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Recipe:
    """A page's files by name, and its commands."""

    def __init__(self, name, folder, emulator, options=()):
        text = (FOLDER / f"{name}.md").read_text()
        self.ports = {port: str(free_port()) for port in PORTS}
        self.folder = folder
        self.files = {name: self.moved(body) for name, body in FILE.findall(text)}
        self.blocks = [self.moved(block) for block in BLOCK.findall(FILE.sub("", text))]
        for name, body in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(body)
        self.programs = folder / "bin"
        self.programs.mkdir()
        path = [self.programs, BINARY.parent, WORK / "venv" / "bin", WORK / "clients" / "node_modules" / ".bin", os.environ["PATH"]]
        self.env = {
            "PATH": ":".join(map(str, path)),
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "GCE_METADATA_HOST": emulator.address,
            "SIDENTITY_ADMIN": f"127.0.0.1:{free_port()}",
            "SIDENTITY_PROXY": f"127.0.0.1:{self.ports['3128']}",
        }
        for option, value in options:
            name = f"SIDENTITY_{option.upper().replace('-', '_')}"
            self.env[name] = f"{self.env.get(name, '')} {value}".strip()

    def moved(self, text):
        for port, free in self.ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?!\d)", free, text)
        return text

    def url(self, port):
        """Returns the address that replaces a port of the page."""
        return f"http://localhost:{self.ports[port]}"

    def program(self, name, text):
        """Adds a program that precedes the machine's own."""
        (self.programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.programs / name).chmod(0o755)

    def run(self, then="", edit=lambda script: script, timeout=100):
        """Runs the commands, then further ones, and returns their output."""
        script = edit("".join(self.blocks)) + then
        script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
        done = subprocess.run(
            ["bash", "-eu", "-c", script], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def in_background(script):
    """Runs the last command, a server, while the test calls it."""
    return f"{script.rstrip()} >&2 &\n"


def call(url):
    """Returns the command that calls a server which may not listen yet."""
    return f"curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused {shlex.quote(url)}\n"

